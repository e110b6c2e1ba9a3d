"""BackendTLSPolicies as what Envoys are sent: TLS at gateways, checked by name and authorities, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policyd.errors import InvalidInput
from policyd.mesh.build import build
from policyd.mesh.credentials import CredentialFile
from policyd.mesh.declare import declare
from policyd.mesh.istio.client_tls import ClientTls
from policyd.mesh.model import Mesh
from policyd.mesh.placement import assumed
from policyd.xds.resources import clusters, outside_clusters
from policyd.xds.resources.build import build_snapshots
from tests.certificates import Authority
from tests.mesh.gateway_api.sample import HTTP, backend_tls, folder, gateway, resource, route
from tests.mesh.gateway_api.test_backend_tls import BANK, OWN, PAIR, disabled, entry
from tests.xds.resources.folders import CONTROL
from tests.xds.resources.test_build import accepted

API = "outbound|9080||api.default"
BANK_443 = "outbound|443||pay.bank.test"
SYSTEM = {"trusted_ca": {"filename": "/etc/ssl/certs/ca-certificates.crt"}}
TO_BANK = route(
    {"backendRefs": [{"group": "networking.istio.io", "kind": "ServiceEntry", "name": "bank", "port": 443}]},
    name="out",
    hostnames=["out.example"],
)
WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80}
  api-v1: {service: api, port: 9080}
  pair-v1: {service: pair, ports: [{port: 80, name: http-a}, {port: 81, name: http-b}]}
gateways:
  ingress: {listen: [8080]}
"""


def files(*, held: bool = True) -> dict[str, CredentialFile]:
    """What is in `credentials/own`; without its authorities where these are not `held`."""
    authority = Authority("own")
    certificate, _ = authority.issue("gateway.example")
    texts = {"tls.crt": certificate, "tls.key": "", **({"ca.crt": authority.pem} if held else {})}
    return {
        f"credentials/own/{name}": CredentialFile(
            f"credentials/own/{name}", f"/a/{name}", text=text, is_key=name.endswith(".key")
        )
        for name, text in texts.items()
    }


def mesh(*resources: dict[str, Any], held: bool = True) -> Mesh:
    own = () if any(one["kind"] == "Gateway" for one in resources) else (gateway(),)
    given = (*own, route(), entry(), *disabled("api", "pair"), *resources)
    credentials = files(held=held)
    declaration = declare(folder(*given, workloads=WORKLOADS), credentials=credentials)
    return build(declaration, "cluster.local", assumed(declaration), credentials=credentials)


