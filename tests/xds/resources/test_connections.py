"""`tcp` and `tls` rules: what sidecars and gateways are sent of them, and the real Envoy takes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from policyd.envoy_api import CLUSTER, LISTENER, ROUTE
from policyd.errors import InvalidInput
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.placement import assumed
from policyd.sources.credentials import read_credentials
from policyd.xds.agreed import SDS_CLUSTER
from policyd.xds.resources.build import build_snapshots
from policyd.xds.resources.model import GUARD
from policyd.xds.snapshot import Snapshot, check_snapshot
from tests.certificates import Authority
from tests.e2e.test_gateway_tls import resource
from tests.golden import check_json
from tests.mesh.test_by_gateway import folder as by_gateway_folder
from tests.xds.resources.folders import CONTROL, TRUST_DOMAIN, mesh_of
from tests.xds.resources.test_build import accepted, shown, whole

WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80}
  old-v1: {service: old, port: 80, labels: {age: old}}
  db-v1: {service: db, port: 3306, protocol: tcp, labels: {version: v1}}
  db-v2: {service: db, port: 3306, protocol: tcp, labels: {version: v2}}
gateways:
  edge: {listen: [9000, 9443]}
"""
ENTRY = resource(
    "ServiceEntry", "out", hosts=["out.example.com"], resolution="DNS",
    ports=[{"number": 443, "name": "tls", "protocol": "TLS"}, {"number": 444, "name": "tcp", "protocol": "TCP"}],
)  # fmt: skip
SUBSETS = resource(
    "DestinationRule",
    "db",
    host="db",
    subsets=[{"name": name, "labels": {"version": name}} for name in ("v1", "v2")],
)


def to(host: str, weight: int = 0, **more: Any) -> dict[str, Any]:
    return {"destination": {"host": host, **more}, "weight": weight}


def edge_folder(servers: list[dict[str, Any]], *rules: dict[str, Any]) -> dict[str, str]:
    gateway = resource("Gateway", "edge", selector={"istio": "ingressgateway"}, servers=servers)
    return {"workloads.yaml": WORKLOADS, "mesh/it.yaml": yaml.safe_dump_all([gateway, SUBSETS, ENTRY, *rules])}


def server(port: int, protocol: str, *hosts: str, **tls: Any) -> dict[str, Any]:
    found = {"port": {"number": port, "name": protocol.lower(), "protocol": protocol}, "hosts": list(hosts)}
    return found | ({"tls": tls} if tls else {})


@pytest.fixture
def edge(tmp_path: Path) -> Snapshot:
    """A gateway with every kind of server."""
    where = tmp_path / "credentials" / "db"
    where.mkdir(parents=True)
    certificate, key = Authority("servers").issue("ended.example", "wants.example")
    (where / "tls.key").touch(mode=0o600)
    for file, text in (("tls.key", key), ("tls.crt", certificate), ("ca.crt", Authority("clients").pem)):
        (where / file).write_text(text)
    servers = [
        server(9000, "TCP", "*"),
        server(9443, "TLS", "passed.example", "*.passed.example", mode="PASSTHROUGH"),
        server(9443, "TLS", "ended.example", mode="SIMPLE", credentialName="db"),
        server(9443, "TLS", "wants.example", mode="MUTUAL", credentialName="db"),
        server(9443, "HTTPS", "web.example", mode="SIMPLE", credentialName="db"),
    ]
    tls = [
        {"match": [{"sniHosts": ["*.passed.example"]}], "route": [to("db")]},
        {"match": [{"port": 1, "sniHosts": ["passed.example"]}], "route": [to("db")]},
        {
            "match": [{"port": 9443, "sniHosts": ["passed.example", "a.passed.example"]}],
            "route": [to("db", 80, subset="v1"), to("db", 0), to("db", 20, subset="v2")],
        },
    ]
    rules = [
        resource("VirtualService", "tls", hosts=["passed.example", "*.passed.example"], gateways=["edge"], tls=tls),
        resource(
            "VirtualService",
            "tcp",
            hosts=["*"],
            gateways=["edge"],
            tcp=[
                {"match": [{"destinationSubnets": ["192.0.2.0/24"]}], "route": [to("db")]},
                {"match": [{"sourceNamespace": "far"}], "route": [to("db")]},
                {"match": [{"port": 9000}, {"port": 9443}], "route": [to("db", subset="v2")]},
                {"route": [to("db", subset="v1")]},
            ],
        ),
    ]
    declaration = declare(edge_folder(servers, *rules))
    mesh = build(declaration, TRUST_DOMAIN, assumed(declaration), credentials=read_credentials(tmp_path))
    return build_snapshots(mesh, CONTROL)["edge"]


