"""HTTP/3 and PROXY headers at gateways: what of a port is served so, and the real Envoy takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from policyd.envoy_api import LISTENER, ROUTE
from policyd.errors import InvalidInput
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.placement import assumed
from policyd.sources.credentials import read_credentials
from policyd.xds.agreed import SDS_CLUSTER
from policyd.xds.resources.build import build_snapshots
from policyd.xds.snapshot import Snapshot, check_snapshot
from tests.certificates import Authority
from tests.e2e.test_gateway_tls import resource
from tests.xds.resources.folders import CONTROL, TRUST_DOMAIN
from tests.xds.resources.test_build import accepted, shown

GATEWAY = "gateways: {edge: {listen: [9000, 9443], %s}}\n"
WORKLOADS = "workloads: {web-v1: {service: web, port: 80}}\n"
PROXIED = "gatewayTopology: {proxyProtocol: {from: [192.0.2.7, 2001:db8::/32]}}"
RANGES = [{"address_prefix": "192.0.2.7", "prefix_len": 32}, {"address_prefix": "2001:db8::", "prefix_len": 32}]


def server(port: int, protocol: str, host: str, **tls: Any) -> dict[str, Any]:
    found = {"port": {"number": port, "name": protocol.lower(), "protocol": protocol}, "hosts": [host]}
    return found | ({"tls": tls} if tls else {})


SERVERS = [
    server(9000, "HTTP", "*"),
    server(9443, "HTTPS", "web.example", mode="SIMPLE", credentialName="edge"),
    server(9443, "HTTPS", "wants.example", mode="MUTUAL", credentialName="edge"),
    server(9443, "HTTPS", "old.example", mode="SIMPLE", credentialName="edge", maxProtocolVersion="TLSV1_2"),
    server(9443, "TLS", "passed.example", mode="PASSTHROUGH"),
]


def snapshot(work: Path, how: str) -> Snapshot:
    where = work / "credentials" / "edge"
    where.mkdir(parents=True, exist_ok=True)
    certificate, key = Authority("servers").issue("web.example")
    (where / "tls.key").touch(mode=0o600)
    for file, text in (("tls.key", key), ("tls.crt", certificate), ("ca.crt", Authority("clients").pem)):
        (where / file).write_text(text)
    gateway = resource("Gateway", "edge", selector={"istio": "ingressgateway"}, servers=SERVERS)
    declaration = declare({"workloads.yaml": WORKLOADS + GATEWAY % how, "mesh/it.yaml": yaml.safe_dump(gateway)})
    credentials = read_credentials(work)
    mesh = build(declaration, TRUST_DOMAIN, assumed(declaration), credentials=credentials)
    return check_snapshot(build_snapshots(mesh, CONTROL)["edge"], static_clusters={SDS_CLUSTER})


def listeners(made: Snapshot) -> dict[str, dict[str, Any]]:
    found = {name: shown(one) for name, one in made.resources[LISTENER].items() if name.startswith("edge/gateway/")}
    return {name: one for name, one in found.items() if "address" in one}  # not those inside


def test_beside_an_encrypted_port_is_one_of_udp_for_the_servers_that_have_tls_1_3(tmp_path: Path) -> None:
    made = snapshot(tmp_path, "http3: true")
    found = listeners(made)
    quic, tcp = found["edge/gateway/9443/quic"], found["edge/gateway/9443"]

    assert "edge/gateway/9000/quic" not in found
    assert quic["address"]["socket_address"] == {**tcp["address"]["socket_address"], "protocol": "UDP"}
    names = [chain["filter_chain_match"]["server_names"] for chain in quic["filter_chains"]]
    assert names == [["web.example"], ["wants.example"]]
    for chain in quic["filter_chains"]:
        [by_tcp] = [one for one in tcp["filter_chains"] if one["filter_chain_match"] == chain["filter_chain_match"]]
        manager, known = (one["filters"][0]["typed_config"] for one in (chain, by_tcp))
        assert (manager.pop("codec_type"), manager.pop("http3_protocol_options")) == ("HTTP3", {})
        assert manager == known  # decided, routed and counted as what comes by TCP
        config, over_tcp = chain["transport_socket"]["typed_config"], by_tcp["transport_socket"]["typed_config"]
        assert config["enable_early_data"] is False
        context = config["downstream_tls_context"]
        assert context["common_tls_context"].pop("alpn_protocols") == ["h3"]
        # a session that is resumed is not asked for its certificate again
        wants = "combined_validation_context" in context["common_tls_context"]
        assert context.pop("disable_stateless_session_resumption", False) is wants
        del over_tcp["@type"], over_tcp["common_tls_context"]["alpn_protocols"]
        del over_tcp["common_tls_context"]["tls_params"]  # QUIC has TLS 1.3 alone
        assert context == over_tcp
    accepted(made, tmp_path)


def test_clients_are_told_of_http3_where_it_is(tmp_path: Path) -> None:
    told = {
        name: [one["header"]["value"] for one in shown(table).get("response_headers_to_add", [])]
        for name, table in snapshot(tmp_path, "http3: true").resources[ROUTE].items()
    }
    assert {name for name, values in told.items() if values == ['h3=":9443"; ma=86400']} == {
        f"gateway/9443/default/edge/{at}" for at in (1, 2)
    }
    assert sum(map(bool, told.values())) == 2


def test_a_gateway_behind_a_balancer_hears_nobody_else_and_reads_the_header_first(tmp_path: Path) -> None:
    made = snapshot(tmp_path, PROXIED)
    found = listeners(made)

    assert set(found) == {"edge/gateway/9000", "edge/gateway/9443"}
    for one in found.values():
        assert [chain["filter_chain_match"]["direct_source_prefix_ranges"] for chain in one["filter_chains"]] == [
            RANGES for _ in one["filter_chains"]
        ]
        assert one["listener_filters"][0]["name"] == "envoy.filters.listener.proxy_protocol"
        assert one["listener_filters_timeout"] == "5s"
    names = [one["name"].rpartition(".")[2] for one in found["edge/gateway/9443"]["listener_filters"]]
    assert names == ["proxy_protocol", "tls_inspector"]
    accepted(made, tmp_path)


def test_without_either_nothing_is_added(tmp_path: Path) -> None:
    found = listeners(snapshot(tmp_path, "labels: {}"))
    assert set(found) == {"edge/gateway/9000", "edge/gateway/9443"}
    assert "listener_filters" not in found["edge/gateway/9000"]


SANITIZED: dict[str, Any] = {}  # Envoy's own
TOLD = {"set_current_client_cert_details": {"subject": True, "dns": True, "uri": True}}


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        ("", SANITIZED),
        ("numTrustedProxies: 0, forwardClientCertDetails: UNDEFINED", SANITIZED),
        ("numTrustedProxies: 2", {**SANITIZED, "xff_num_trusted_hops": 2}),
        ("forwardClientCertDetails: SANITIZE", SANITIZED),
        ("forwardClientCertDetails: SANITIZE_SET", {"forward_client_cert_details": "SANITIZE_SET", **TOLD}),
        ("forwardClientCertDetails: FORWARD_ONLY", {"forward_client_cert_details": "FORWARD_ONLY"}),
        ("forwardClientCertDetails: APPEND_FORWARD", {"forward_client_cert_details": "APPEND_FORWARD", **TOLD}),
    ],
)
def test_of_strangers_is_believed_and_told_what_the_gateway_says(
    tmp_path: Path, topology: str, expected: dict[str, Any]
) -> None:
    made = snapshot(tmp_path, f"http3: true, gatewayTopology: {{{topology}}}")
    fields = ("forward_client_cert_details", "set_current_client_cert_details", "xff_num_trusted_hops")
    for one in listeners(made).values():
        for chain in one["filter_chains"]:
            manager = chain["filters"][0]["typed_config"]
            if "HttpConnectionManager" in manager["@type"]:
                assert {name: manager[name] for name in fields if name in manager} == expected
    accepted(made, tmp_path)


@pytest.mark.parametrize(
    ("own", "trusted", "told"),
    [
        ("", 2, "SANITIZE_SET"),
        (", gatewayTopology: {}", 0, "UNDEFINED"),
        (", gatewayTopology: {numTrustedProxies: 1}", 1, "UNDEFINED"),
    ],
)
def test_what_stands_before_every_gateway_is_said_once_and_otherwise_by_each(own: str, trusted: int, told: str) -> None:
    defaults = "defaults: {gatewayTopology: {numTrustedProxies: 2, forwardClientCertDetails: SANITIZE_SET}}\n"
    declaration = declare({"workloads.yaml": f"{WORKLOADS}gateways: {{edge: {{listen: 9000{own}}}}}\n{defaults}"})
    mesh = build(declaration, TRUST_DOMAIN, assumed(declaration))
    edge = mesh.instances["edge"]
    assert (edge.trusted_proxies, edge.forwards) == (trusted, told)
    assert mesh.listeners["edge/gateway/9000"].trusted_proxies == trusted


@pytest.mark.parametrize(("forwarding", "expected"), [("SANITIZE", "SANITIZE_SET"), ("SANITIZE_SET", "APPEND_FORWARD")])
def test_what_a_gateway_tells_of_its_client_reaches_the_application(
    tmp_path: Path, forwarding: str, expected: str
) -> None:
    text = WORKLOADS + GATEWAY % f"gatewayTopology: {{forwardClientCertDetails: {forwarding}}}"
    declaration = declare({"workloads.yaml": text})
    mesh = build(declaration, TRUST_DOMAIN, assumed(declaration))
    found = shown(build_snapshots(mesh, CONTROL)["web-v1"].resources[LISTENER]["web-v1/inbound"])
    manager = found["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["forward_client_cert_details"] == expected


BAD = [
    ("gatewayTopology: {proxyProtocol: {}}", "proxyProtocol.from` is missing; add it"),
    ("gatewayTopology: {proxyProtocol: {from: []}}", "proxyProtocol.from` must have at least 1 entries"),
    ("gatewayTopology: {proxyProtocol: {from: [balancer]}}", "`balancer` is no address or range; write one"),
    ("gatewayTopology: {numTrustedProxies: -1}", "numTrustedProxies` must be at least 0"),
    ("gatewayTopology: {numTrustedProxies: 33}", "numTrustedProxies` must be at most 32"),
    (
        "gatewayTopology: {forwardClientCertDetails: ALWAYS_FORWARD_ONLY}",
        "workloads.yaml:2: `gateways.edge.gatewayTopology.forwardClientCertDetails`: anybody could claim a certificate "
        "that nobody has seen; write `APPEND_FORWARD`",
    ),
    (
        f"http3: true, {PROXIED}",
        "HTTP/3 has no PROXY headers; remove `http3`, or give it a `gatewayTopology` without `proxyProtocol`",
    ),
]


@pytest.mark.parametrize(("how", "message"), BAD)
def test_what_cannot_be_so_is_refused(tmp_path: Path, how: str, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        snapshot(tmp_path, how)
    assert message in str(refused.value)


@pytest.mark.parametrize("said", [WORKLOADS + GATEWAY % PROXIED, f"{WORKLOADS}{GATEWAY % ''}defaults: {{{PROXIED}}}\n"])
def test_workloads_do_not_come_to_a_gateway_behind_a_balancer(said: str) -> None:
    servers = [server(9443, "HTTPS", "*", mode="ISTIO_MUTUAL")]
    gateway = resource("Gateway", "edge", selector={"istio": "ingressgateway"}, servers=servers)
    declaration = declare({"workloads.yaml": said, "mesh/it.yaml": yaml.safe_dump(gateway)})
    with pytest.raises(InvalidInput) as refused:
        build(declaration, TRUST_DOMAIN, assumed(declaration))
    [problem] = refused.value.problems
    assert str(problem) == (
        "workloads.yaml:2: workloads of the mesh come to port 9443 of `edge`, and their sidecars send no PROXY header; "
        "lead them to a gateway of their own, or give it a `gatewayTopology` without `proxyProtocol`"
    )