def socket_of(made: Mesh, name: str = API, instance: str = "ingress") -> dict[str, Any] | None:
    """The transport socket of a cluster, as an instance has it."""
    caller = made.caller(made.instances[instance])
    if name == BANK_443:
        every = outside_clusters.clusters(made, CONTROL, caller)
        found = next((one for one in every if one["name"] == name), {})
    else:
        _, port, _, service = name.split("|")
        found = clusters.outbound(made, caller, made.services[service], int(port))
    socket = found.get("transport_socket")
    return socket and socket["typed_config"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("validation", "sni", "checked"),
    [
        ({}, "api.example",
         {**SYSTEM, "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "api.example"}}]}),
        ({"subjectAltNames": [{"type": "URI", "uri": "spiffe://a/b"}, {"type": "Hostname", "hostname": "*.b.example"}]},
         "api.example",
         {**SYSTEM, "match_typed_subject_alt_names": [
             {"san_type": "URI", "matcher": {"exact": "spiffe://a/b"}},
             {"san_type": "DNS", "matcher": {"exact": "*.b.example"}},
         ]}),
    ],
)  # fmt: skip
def test_a_backend_is_asked_for_and_checked_by_name(
    validation: dict[str, Any], sni: str, checked: dict[str, Any]
) -> None:
    for target, name in (({"group": "", "kind": "Service", "name": "api"}, API), (BANK, BANK_443)):
        made = socket_of(mesh(backend_tls(target, **validation)), name)

        assert made is not None
        assert made["sni"] == sni
        assert made["common_tls_context"]["validation_context"] == checked
        assert made["common_tls_context"]["alpn_protocols"] == ["http/1.1"]
        assert "tls_certificate_sds_secret_configs" not in made["common_tls_context"]


def test_authorities_of_its_own_are_a_secret_of_gateways_alone() -> None:
    made = mesh(backend_tls(caCertificateRefs=[OWN]))
    snapshots = build_snapshots(made, CONTROL)

    context = (socket_of(made) or {})["common_tls_context"]["combined_validation_context"]
    assert context["validation_context_sds_secret_config"]["name"] == "credentials/own/ca.crt"
    assert context["default_validation_context"]["match_typed_subject_alt_names"][0]["matcher"] == {
        "exact": "api.example"
    }
    assert {name: set(snapshot.of(SECRET)) for name, snapshot in snapshots.items()} == {
        "ingress": {"credentials/own/ca.crt"},
        "web-v1": set(),
        "api-v1": set(),
        "pair-v1": set(),
    }


@pytest.mark.parametrize("held", [True, False])
def test_without_its_authorities_every_certificate_is_refused(held: bool) -> None:
    ref = {**OWN, "kind": "Vault"} if held else OWN
    made = mesh(backend_tls(caCertificateRefs=[ref]), held=held)

    context = (socket_of(made) or {})["common_tls_context"]
    assert context["validation_context"] == {"verify_certificate_hash": ["0" * 64]}


def test_sidecars_go_on_as_they_did_and_gateways_without_a_policy_too() -> None:
    given = mesh(backend_tls(), backend_tls(BANK, name="bank"))

    assert socket_of(given, API, "web-v1") is None
    assert socket_of(given, BANK_443, "web-v1") is None
    assert socket_of(mesh(), API) is None
    assert [mesh().caller(one).opens_tls for one in mesh().instances.values()] == [False] * 4


def test_a_port_has_its_own_policy_and_another_port_none() -> None:
    made = mesh(backend_tls({**PAIR, "sectionName": "http-b"}))

    assert (socket_of(made, "outbound|81||pair.default") or {})["sni"] == "api.example"
    assert socket_of(made, "outbound|80||pair.default") is None


def test_a_policy_goes_before_what_a_destination_rule_says_of_tls_whose_rest_holds() -> None:
    policy = {"tls": {"mode": "SIMPLE", "sni": "rule.example"}, "connectionPool": {"tcp": {"connectTimeout": "3s"}}}
    rule = {
        **resource("DestinationRule", "bank", {"host": "pay.bank.test", "trafficPolicy": policy}),
        "apiVersion": "networking.istio.io/v1",
    }
    made = mesh(rule, backend_tls(BANK))
    [bank] = [
        one
        for one in outside_clusters.clusters(made, CONTROL, made.caller(made.instances["ingress"]))
        if one["name"] == BANK_443
    ]

    assert (bank["transport_socket"]["typed_config"]["sni"], bank["connect_timeout"]) == ("api.example", "3s")
    assert (socket_of(made, BANK_443, "web-v1") or {})["sni"] == "rule.example"
    at_edge = made.outside_policy(made.caller(made.instances["ingress"]), "pay.bank.test", 443).tls
    assert isinstance(at_edge, ClientTls)


def test_requests_go_out_by_a_port_of_https_where_a_policy_opens_tls() -> None:
    made = mesh(TO_BANK, backend_tls(BANK))

    with pytest.raises(InvalidInput, match="does not speak plain HTTP"):
        mesh(TO_BANK)
    assert BANK_443 in str(build_snapshots(made, CONTROL)["ingress"])


SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
SHOWING = gateway(HTTP, tls={"backend": {"clientCertificateRef": {"name": "own"}}})


def test_a_gateway_shows_backends_its_certificate_where_a_policy_opens_tls_and_nowhere_else() -> None:
    made = mesh(SHOWING, backend_tls())

    shown = (socket_of(made) or {})["common_tls_context"]["tls_certificate_sds_secret_configs"]
    assert [one["name"] for one in shown] == ["credentials/own/tls.crt credentials/own/tls.key"]
    assert socket_of(made, "outbound|80||pair.default") is None
    held = {name: set(one.of(SECRET)) for name, one in build_snapshots(made, CONTROL).items()}
    assert held["ingress"] == {"credentials/own/tls.crt credentials/own/tls.key"}
    assert held["web-v1"] == set()


def test_a_certificate_that_clients_and_backends_are_shown_is_sent_once() -> None:
    secure = {"name": "https", "port": 8080, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "own"}]}}
    wanted = {"default": {"validation": {"caCertificateRefs": [OWN]}}}
    tls = {"frontend": wanted, "backend": {"clientCertificateRef": {"name": "own"}}}
    made = mesh(gateway(secure, tls=tls), backend_tls(caCertificateRefs=[OWN]))

    assert set(build_snapshots(made, CONTROL)["ingress"].of(SECRET)) == {
        "credentials/own/tls.crt credentials/own/tls.key",
        "credentials/own/ca.crt",
    }


@pytest.mark.e2e
@pytest.mark.parametrize("held", [True, False])
def test_the_real_envoy_accepts_it(tmp_path: Path, held: bool) -> None:
    sans = [{"type": "URI", "uri": "spiffe://a/b"}, {"type": "Hostname", "hostname": "b.example"}]
    # of a Service alone: where an address is known at once, an Envoy that only reads asks for secrets, and ends
    made = mesh(SHOWING, backend_tls(caCertificateRefs=[OWN], subjectAltNames=sans), held=held)

    accepted(build_snapshots(made, CONTROL)["ingress"], tmp_path)