def test_connections_at_the_edge_are_sent_as_the_golden_file_says(
    edge: Snapshot, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made = {kind: names for kind, names in whole(edge).items() if kind in ("listeners", "routes")}
    made["clusters"] = {name: one for name, one in whole(edge)["clusters"].items() if name.startswith("edge/")}

    check_json("xds/edge_connections.json", made, update=request.config.getoption("--update-golden"))
    check_snapshot(edge, static_clusters={SDS_CLUSTER})


def by_name(*hosts: str) -> Snapshot:
    """A gateway that passes on by the asked name, without a rule."""
    servers = [
        server(9443, "TLS", *hosts, mode="AUTO_PASSTHROUGH"),
        server(9443, "TLS", "passed.example", mode="PASSTHROUGH"),
    ]
    tls = [{"match": [{"sniHosts": ["passed.example"]}], "route": [to("db")]}]
    rule = resource("VirtualService", "tls", hosts=["passed.example"], gateways=["edge"], tls=tls)
    return build_snapshots(mesh_of(edge_folder(servers, rule)), CONTROL)["edge"]


def test_what_is_passed_on_by_its_name_is_sent_as_the_golden_file_says(request: pytest.FixtureRequest) -> None:
    snapshot = by_name("./*.svc.cluster.local", "far/*")
    made = {kind: names for kind, names in whole(snapshot).items() if kind in ("listeners", "routes")}
    made["clusters"] = {name: one for name, one in whole(snapshot)["clusters"].items() if name.startswith("outbound_.")}

    check_json("xds/edge_by_sni.json", made, update=request.config.getoption("--update-golden"))
    check_snapshot(snapshot, static_clusters={SDS_CLUSTER})


@pytest.mark.parametrize(
    ("hosts", "services"),
    [
        (["*"], {"db", "web", "old", "edge"}),
        (["*.default.svc.cluster.local"], {"db", "web", "old", "edge"}),
        (["db.default.svc.cluster.local"], {"db"}),
        (["default/db.default.svc.cluster.local", "./web.default.svc.cluster.local"], {"db", "web"}),
        (["far/*", "*.example.com", "web"], set()),
    ],
)
def test_only_the_services_of_its_hosts_are_passed_on_to(hosts: list[str], services: set[str]) -> None:
    found = {name.split("_.")[3].split(".")[0] for name in by_name(*hosts).of(CLUSTER) if name.startswith("outbound_.")}

    assert found == services


def test_rules_for_what_is_passed_on_without_any_are_refused() -> None:
    tls = [{"match": [{"sniHosts": ["a.example"]}], "route": [to("db")]}]
    rule = resource("VirtualService", "tls", hosts=["a.example"], gateways=["edge"], tls=tls)

    with pytest.raises(InvalidInput, match="none of its gateways has a server for TLS that is passed on"):
        mesh_of(edge_folder([server(9443, "TLS", "*.local", mode="AUTO_PASSTHROUGH")], rule))


@pytest.mark.e2e
def test_the_real_envoy_accepts_what_is_passed_on_by_its_name(tmp_path: Path) -> None:
    accepted(by_name("*.local"), tmp_path)


@pytest.mark.e2e
def test_the_real_envoy_accepts_them(edge: Snapshot, tmp_path: Path) -> None:
    accepted(edge, tmp_path)


def by_gateway() -> Mapping[str, Snapshot]:
    """Istio's task: sidecars are led to an egress gateway, which leads outside."""
    declaration = declare(by_gateway_folder())
    return build_snapshots(build(declaration, TRUST_DOMAIN, assumed(declaration)), CONTROL)


def test_an_egress_gateway_is_sent_as_the_golden_file_says(request: pytest.FixtureRequest) -> None:
    made = whole(by_gateway()["out"])
    made["clusters"] = {name: one for name, one in made["clusters"].items() if "books" in name}

    check_json("xds/egress_gateway.json", made, update=request.config.getoption("--update-golden"))


def test_sidecars_expect_the_gateways_identity_at_its_real_ports() -> None:
    sent = whole(by_gateway()["web-v1"])

    assert [
        sent["endpoints"][f"outbound|{port}||out.default"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
        for port in (80, 443, 444)
    ] == [{"socket_address": {"address": "127.0.0.1", "port_value": port}} for port in (80, 443, 444)]
    # a server of plain connections is for nobody who is led there
    assert "endpoints" not in sent["endpoints"]["outbound|445||out.default"]
    tls = sent["clusters"]["outbound|443||out.default"]["transport_socket"]["typed_config"]
    [expected] = tls["common_tls_context"]["combined_validation_context"]["default_validation_context"][
        "match_typed_subject_alt_names"
    ]
    assert (tls["sni"], expected["matcher"]) == (
        "outbound_.443_._.out.default",
        {"exact": "spiffe://cluster.local/ns/default/sa/out"},
    )


@pytest.mark.e2e
@pytest.mark.parametrize("instance", ["out", "web-v1"])
def test_the_real_envoy_accepts_the_way_by_a_gateway(instance: str, tmp_path: Path) -> None:
    accepted(by_gateway()[instance], tmp_path)
    check_snapshot(by_gateway()[instance], static_clusters={SDS_CLUSTER})


def led(rules: list[dict[str, Any]], section: str, host: str, by: str = "web-v1", name: str = "") -> list[Any]:
    """Where tunnels to a name go, as the sidecar of an instance is told."""
    virtual = resource("VirtualService", "it", hosts=[host], **{section: rules})
    files = {"workloads.yaml": WORKLOADS, "mesh/it.yaml": yaml.safe_dump_all([SUBSETS, ENTRY, virtual])}
    [table] = build_snapshots(mesh_of(files), CONTROL)[by].of(ROUTE).values()
    [found] = [one for one in shown(table)["virtual_hosts"] if one["name"] == (name or "db.default:3306")]
    return [_place(route["route"]) for route in found["routes"]]


def _place(action: dict[str, Any]) -> Any:
    if "cluster" in action:
        return action["cluster"]
    return {one["name"]: one["weight"] for one in action["weighted_clusters"]["clusters"]}


WHOLE = "outbound|3306||db.default"
FIRST, SECOND = "outbound|3306|v1|db.default", "outbound|3306|v2|db.default"


@pytest.mark.parametrize(
    ("rules", "by", "expected"),
    [
        ([{"route": [to("db", subset="v1")]}], "web-v1", [FIRST]),
        ([{"route": [to("db", 8, subset="v1"), to("db", 2, subset="v2")]}], "web-v1", [{FIRST: 8, SECOND: 2}]),
        ([{"match": [{"port": 1}], "route": [to("db", subset="v1")]}], "web-v1", [WHOLE]),
        ([{"match": [{"port": 3306}], "route": [to("db", subset="v1")]}], "web-v1", [FIRST]),
        ([{"match": [{"sourceLabels": {"age": "old"}}], "route": [to("db", subset="v1")]}], "web-v1", [WHOLE]),
        ([{"match": [{"sourceLabels": {"age": "old"}}], "route": [to("db", subset="v1")]}], "old-v1", [FIRST]),
        ([{"match": [{"sourceNamespace": "far"}], "route": [to("db", subset="v1")]}], "web-v1", [WHOLE]),
        ([{"route": [to("db", subset="v1")]}, {"route": [to("db", subset="v2")]}], "web-v1", [FIRST]),
    ],
)
def test_sidecars_lead_tunnels_by_the_first_rule_that_is_theirs(
    rules: list[dict[str, Any]], by: str, expected: list[Any]
) -> None:
    assert led(rules, "tcp", "db", by) == expected


@pytest.mark.parametrize(
    ("host", "sni", "expected"),
    [("db", "db", FIRST), ("db", "db.default.svc.cluster.local", FIRST), ("*.example.com", "out.example.com", None)],
)
def test_the_name_that_a_tunnel_is_asked_for_by_is_the_one_that_tls_asks_for(
    host: str, sni: str, expected: str | None
) -> None:
    if expected is not None:
        rules = [{"match": [{"sniHosts": [sni]}], "route": [to("db", subset="v1")]}]
        assert led(rules, "tls", host) == [expected]
        return
    rules = [{"match": [{"sniHosts": [sni], "port": 443}], "route": [to(sni, port={"number": 444})]}]
    assert led(rules, "tls", host, name=f"{sni}:443") == ["inner/tls"]
    assert led(rules, "tls", host, name=f"{sni}:444") == ["tunnel|444||out.example.com"]


ELSEWHERE = resource(
    "ServiceEntry", "else", hosts=["else.example.com"], resolution="DNS",
    ports=[{"number": 443, "name": "tls", "protocol": "TLS"}],
)  # fmt: skip
OUT, ELSE = "out.example.com", "else.example.com"
NAMED = [{"sniHosts": [OUT]}]


def looked_at(rules: dict[str, Any], host: str, name: str) -> list[tuple[str, str, str]]:
    """Of a tunnel to a name, by share: by which cluster it leaves, whose name TLS has, and what policyd is told."""
    virtual = resource("VirtualService", "it", hosts=[host], **rules)
    files = {"workloads.yaml": WORKLOADS, "mesh/it.yaml": yaml.safe_dump_all([SUBSETS, ENTRY, ELSEWHERE, virtual])}
    made = build_snapshots(mesh_of(files), CONTROL)["web-v1"]
    check_snapshot(made, static_clusters={SDS_CLUSTER})
    [table] = made.of(ROUTE).values()
    [found] = [one for one in shown(table)["virtual_hosts"] if one["name"] == name]
    [route] = found["routes"]
    shares = route["route"].get("weighted_clusters", {}).get("clusters", ())
    marks = route.get("metadata", {}).get("filter_metadata", {}).get("policyd", {})
    if not shares and not marks:
        return [(route["route"]["cluster"], "", "")]
    assert {one["name"] for one in shares} <= {GUARD}
    told = [marks] if marks else [_notes(one) for one in shares]
    places = [route] if marks else shares
    asked = [one["typed_per_filter_config"]["envoy.filters.http.ext_authz"]["check_settings"] for one in places]
    tls = [one["context_extensions"]["policyd.tls"] for one in asked]
    return [(one["leaves"], one.get("asked", ""), said) for one, said in zip(told, tls, strict=True)]


def _notes(share: dict[str, Any]) -> dict[str, str]:
    notes = share["typed_per_filter_config"]["envoy.filters.http.set_filter_state"]["on_request_headers"]
    kept = {one["object_key"]: one["format_string"]["text_format_source"]["inline_string"] for one in notes}
    return {"leaves": kept["policyd.cluster"], "asked": kept["policyd.asked"]}


@pytest.mark.parametrize(
    ("rules", "host", "name", "expected"),
    [
        # as declared, and by rules of its own
        ({"tls": [{"match": NAMED, "route": [to(OUT, port={"number": 443})]}]}, OUT, f"{OUT}:443",
         [(f"tunnel|443||{OUT}", f"{OUT}:", OUT)]),
        # elsewhere: what TLS asks for is the name of the tunnel all the same
        ({"tls": [{"match": NAMED, "route": [to(ELSE)]}]}, OUT, f"{OUT}:443",
         [(f"tunnel|443||{ELSE}", f"{OUT}:", OUT)]),
        ({"tcp": [{"route": [to(ELSE)]}]}, OUT, f"{OUT}:443", [(f"tunnel|443||{ELSE}", f"{OUT}:", OUT)]),
        ({"tls": [{"match": NAMED, "route": [to(OUT, port={"number": 444})]}]}, OUT, f"{OUT}:443",
         [(f"tunnel|444||{OUT}", f"{OUT}:", OUT)]),
        # in shares
        ({"tls": [{"match": NAMED, "route": [to(OUT, 80, port={"number": 443}), to(ELSE, 20)]}]}, OUT, f"{OUT}:443",
         [(f"tunnel|443||{OUT}", f"{OUT}:", OUT), (f"tunnel|443||{ELSE}", f"{OUT}:", OUT)]),
        # from where it is not declared
        ({"tcp": [{"route": [to(ELSE)]}]}, OUT, f"{OUT}:444", [(f"tunnel|443||{ELSE}", f"{OUT}:", OUT)]),
        ({"tls": [{"match": [{"sniHosts": [OUT], "port": 444}], "route": [to(OUT, port={"number": 444})]}]}, OUT,
         f"{OUT}:444", [(f"tunnel|444||{OUT}", f"{OUT}:", OUT)]),
        ({"tcp": [{"route": [to(ELSE)]}]}, "db", "db.default:3306", [(f"tunnel|443||{ELSE}", "", "*")]),
        # where nobody speaks of TLS nothing is looked at
        ({"tcp": [{"route": [to(OUT, port={"number": 444})]}]}, OUT, f"{OUT}:444", [(f"tunnel|444||{OUT}", "", "")]),
    ],
)  # fmt: skip
def test_who_speaks_tls_in_a_tunnel_that_leaves_asks_for_its_name(
    rules: dict[str, Any], host: str, name: str, expected: list[tuple[str, str, str]]
) -> None:
    assert looked_at(rules, host, name) == expected


def test_at_an_egress_gateway_a_workloads_tunnel_leaves_by_way_of_the_guard() -> None:
    made = by_gateway()["out"]
    table = shown(made.of(ROUTE)["gateway/443/peers"])
    [route] = [one["routes"][0] for one in table["virtual_hosts"] if one["name"] != "*"]
    said = route["typed_per_filter_config"]["envoy.filters.http.ext_authz"]["check_settings"]["context_extensions"]

    assert (route["route"]["cluster"], said["policyd.tls"]) == (GUARD, "*")
    assert {GUARD, "inner/leaving"} <= set(made.of(LISTENER))


PROXY = [
    resource(
        "ServiceEntry", "proxy", hosts=["proxy.example"], resolution="DNS",
        ports=[{"number": 3128, "name": "tcp", "protocol": "TCP"}],
    ),
    resource("DestinationRule", "proxy", host="proxy.example", trafficPolicy={"tls": {"mode": "SIMPLE"}}, subsets=[
        {"name": "far", "trafficPolicy": {"tunnel": {"targetHost": "far.example", "targetPort": 8443}}},
    ]),
    resource("VirtualService", "it", hosts=[OUT], tls=[
        {"match": [{"sniHosts": [OUT], "port": 443}], "route": [to("proxy.example", subset="far")]},
    ], tcp=[{"match": [{"port": 444}], "route": [to("proxy.example", subset="far")]}]),
]  # fmt: skip


def by_proxy() -> Snapshot:
    files = {"workloads.yaml": WORKLOADS, "mesh/it.yaml": yaml.safe_dump_all([SUBSETS, ENTRY, *PROXY])}
    return check_snapshot(build_snapshots(mesh_of(files), CONTROL)["web-v1"], static_clusters={SDS_CLUSTER})


def test_what_leaves_by_a_forward_proxy_is_asked_about_as_its_target() -> None:
    made = by_proxy()
    [table] = made.of(ROUTE).values()
    routes = {one["name"]: one["routes"][0] for one in shown(table)["virtual_hosts"] if one["name"].startswith(OUT)}
    secure, plain = routes[f"{OUT}:443"], routes[f"{OUT}:444"]

    assert (secure["route"]["cluster"], secure["metadata"]["filter_metadata"]["policyd"]) == (
        GUARD,
        {"leaves": "tunnel|3128|far|proxy.example", "asked": f"{OUT}:", "target": "far.example:8443"},
    )
    assert (plain["route"]["cluster"], plain["route"]["host_rewrite_literal"]) == (
        "tunnel|3128|far|proxy.example",
        "far.example:8443",
    )
    assert [one.get("connect_config") for one in plain["route"]["upgrade_configs"]] == [None]
    for route in (secure, plain):
        said = route["typed_per_filter_config"]["envoy.filters.http.ext_authz"]["check_settings"]
        assert (said["context_extensions"]["policyd.host"], said["context_extensions"]["policyd.port"]) == (
            "far.example",
            "8443",
        )
    # TLS of the rule is the proxy's own, where what is led to the host itself has that of its bytes
    clusters = {name: shown(one) for name, one in made.of(CLUSTER).items() if name.startswith("tunnel|3128")}
    assert {name: "transport_socket" in one for name, one in clusters.items()} == {
        "tunnel|3128||proxy.example": False,
        "tunnel|3128|far|proxy.example": True,
    }


@pytest.mark.e2e
def test_the_real_envoy_accepts_the_way_by_a_forward_proxy(tmp_path: Path) -> None:
    accepted(by_proxy(), tmp_path)
