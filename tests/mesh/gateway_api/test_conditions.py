"""What cannot be attached is told by the specification's reason, and leaves nothing behind."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from policyd.errors import InvalidInput
from policyd.mesh.build import build
from policyd.mesh.credentials import CredentialFile
from policyd.mesh.declare import declare
from policyd.mesh.gateway_api import conditions as conditions_module
from policyd.mesh.gateway_api.conditions import Condition
from policyd.mesh.gateway_api.kinds import KINDS
from policyd.mesh.gateway_api.values import AttachedRules, OpenedListener, ShowsBackends
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.placement import assumed
from policyd.xds.resources import certificates
from tests.mesh.gateway_api.sample import (
    EVERY,
    HTTP,
    WORKLOADS,
    declared,
    folder,
    gateway,
    grant,
    resource,
    route,
    status,
    told,
)

TLS = {"tls": {"certificateRefs": [{"name": "shop"}]}}
HTTPS = {"name": "https", "port": 8443, "protocol": "HTTPS", **TLS}


def test_a_gateway_and_its_route_are_accepted() -> None:
    found = declared(gateway(), route())

    assert status(found, "Gateway", "edge").shown() == {
        "conditions": [
            {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
            {"type": "Programmed", "status": "True", "reason": "Programmed", "message": ""},
        ],
        "addresses": [{"type": "IPAddress", "value": "127.0.0.1"}],
        "listeners": [
            {
                "name": "http",
                "supportedKinds": [
                    {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"},
                    {"group": "gateway.networking.k8s.io", "kind": "GRPCRoute"},
                ],
                "attachedRoutes": 1,
                "conditions": [
                    {"type": "Conflicted", "status": "False", "reason": "NoConflicts", "message": ""},
                    {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
                    {"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs", "message": ""},
                    {"type": "Programmed", "status": "True", "reason": "Programmed", "message": ""},
                ],
            }
        ],
    }
    assert status(found, "HTTPRoute", "shop").shown() == {
        "parents": [
            {
                "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"},
                "controllerName": "policyd.dev/gateway-controller",
                "conditions": [
                    {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
                    {"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs", "message": ""},
                ],
            }
        ]
    }


def test_a_file_with_all_kinds_is_in_force() -> None:
    found = declare({"workloads.yaml": WORKLOADS, "mesh/it.yaml": EVERY})

    assert {key: told(given) for key, given in found.statuses.items() if told(given)} == {}
    assert {kind for kind, _ in found.statuses} == set(KINDS) - {"ReferenceGrant"}  # which has no status


def only(**allowed: Any) -> dict[str, Any]:
    return gateway({**HTTP, "allowedRoutes": allowed})


@pytest.mark.parametrize(
    ("at", "given", "reason"),
    [
        (gateway(), route(parentRefs=[{"name": "egde"}]), "NoMatchingParent"),
        (gateway(), route(parentRefs=[{"name": "edge", "kind": "Ingress"}]), "NoMatchingParent"),
        (gateway(), route(parentRefs=[{"name": "edge", "sectionName": "https"}]), "NoMatchingParent"),
        (gateway(), route(parentRefs=[{"name": "edge", "port": 81}]), "NoMatchingParent"),
        (gateway(), route(parentRefs=[{"name": "edge", "namespace": "far"}]), "NoMatchingParent"),
        (gateway(of="other"), route(), "NoMatchingParent"),
        (gateway(), route(metadata={"namespace": "far"}, parentRefs=[{"name": "edge", "namespace": "default"}]),
         "NotAllowedByListeners"),
        (only(namespaces={"from": "None"}), route(), "NotAllowedByListeners"),
        (only(namespaces={"from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": "far"}}}),
         route(), "NotAllowedByListeners"),
        (only(kinds=[{"kind": "GRPCRoute"}]), route(), "NotAllowedByListeners"),
        (gateway(), route(kind="TCPRoute"), "NotAllowedByListeners"),
        (gateway({**HTTP, "hostname": "a.example"}), route(hostnames=["b.example"]), "NoMatchingListenerHostname"),
        (gateway({**HTTP, "hostname": "*.a.example"}), route(hostnames=["a.example"]), "NoMatchingListenerHostname"),
        (gateway(), route(parentRefs=[{"group": "", "kind": "Service", "name": "api", "port": 80}]),
         "NoMatchingParent"),
        (gateway(), route(parentRefs=[{"group": "", "kind": "Service", "name": "mail"}]), "NoMatchingParent"),
        (gateway(), route(parentRefs=[{"group": "", "kind": "Service", "name": "ingress"}]), "NoMatchingParent"),
    ],
)  # fmt: skip
def test_a_route_that_may_not_be_attached_says_why_and_has_no_rules(
    at: Mapping[str, Any], given: Mapping[str, Any], reason: str
) -> None:
    found = declared(at, given)
    namespace = given["metadata"].get("namespace", "default")

    assert told(status(found, given["kind"], "shop", namespace))["Accepted"] == reason
    assert [rule for one in found.of(AttachedRules) for rule in one.resource.spec.http if rule.route] == []


@pytest.mark.parametrize(
    ("allowed", "namespace", "let"),
    [
        ({"namespaces": {"from": "All"}}, "far", True),
        ({"namespaces": {"from": "Same"}}, "default", True),
        ({"namespaces": {"from": "Selector", "selector": {
            "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["far"]}]}}},
         "far", True),
        ({"namespaces": {"from": "Selector", "selector": {
            "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["far"]}]}}},
         "far", False),
        ({"namespaces": {"from": "Selector", "selector": {
            "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "Exists"}]}}}, "far", True),
        ({"kinds": [{"kind": "HTTPRoute"}]}, "default", True),
    ],
)  # fmt: skip
def test_a_listener_lets_those_that_it_says(allowed: dict[str, Any], namespace: str, let: bool) -> None:
    given = route(metadata={"namespace": namespace}, parentRefs=[{"name": "edge", "namespace": "default"}])

    found = status(declared(only(**allowed), given), "HTTPRoute", "shop", namespace)

    assert ("Accepted" not in told(found)) is let


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ({"name": "apu", "port": 9080}, "BackendNotFound"),
        ({"name": "api", "port": 81}, "BackendNotFound"),
        ({"name": "api"}, "BackendNotFound"),
        ({"name": "ingress", "port": 8080}, "BackendNotFound"),
        ({"name": "x", "port": 80, "kind": "ServiceEntry", "group": "networking.istio.io"}, "BackendNotFound"),
        ({"name": "a.example", "port": 80, "kind": "Hostname", "group": "networking.istio.io"}, "BackendNotFound"),
        ({"name": "api", "port": 9080, "kind": "Bucket", "group": "storage.example"}, "InvalidKind"),
        ({"name": "far", "port": 9080, "namespace": "far"}, "RefNotPermitted"),
        ({"name": "nobody", "port": 9080, "namespace": "far"}, "RefNotPermitted"),
        ({"name": "mail", "port": 2525}, "UnsupportedProtocol"),
    ],
)
def test_a_backend_that_is_not_there_is_answered_with_500(ref: dict[str, Any], reason: str) -> None:
    found = declared(gateway(), route({"backendRefs": [ref]}))

    assert told(status(found, "HTTPRoute", "shop")) == {"ResolvedRefs": reason}
    [rules] = found.of(AttachedRules)
    assert [(rule.direct_response.status, rule.route) for rule in rules.resource.spec.http if rule.direct_response] == [
        (500, ())
    ]


@pytest.mark.parametrize(
    ("let", "good"),
    [
        (grant("far", "HTTPRoute", "Service"), True),
        (grant("far", "HTTPRoute", "Service", name="far"), True),
        (grant("far", "HTTPRoute", "Service", name="other"), False),
        (grant("far", "GRPCRoute", "Service"), False),
        (grant("far", "HTTPRoute", "Secret"), False),
        (grant("default", "HTTPRoute", "Service"), False),
    ],
)
def test_a_backend_of_another_namespace_needs_its_word(let: Mapping[str, Any], good: bool) -> None:
    rule = {"backendRefs": [{"name": "far", "namespace": "far", "port": 9080}]}

    found = declared(gateway(), route(rule), let)

    assert ("ResolvedRefs" not in told(status(found, "HTTPRoute", "shop"))) is good


@pytest.mark.parametrize(
    ("listener", "expected"),
    [
        ({**HTTP, "port": 81}, {"Accepted": "PortUnavailable", "Programmed": "Invalid"}),
        ({**HTTP, "protocol": "UDP"}, {"Accepted": "UnsupportedProtocol", "Programmed": "Invalid"}),
        ({**HTTP, "protocol": "example.com/own"}, {"Accepted": "UnsupportedProtocol", "Programmed": "Invalid"}),
        ({**HTTPS, "tls": {"certificateRefs": [{"name": "shop", "kind": "ConfigMap"}]}},
         {"ResolvedRefs": "InvalidCertificateRef", "Programmed": "Invalid"}),
        ({**HTTPS, "tls": {"certificateRefs": [{"name": "shop", "namespace": "far"}]}},
         {"ResolvedRefs": "RefNotPermitted", "Programmed": "Invalid"}),
        ({**HTTP, "allowedRoutes": {"kinds": [{"kind": "TCPRoute"}]}}, {"ResolvedRefs": "InvalidRouteKinds"}),
        ({**HTTP, "allowedRoutes": {"kinds": [{"kind": "HTTPRoute", "group": "x.example"}]}},
         {"ResolvedRefs": "InvalidRouteKinds"}),
    ],
)  # fmt: skip
def test_a_listener_that_cannot_be_opened_says_why(listener: dict[str, Any], expected: dict[str, str]) -> None:
    found = declared(gateway(listener))
    [told_of] = status(found, "Gateway", "edge").listeners

    assert {one.type: one.reason for one in told_of.conditions if not one.is_good} == expected
    assert bool(found.of(OpenedListener)) is ("Programmed" not in expected)


OWN = {"group": "", "kind": "ConfigMap", "name": "clients"}
SHOP = ("credentials/shop/tls.crt", "credentials/shop/tls.key")
HELD = {
    path: CredentialFile(path, "/a", is_key=path.endswith(".key")) for path in (*SHOP, "credentials/clients/ca.crt")
}


def mutual(ref: Mapping[str, Any]) -> dict[str, Any]:
    """A Gateway whose clients show a certificate of some authorities."""
    return gateway(HTTPS, HTTP, tls={"frontend": {"default": {"validation": {"caCertificateRefs": [ref]}}}})


@pytest.mark.parametrize(
    ("ref", "files", "expected"),
    [
        (OWN, HELD, {}),
        (OWN, None, {}),
        ({**OWN, "kind": "Secret"}, HELD, {}),
        (OWN, {path: HELD[path] for path in SHOP},
         {"Accepted": "NoValidCACertificate", "ResolvedRefs": "InvalidCACertificateRef", "Programmed": "Invalid"}),
        ({**OWN, "kind": "Vault"}, HELD,
         {"Accepted": "NoValidCACertificate", "ResolvedRefs": "InvalidCACertificateKind", "Programmed": "Invalid"}),
        ({**OWN, "namespace": "far"}, HELD,
         {"Accepted": "NoValidCACertificate", "ResolvedRefs": "RefNotPermitted", "Programmed": "Invalid"}),
        (OWN, {path: one for path, one in HELD.items() if path != SHOP[0]},
         {"ResolvedRefs": "InvalidCertificateRef", "Programmed": "Invalid"}),
        (OWN, {**HELD, SHOP[1]: CredentialFile(SHOP[1], "/a", problem="is readable by others", remedy="chmod it")},
         {"ResolvedRefs": "InvalidCertificateRef", "Programmed": "Invalid"}),
        (OWN, {**HELD, SHOP[0]: CredentialFile(SHOP[0], "/a", is_key=True)},
         {"ResolvedRefs": "InvalidCertificateRef", "Programmed": "Invalid"}),
    ],
)  # fmt: skip
def test_a_listener_whose_files_are_not_to_be_had_is_closed_and_the_others_are_open(
    ref: Mapping[str, Any], files: dict[str, CredentialFile] | None, expected: dict[str, str]
) -> None:
    found = declare(folder(mutual(ref)), credentials=files)
    secure, plain = status(found, "Gateway", "edge").listeners

    assert {one.type: one.reason for one in secure.conditions if not one.is_good} == expected
    assert all(one.is_good for one in plain.conditions)
    assert [one.resource.name for one in found.of(OpenedListener)] == ["edge~http"] if expected else ["edge~https"]


@pytest.mark.parametrize(
    ("frontend", "wanted"),
    [
        ({"default": {}}, None),
        ({"default": {"validation": {"caCertificateRefs": [OWN]}}}, "credentials/clients/ca.crt"),
        ({"default": {"validation": {"caCertificateRefs": [OWN]}}, "perPort": [{"port": 8443, "tls": {}}]}, None),
        ({"default": {}, "perPort": [{"port": 8443, "tls": {"validation": {"caCertificateRefs": [OWN]}}}]},
         "credentials/clients/ca.crt"),
        ({"default": {}, "perPort": [{"port": 1, "tls": {"validation": {"caCertificateRefs": [OWN]}}}]}, None),
    ],
)  # fmt: skip
def test_clients_show_what_is_said_for_their_port_else_for_all(frontend: dict[str, Any], wanted: str | None) -> None:
    found = declared(gateway(HTTPS, HTTP, tls={"frontend": frontend}))

    shown = {one.resource.name: one.resource.spec.servers[0].tls for one in found.of(OpenedListener)}
    assert shown["edge~http"] is None
    assert (shown["edge~https"].mode, shown["edge~https"].ca_file) == ("MUTUAL" if wanted else "SIMPLE", wanted)


@pytest.mark.parametrize(
    ("default", "on_port", "told_of"),
    [
        ("AllowValidOnly", None, False),
        ("AllowInsecureFallback", None, True),
        ("AllowInsecureFallback", "AllowValidOnly", True),
        ("AllowValidOnly", "AllowInsecureFallback", True),
    ],
)
def test_a_gateway_that_lets_in_whoever_has_no_good_certificate_is_told_so(
    default: str, on_port: str | None, told_of: bool
) -> None:
    def wanted(mode: str) -> dict[str, Any]:
        return {"validation": {"caCertificateRefs": [OWN], "mode": mode}}

    per_port = [{"port": HTTPS["port"], "tls": wanted(on_port)}] if on_port else []
    found = declared(gateway(HTTPS, tls={"frontend": {"default": wanted(default), "perPort": per_port}}))

    conditions = status(found, "Gateway", "edge").conditions
    assert [(one.status, one.reason) for one in conditions if one.type == "InsecureFrontendValidationMode"] == (
        [("True", "ConfigurationChanged")] if told_of else []
    )
    [opened] = found.of(OpenedListener)
    tls = opened.resource.spec.servers[0].tls
    assert tls is not None
    takes_any = (on_port or default) == "AllowInsecureFallback"
    assert (tls.mode, tls.takes_any) == (("OPTIONAL_MUTUAL", True) if takes_any else ("MUTUAL", False))
    shown = certificates.downstream(tls)["typed_config"]
    context = shown["common_tls_context"]["combined_validation_context"]["default_validation_context"]
    assert context == ({"trust_chain_verification": "ACCEPT_UNTRUSTED"} if takes_any else {})
    assert shown["require_client_certificate"] is not takes_any


CLIENT = {"backend": {"clientCertificateRef": {"name": "shop"}}}


@pytest.mark.parametrize(
    ("tls", "files", "reason"),
    [
        (CLIENT, HELD, None),
        (CLIENT, {}, "InvalidClientCertificateRef"),
        ({"backend": {"clientCertificateRef": {"name": "shop", "kind": "ConfigMap"}}}, HELD,
         "InvalidClientCertificateRef"),
        ({"backend": {"clientCertificateRef": {"name": "shop", "namespace": "far"}}}, HELD, "RefNotPermitted"),
    ],
)  # fmt: skip
def test_a_gateway_shows_backends_a_certificate_that_it_has(
    tls: dict[str, Any], files: dict[str, CredentialFile], reason: str | None
) -> None:
    found = declare(folder(gateway(tls=tls)), credentials=files)

    assert told(status(found, "Gateway", "edge")) == ({"ResolvedRefs": reason} if reason else {})
    assert [(one.resource.credential, one.resource.instances) for one in found.of(ShowsBackends)] == (
        [] if reason else [("shop", {"ingress"})]
    )


def test_of_two_gateways_at_one_proxy_the_older_says_what_backends_are_shown() -> None:
    older = gateway(tls=CLIENT, metadata={"creationTimestamp": "2026-01-01T00:00:00Z"})
    other = {"backend": {"clientCertificateRef": {"name": "other"}}}
    younger = gateway({**HTTP, "port": 8081}, name="again", tls=other)

    found = declared(younger, older)

    assert {name: one.resource.credential for one in found.of(ShowsBackends) for name in one.resource.instances} == {
        "ingress": "shop"
    }
    assert told(status(found, "Gateway", "edge")) == {}
    assert told(status(found, "Gateway", "again")) == {"ResolvedRefs": "InvalidClientCertificateRef"}


def test_protocols_are_the_same_in_any_case() -> None:
    found = declared(gateway({**HTTP, "protocol": "hTtP"}))

    assert told(status(found, "Gateway", "edge")) == {}


def test_where_tls_ends_routes_by_name_and_one_for_the_rest_share_a_listener() -> None:
    at = gateway({"name": "tls", "port": 8443, "protocol": "TLS", "hostname": "*.example", **TLS})
    to_mail = {"backendRefs": [{"name": "mail", "port": 2525}]}
    named = route(to_mail, kind="TLSRoute", name="named", hostnames=["a.example", "b.test"])
    again = route(to_mail, kind="TLSRoute", name="z", hostnames=["a.example"])
    rest = route(to_mail, kind="TCPRoute", name="rest")

    found = declared(at, named, again, rest)

    [listener] = status(found, "Gateway", "edge").listeners
    assert (listener.kinds, listener.attached) == (("TLSRoute", "TCPRoute"), 2)
    assert {name: told(status(found, kind, name)) for kind, name in (("TLSRoute", "named"), ("TCPRoute", "rest"))} == {
        "named": {},
        "rest": {},
    }
    assert told(status(found, "TLSRoute", "z")) == {"Accepted": "NotAllowedByListeners"}
    servers = {one.resource.id: one.resource.spec.servers[0].hosts for one in found.of(OpenedListener)}
    led = {one.resource.spec.gateways[0]: one.resource.spec.tcp for one in found.of(AttachedRules)}
    assert sorted(servers.values()) == [("*.example",), ("a.example",)]
    assert set(led) == set(servers)


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ({**HTTP, "name": "a"}, {**HTTP, "name": "b"}, "HostnameConflict"),
        ({**HTTP, "name": "a", "hostname": "a.example"}, {**HTTP, "name": "b", "hostname": "a.example"},
         "HostnameConflict"),
        ({**HTTP, "name": "a"}, {**HTTPS, "port": 8080}, "ProtocolConflict"),
        ({**HTTP, "name": "a"}, {"name": "b", "port": 8080, "protocol": "TCP"}, "ProtocolConflict"),
        ({**HTTPS, "name": "a", "hostname": "a.example"},
         {"name": "b", "port": 8443, "protocol": "TLS", "hostname": "a.example", "tls": {"mode": "Passthrough"}},
         "HostnameConflict"),
    ],
)  # fmt: skip
def test_of_listeners_that_contradict_one_another_none_is_open_and_the_rest_is(
    one: dict[str, Any], other: dict[str, Any], reason: str
) -> None:
    rest = {**HTTP, "name": "rest", "port": 8081}

    found = declared(gateway(one, other, rest))

    listeners = status(found, "Gateway", "edge").listeners
    assert [listener.conditions[0].reason for listener in listeners] == [reason, reason, "NoConflicts"]
    assert [listener.resource.name for listener in found.of(OpenedListener)] == ["edge~rest"]
    assert status(found, "Gateway", "edge").conditions[0] == Condition(
        "Accepted", "True", "ListenersNotValid", f"not open: {one['name']}, {other['name']}"
    )


def test_of_two_gateways_the_older_keeps_its_listener() -> None:
    younger = gateway(name="again", metadata={"creationTimestamp": "2026-02-01T00:00:00Z"})
    older = gateway(metadata={"creationTimestamp": "2026-01-01T00:00:00Z"})

    found = declared(younger, older)

    assert [one.resource.name for one in found.of(OpenedListener)] == ["edge~http"]
    assert told(status(found, "Gateway", "edge")) == {}
    assert told(status(found, "Gateway", "again"))["Conflicted"] == "HostnameConflict"


@pytest.mark.parametrize(
    ("waits", "expected"),
    [
        ({}, ["True", "True", "True"]),
        ({"ingress/gateway/8080": "it is not connected"}, ["False", "False", "True"]),
        ({"ingress/gateway/8081": "it refuses it"}, ["False", "True", "False"]),
        ({"other/gateway/8080": "it is not ours"}, ["True", "True", "True"]),
    ],
)
def test_a_listener_is_programmed_when_its_proxies_have_confirmed_it(
    waits: dict[str, str], expected: list[str]
) -> None:
    given = status(declared(gateway(HTTP, {**HTTP, "name": "b", "port": 8081})), "Gateway", "edge")

    found = given.confirmed(lambda place: waits.get(place, ""))

    told_of = [found.conditions[1], *(one.conditions[-1] for one in found.listeners)]
    assert [one.status for one in told_of] == expected
    assert {(one.reason, one.message) for one in told_of if one.status == "False"} == (
        {("Pending", *waits.values())} if "False" in expected else set()
    )


def test_what_is_not_open_at_all_is_told_before_what_is_not_confirmed() -> None:
    given = status(declared(gateway({**HTTP, "port": 81})), "Gateway", "edge")

    assert given.confirmed(lambda place: "late") == given


@pytest.mark.parametrize(
    ("given", "accepted", "programmed"),
    [
        ({"addresses": [{"type": "Hostname", "value": "ingress.default.svc.cluster.local"}]}, "Accepted", "Programmed"),
        ({"addresses": [{"type": "Hostname", "value": "ingress"}]}, "Accepted", "Programmed"),
        ({"addresses": [{"type": "Hostname", "value": "api"}]}, "Accepted", "AddressNotUsable"),
        ({"addresses": [{"value": "127.0.0.1"}]}, "Accepted", "Programmed"),
        ({"addresses": [{"type": "IPAddress"}]}, "Accepted", "Programmed"),
        ({"addresses": [{"type": "Hostname", "value": ""}]}, "Accepted", "Programmed"),
        ({"addresses": [{"value": "192.0.2.1"}]}, "Accepted", "AddressNotUsable"),
        ({"addresses": [{"type": "example.com/own", "value": "a"}]}, "UnsupportedAddress", "Invalid"),
    ],
)
def test_a_gateway_is_where_its_addresses_say(given: dict[str, Any], accepted: str, programmed: str) -> None:
    found = status(declared(gateway(**given)), "Gateway", "edge")

    assert [one.reason for one in found.conditions] == [accepted, programmed]


@pytest.mark.parametrize(
    ("controller", "expected"), [("policyd.dev/gateway-controller", "Accepted"), ("example.com/other", "Pending")]
)
def test_a_class_is_ours_by_its_controller(controller: str, expected: str) -> None:
    own = resource("GatewayClass", "own", {"controllerName": controller})

    found = declared(own, gateway(of="own"))

    assert status(found, "GatewayClass", "own").conditions[0].reason == expected
    assert status(found, "Gateway", "edge").conditions[0].reason == expected
    assert bool(found.of(OpenedListener)) is (expected == "Accepted")


@pytest.mark.parametrize("hosts", [["a.example"], ["a.example", "b.example"], ["*.example"], []])
def test_routes_of_requests_and_of_calls_have_no_host_in_common_the_older_has_it(hosts: list[str]) -> None:
    older = route(metadata={"creationTimestamp": "2026-01-01T00:00:00Z"}, name="z", hostnames=["a.example"])
    younger = route(kind="GRPCRoute", name="a", hostnames=hosts)
    apart = route(kind="GRPCRoute", name="b", hostnames=["c.test"])

    found = declared(gateway(), younger, older, apart)

    assert told(status(found, "HTTPRoute", "z")) == {}
    assert told(status(found, "GRPCRoute", "a")) == {"Accepted": "NotAllowedByListeners"}
    assert told(status(found, "GRPCRoute", "b")) == {}
    assert {one.resource.spec.hosts for one in found.of(AttachedRules)} == {("a.example",), ("c.test",)}
    assert [one.attached for one in status(found, "Gateway", "edge").listeners] == [2]


def test_connections_of_a_port_are_one_route_s() -> None:
    at = gateway({"name": "tcp", "port": 9000, "protocol": "TCP"})
    first, second = (route({"backendRefs": [{"name": "mail", "port": 2525}]}, kind="TCPRoute", name=n) for n in "ab")

    found = declared(at, second, first)

    assert told(status(found, "TCPRoute", "a")) == {}
    assert told(status(found, "TCPRoute", "b")) == {"Accepted": "NotAllowedByListeners"}


def test_what_comes_of_it_depends_on_no_order() -> None:
    parts = [gateway(), route(name="a"), route(name="b", kind="GRPCRoute"), route(name="c", hostnames=["c.example"])]
    one, other = declared(*parts), declared(*reversed(parts))

    def rules(found: Any) -> Any:
        return sorted((v.resource.id, v.resource.spec) for v in found.of(VirtualService))

    assert one.statuses == other.statuses
    assert [(a, b.http) for a, b in rules(one)] == [(a, b.http) for a, b in rules(other)]


def test_a_folder_without_such_kinds_has_nothing_to_tell() -> None:
    assert declared().statuses == {}


def test_no_virtual_service_goes_around_what_a_listener_lets() -> None:
    around = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "around"},
        "spec": {"hosts": ["a.example"], "gateways": ["edge~http"], "http": [{"directResponse": {"status": 200}}]},
    }
    declaration = declared(gateway(), around)

    with pytest.raises(InvalidInput) as error:
        build(declaration, "cluster.local", assumed(declaration))

    assert [problem.message for problem in error.value.problems] == ["no Gateway is called `edge~http`"]


SPECIFIED = {
    "Accepted": "Accepted Invalid InvalidParameters ListenersNotValid NoConflicts NoMatchingListenerHostname "
    "NoMatchingParent NoValidCACertificate NotAllowedByListeners Pending PortUnavailable TargetNotFound "
    "UnsupportedAddress UnsupportedProtocol UnsupportedValue HostnameConflict ProtocolConflict Conflicted",
    "ResolvedRefs": "ResolvedRefs BackendNotFound InvalidCACertificateKind InvalidCACertificateRef "
    "InvalidCertificateRef InvalidClientCertificateRef InvalidKind InvalidRouteKinds RefNotPermitted "
    "UnsupportedProtocol",
    "Programmed": "Programmed AddressNotUsable Invalid NoResources Pending",
    "Conflicted": "HostnameConflict NoConflicts ProtocolConflict",
    "InsecureFrontendValidationMode": "ConfigurationChanged",
}
MADE = ("Fault", "Condition", "of_certificate", "_fault")  # what is given a reason, in which place of its arguments


def reasons() -> Iterator[str]:
    """Every word in our code that becomes a reason: they alone are written in one word with capitals."""
    folder_ = Path(conditions_module.__file__).parent
    for file in sorted(folder_.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = node.func if isinstance(node, ast.Call) else None
            called = name.id if isinstance(name, ast.Name) else name.attr if isinstance(name, ast.Attribute) else ""
            if isinstance(node, ast.Call) and called in MADE:
                words = (one.value for one in ast.walk(node) if isinstance(one, ast.Constant))
                yield from (one for one in words if isinstance(one, str) and re.fullmatch(r"(?:[A-Z]+[a-z]+)+", one))


def test_every_reason_is_the_specification_s() -> None:
    known = {word for words in SPECIFIED.values() for word in words.split()} | {"True", "False", "Unknown", *SPECIFIED}
    found = set(reasons())
    assert {"BackendNotFound", "NotAllowedByListeners", "PortUnavailable"} <= found  # it finds some
    kinds = {"Gateway", "Service", "Secret", "ConfigMap"}  # which are no reasons
    assert found - known - kinds == set()


def test_each_condition_has_a_reason_of_its_own_type() -> None:
    bad = [
        {**HTTP, "name": "udp", "port": 1, "protocol": "UDP"},
        {**HTTP, "name": "away", "port": 7},
        {**HTTP, "name": "kinds", "hostname": "k.example", "allowedRoutes": {"kinds": [{"kind": "TCPRoute"}]}},
    ]
    wrong = [
        route({"backendRefs": [{"name": "nobody", "port": 80}]}, name="a"),
        route({"backendRefs": [{"name": "api", "port": 9080}]}, name="b", parentRefs=[{"name": "nowhere"}]),
        route({"backendRefs": [{"name": "api", "port": 9080}]}, name="c", parentRefs=[{"name": "edge", "port": 9}]),
    ]
    found = declared(gateway(HTTP, *bad), *wrong)
    told_of = {(one.type, one.reason) for status_ in found.statuses.values() for one in status_.every()}
    assert len(told_of) > 8
    assert [pair for pair in told_of if pair[1] not in SPECIFIED[pair[0]].split()] == []
