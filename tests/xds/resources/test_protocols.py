"""What each protocol makes of listeners and clusters: HTTP/2 where it is declared, gRPC-Web translated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policyd.envoy_api import CLUSTER, LISTENER, ROUTE
from policyd.xds.agreed import SDS_CLUSTER
from policyd.xds.resources.build import build_snapshots
from policyd.xds.resources.policies import HTTP_OPTIONS
from policyd.xds.resources.sniffed import outbound
from policyd.xds.snapshot import Snapshot, check_snapshot
from tests.xds.resources.folders import CONTROL, WORKLOADS, mesh_of
from tests.xds.resources.test_build import accepted, shown

RULE = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: it}
spec: {host: a, trafficPolicy: {connectionPool: {http: {useClientProtocol: true}}}}
"""


def snapshot(speaks: str, rule: str = "") -> Snapshot:
    workloads = f"workloads: {{a: {{service: a, ports: [{{port: 80, name: {speaks}}}]}}}}\n"
    return build_snapshots(mesh_of({"workloads.yaml": workloads, "mesh/rule.yaml": rule}), CONTROL)["a"]


def options(cluster: dict[str, Any]) -> set[str]:
    """The protocols that a cluster may speak."""
    found = cluster["typed_extension_protocol_options"][HTTP_OPTIONS]
    told = found.get("explicit_http_config") or found["use_downstream_protocol_config"]
    return {name for name in told if name.endswith("_protocol_options")}


def alpn(cluster: dict[str, Any]) -> list[str]:
    found: list[str] = cluster["transport_socket"]["typed_config"]["common_tls_context"].get("alpn_protocols", [])
    return found


@pytest.mark.parametrize(
    ("speaks", "http2"), [("http", False), ("tcp", False), ("http2", True), ("grpc", True), ("grpc-web", True)]
)
def test_declared_http2_is_spoken_between_sidecars_and_to_the_application(speaks: str, http2: bool) -> None:
    clusters = snapshot(speaks).of(CLUSTER)
    outbound, inbound = shown(clusters["outbound|80||a.default"]), shown(clusters["inbound|80||a.default"])

    wanted = {"http2_protocol_options"} if http2 else {"http_protocol_options"}
    assert (options(outbound), options(inbound)) == (wanted, wanted)
    assert alpn(outbound) == (["h2"] if http2 else [])


def test_use_client_protocol_has_the_last_word_between_sidecars() -> None:
    clusters = snapshot("grpc", RULE).of(CLUSTER)

    assert options(shown(clusters["outbound|80||a.default"])) == {"http_protocol_options", "http2_protocol_options"}
    assert options(shown(clusters["inbound|80||a.default"])) == {"http2_protocol_options"}


@pytest.mark.parametrize(("speaks", "translated"), [("grpc", False), ("grpc-web", True)])
def test_grpc_web_is_translated_before_the_decision(speaks: str, translated: bool) -> None:
    [chain] = shown(snapshot(speaks).of(LISTENER)["a/inbound"])["filter_chains"]
    filters = [one["name"] for one in chain["filters"][0]["typed_config"]["http_filters"]]

    front = ["envoy.filters.http.grpc_web"] if translated else []
    behind = ["envoy.filters.http.grpc_stats", "envoy.filters.http.router"]
    assert filters[1:] == [*front, "envoy.filters.http.ext_authz", *behind]


def chains(snapshot: Snapshot, listener: str) -> list[tuple[list[str], list[str]]]:
    """What the chains of a listener are for, and their filters."""
    return [
        (
            one.get("filter_chain_match", {}).get("application_protocols", []),
            [each["name"].rpartition(".")[2] for each in one["filters"]],
        )
        for one in shown(snapshot.of(LISTENER)[listener])["filter_chains"]
    ]


def test_where_the_first_bytes_tell_http_is_read_and_everything_else_goes_on() -> None:
    found = snapshot("metrics")
    http = ["http/1.0", "http/1.1", "h2c"]

    assert chains(found, "inner/sniffed") == [
        (http, ["http_connection_manager"]), ([], ["set_filter_state", "rbac", "tcp_proxy"]), ([], ["tcp_proxy"]),
    ]  # fmt: skip
    assert chains(found, "inner/served-any") == [(http, ["rbac", "tcp_proxy"]), ([], ["tcp_proxy"])]
    clusters = found.of(CLUSTER)
    either = {"http_protocol_options", "http2_protocol_options"}
    assert (
        options(shown(clusters["outbound|80||a.default"]))
        == options(shown(clusters["inbound|80||a.default"]))
        == either
    )


def test_nothing_looks_at_first_bytes_where_all_is_said() -> None:
    found = snapshot("http")

    assert {name for name in found.of(LISTENER) if name.startswith("inner")} == {"inner"}


