"""BackendTLSPolicies: which holds for which port, and what is told of each by the specification's reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from policyd.errors import InvalidInput
from policyd.mesh.build import build
from policyd.mesh.credentials import CredentialFile
from policyd.mesh.declaration import Declaration
from policyd.mesh.declare import declare
from policyd.mesh.gateway_api.values import OpensTls, TrustsNobody
from policyd.mesh.placement import assumed
from tests.mesh.gateway_api.sample import TO_API, backend_tls, declared, folder, gateway, resource, route, status, told

API = {"group": "", "kind": "Service", "name": "api"}
PAIR = {"group": "", "kind": "Service", "name": "pair"}
BANK = {"group": "networking.istio.io", "kind": "ServiceEntry", "name": "bank"}
OWN = {"group": "", "kind": "ConfigMap", "name": "own"}
CA = "credentials/own/ca.crt"
WORKLOADS = """\
workloads:
  api-v1: {service: api, port: 9080}
  mail-v1: {service: mail, port: 2525, protocol: tcp}
  pair-v1: {service: pair, ports: [{port: 80, name: http-a}, {port: 81, name: http-b}, {port: 82, name: tcp}]}
gateways:
  ingress: {listen: [8080]}
"""
OLD = {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}
YOUNG = {"metadata": {"creationTimestamp": "2026-02-01T00:00:00Z"}}


def entry(resolution: str = "DNS", *hosts: str) -> dict[str, Any]:
    """A ServiceEntry outside of the mesh."""
    ports = [
        {"number": 443, "name": "https", "protocol": "HTTPS"},
        {"number": 25, "name": "smtp", "protocol": "TCP"},
    ]
    spec = {"hosts": list(hosts) or ["pay.bank.test"], "ports": ports, "resolution": resolution}
    made = resource("ServiceEntry", "bank", spec)
    return {**made, "apiVersion": "networking.istio.io/v1"}


def disabled(*names: str) -> list[dict[str, Any]]:
    """Let workloads be spoken to in plain text."""
    return [
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": {"app": name}}, "mtls": {"mode": "DISABLE"}},
        }
        for name in names
    ]


def with_files(files: Mapping[str, CredentialFile], *resources: Mapping[str, Any]) -> Declaration:
    return declare(folder(*resources, workloads=WORKLOADS), credentials=files)


def held(found: Declaration) -> dict[tuple[str, int], str]:
    """The name that is asked for, by host and port; of several for one port, the one for the port alone."""
    every = sorted((one.resource for one in found.of(OpensTls)), key=lambda one: not one.is_whole)
    return {(one.host.partition(".svc.")[0], one.port): str(one.tls.sni) for one in every}


def declares(*resources: Mapping[str, Any]) -> Declaration:
    return declare(folder(*resources, workloads=WORKLOADS))


def test_a_policy_is_told_at_the_gateways_that_lead_to_its_backend() -> None:
    found = declares(gateway(), route(), backend_tls())

    assert status(found, "BackendTLSPolicy", "safe").shown() == {
        "ancestors": [
            {
                "ancestorRef": {
                    "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "default", "name": "edge",
                },
                "controllerName": "policyd.dev/gateway-controller",
                "conditions": [
                    {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
                    {"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs", "message": ""},
                ],
            }
        ]
    }  # fmt: skip


def test_where_no_gateway_leads_it_is_told_at_its_target() -> None:
    [one] = status(declares(backend_tls({**API, "sectionName": "http"})), "BackendTLSPolicy", "safe").shown()[
        "ancestors"
    ]

    assert one["ancestorRef"] == {"group": "", "kind": "Service", "name": "api", "sectionName": "http"}


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({**API, "name": "apu"}, "TargetNotFound"),
        ({**API, "name": "ingress"}, "TargetNotFound"),
        ({**API, "sectionName": "grpc"}, "TargetNotFound"),
        ({**API, "kind": "Deployment", "group": "apps"}, "TargetNotFound"),
        ({**BANK, "name": "bonk"}, "TargetNotFound"),
        ({**BANK, "sectionName": "http"}, "TargetNotFound"),
        ({**API, "name": "mail"}, "Invalid"),
        ({**BANK, "sectionName": "smtp"}, "Invalid"),
    ],
)
def test_a_target_that_has_no_tls_to_open_is_told_and_left_alone(target: dict[str, Any], reason: str) -> None:
    found = declares(entry(), backend_tls(target))

    assert told(status(found, "BackendTLSPolicy", "safe")) == {"Accepted": reason}
    assert found.of(OpensTls) == ()


@pytest.mark.parametrize("resolution", ["NONE", "DYNAMIC_DNS"])
def test_a_host_that_is_looked_up_as_it_is_asked_for_has_no_policy(resolution: str) -> None:
    found = declares(entry(resolution), backend_tls(BANK))

    assert told(status(found, "BackendTLSPolicy", "safe")) == {"Accepted": "Invalid"}


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([API], {("api.default", 9080): "api.example"}),
        ([PAIR], {("pair.default", 80): "api.example", ("pair.default", 81): "api.example"}),
        ([{**PAIR, "sectionName": "http-b"}], {("pair.default", 81): "api.example"}),
        ([BANK], {("pay.bank.test", 443): "api.example"}),
        ([API, {**BANK, "sectionName": "https"}],
         {("api.default", 9080): "api.example", ("pay.bank.test", 443): "api.example"}),
    ],
)  # fmt: skip
def test_a_policy_holds_for_the_ports_that_take_requests(
    targets: list[dict[str, Any]], expected: dict[tuple[str, int], str]
) -> None:
    assert held(declares(entry(), backend_tls(*targets))) == expected


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        (backend_tls(name="b", hostname="b.example"), backend_tls(name="a", hostname="a.example"), "a"),
        (backend_tls(name="b", hostname="b.example", **OLD),
         backend_tls(name="a", hostname="a.example", **YOUNG), "b"),
        (backend_tls(name="b", hostname="b.example", **OLD), backend_tls(name="a", hostname="a.example"), "b"),
    ],
)  # fmt: skip
def test_of_two_policies_for_one_target_the_older_holds_then_the_first_by_name(
    first: dict[str, Any], second: dict[str, Any], name: str
) -> None:
    found = declares(first, second)

    other = {"a": "b", "b": "a"}[name]
    assert held(found) == {("api.default", 9080): f"{name}.example"}
    assert told(status(found, "BackendTLSPolicy", name)) == {}
    assert told(status(found, "BackendTLSPolicy", other)) == {"Accepted": "Conflicted"}


def test_a_policy_for_a_port_goes_before_one_for_the_whole_whichever_is_older() -> None:
    whole = backend_tls(PAIR, name="whole", hostname="whole.example", **OLD)
    part = backend_tls({**PAIR, "sectionName": "http-b"}, name="part", hostname="part.example", **YOUNG)

    found = declares(whole, part)

    assert held(found) == {("pair.default", 80): "whole.example", ("pair.default", 81): "part.example"}
    assert {name: told(status(found, "BackendTLSPolicy", name)) for name in ("whole", "part")} == {
        "whole": {},
        "part": {},
    }


@pytest.mark.parametrize(
    ("ref", "files", "expected"),
    [
        (OWN, {CA: CredentialFile(CA, "/a")}, {}),
        ({**OWN, "kind": "Secret"}, {CA: CredentialFile(CA, "/a")}, {}),
        (OWN, {}, {"Accepted": "NoValidCACertificate", "ResolvedRefs": "InvalidCACertificateRef"}),
        (OWN, {CA: CredentialFile(CA, "/a", problem="cannot be read")},
         {"Accepted": "NoValidCACertificate", "ResolvedRefs": "InvalidCACertificateRef"}),
        (OWN, {CA: CredentialFile(CA, "/a", is_key=True)},
         {"Accepted": "NoValidCACertificate", "ResolvedRefs": "InvalidCACertificateRef"}),
        ({**OWN, "kind": "Vault", "group": "example.com"}, {},
         {"Accepted": "NoValidCACertificate", "ResolvedRefs": "InvalidKind"}),
    ],
)  # fmt: skip
def test_without_its_authorities_a_policy_trusts_nobody(
    ref: dict[str, Any], files: dict[str, CredentialFile], expected: dict[str, str]
) -> None:
    found = with_files(files, backend_tls(caCertificateRefs=[ref]))

    assert told(status(found, "BackendTLSPolicy", "safe")) == expected
    [made] = found.of(OpensTls)
    assert isinstance(made.resource.tls, TrustsNobody) is bool(expected)


def test_where_files_are_not_at_hand_nothing_is_said_of_them() -> None:
    assert told(status(declares(backend_tls(caCertificateRefs=[OWN])), "BackendTLSPolicy", "safe")) == {}


def test_tls_of_its_own_and_the_mesh_s_mutual_tls_exclude_each_other() -> None:
    def refused(*more: Mapping[str, Any]) -> list[str]:
        declaration = declares(gateway(), route(TO_API), backend_tls(), *more)
        try:
            build(declaration, "cluster.local", assumed(declaration))
        except InvalidInput as error:
            return [str(one) for one in error.problems]
        return []

    [found] = refused()
    assert found.startswith("mesh/it.yaml:")
    assert "TLS towards port 9080 of `api.default`, whose sidecars want the mesh's mutual TLS; take it out" in found
    assert refused(*disabled("api")) == []


def test_another_target_of_a_policy_is_not_lost_with_one_that_is_not_there() -> None:
    found = declared(backend_tls(API, {**API, "name": "apu"}))

    assert [one.resource.host for one in found.of(OpensTls)] == ["api.default.svc.cluster.local"]
    assert told(status(found, "BackendTLSPolicy", "safe")) == {"Accepted": "TargetNotFound"}