RULED = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec: {host: a, subsets: [{name: v1, labels: {app: a}}, {name: v2}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec: {hosts: [a], tcp: [{route: [ROUTE]}]}
"""


def sniffed(route: str) -> Snapshot:
    found = snapshot("metrics", RULED.replace("ROUTE", route))
    return check_snapshot(found, static_clusters={SDS_CLUSTER})


def test_what_is_no_http_there_is_led_by_tcp_rules() -> None:
    [table] = sniffed("{destination: {host: a, subset: v1}}").of(ROUTE).values()
    requests, tunnels = shown(table)["virtual_hosts"][0]["routes"]

    assert requests["route"]["cluster"] == "outbound|80||a.default"
    assert tunnels["route"]["cluster"] == "inner/sniffed"
    assert tunnels["metadata"]["filter_metadata"]["policyd"] == {"cluster": "outbound|80|v1|a.default"}


def told(share: dict[str, Any]) -> dict[str, str]:
    """What the listener inside is told of where a tunnel goes."""
    notes = share["typed_per_filter_config"]["envoy.filters.http.set_filter_state"]["on_request_headers"]
    texts = {one["object_key"]: one["format_string"]["text_format_source"]["inline_string"] for one in notes}
    return {key: text for key, text in texts.items() if "|" in text}


SHARED = "{destination: {host: a, subset: v1}, weight: 9}, {destination: {host: a, subset: v2}, weight: 1}"
TLS_RULE = "{match: [{sniHosts: [a.default]}], route: [{destination: {host: a, subset: v2}}]}"


def test_tls_in_such_a_tunnel_is_led_by_tls_rules() -> None:
    found = snapshot("metrics", RULED.replace("tcp: [{route: [ROUTE]}]", f"tls: [{TLS_RULE}]"))
    [table] = check_snapshot(found, static_clusters={SDS_CLUSTER}).of(ROUTE).values()
    _, tunnels = shown(table)["virtual_hosts"][0]["routes"]

    assert tunnels["route"]["cluster"] == "inner/sniffed"
    assert told(tunnels) == {
        "envoy.tcp_proxy.cluster": "outbound|80||a.default", "policyd.tls": "outbound|80|v2|a.default",
    }  # fmt: skip


def test_shares_of_tcp_and_of_tls_rules_are_dealt_together() -> None:
    both = f"tcp: [{{route: [{SHARED}]}}], tls: [{TLS_RULE.replace('{destination: {host: a, subset: v2}}', SHARED)}]"
    found = snapshot("metrics", RULED.replace("tcp: [{route: [ROUTE]}]", both))
    [table] = check_snapshot(found, static_clusters={SDS_CLUSTER}).of(ROUTE).values()
    _, tunnels = shown(table)["virtual_hosts"][0]["routes"]

    shares = tunnels["route"]["weighted_clusters"]["clusters"]
    led = [(one["weight"], *(name.split("|")[2] for name in told(one).values())) for one in shares]
    assert led == [(81, "v1", "v1"), (9, "v1", "v2"), (9, "v2", "v1"), (1, "v2", "v2")]


def test_shares_are_never_more_than_envoy_counts() -> None:
    def route(*weights: int) -> dict[str, Any]:
        clusters = [{"name": str(weight), "weight": weight} for weight in weights]
        return {"match": {}, "route": {"weighted_clusters": {"clusters": clusters}}}

    made = outbound(route(1_000_000, 1), route(1_000_000, 1_000_000))
    weights = [one["weight"] for one in made["route"]["weighted_clusters"]["clusters"]]

    assert sum(weights) < 2**32
    assert min(weights) >= 1


def test_in_shares_too() -> None:
    [table] = sniffed(SHARED).of(ROUTE).values()
    _, tunnels = shown(table)["virtual_hosts"][0]["routes"]

    shares = tunnels["route"]["weighted_clusters"]["clusters"]
    assert [(one["name"], one["weight"], told(one)["envoy.tcp_proxy.cluster"]) for one in shares] == [
        ("inner/sniffed", 9, "outbound|80|v1|a.default"),
        ("inner/sniffed", 1, "outbound|80|v2|a.default"),
    ]


@pytest.mark.e2e
def test_the_real_envoy_accepts_shares(tmp_path: Path) -> None:
    accepted(sniffed(SHARED), tmp_path)


@pytest.mark.e2e
@pytest.mark.parametrize("speaks", ["grpc-web", "tls", "metrics"])
def test_the_real_envoy_accepts_it(tmp_path: Path, speaks: str) -> None:
    found = snapshot(speaks, RULE)

    check_snapshot(
        build_snapshots(
            mesh_of(
                {"workloads.yaml": WORKLOADS.replace("web, port: 80", f"web, ports: [{{port: 80, name: {speaks}}}]")}
            ),
            CONTROL,
        )["web-v1"],
        static_clusters={SDS_CLUSTER},
    )
    accepted(found, tmp_path)
