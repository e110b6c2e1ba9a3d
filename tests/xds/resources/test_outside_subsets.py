"""Parts of a Host outside: a cluster for each subset, of the endpoints that bear its labels, and what is near first."""

from __future__ import annotations

from typing import Any

import pytest

from policyd.envoy_api import CLUSTER, ROUTE
from policyd.xds.agreed import SDS_CLUSTER
from policyd.xds.resources.build import build_snapshots
from policyd.xds.snapshot import Snapshot, check_snapshot
from tests.xds.resources.folders import CONTROL, WORKLOADS, mesh_of
from tests.xds.resources.test_build import shown

OUTSIDE = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: books}
spec:
  hosts: [books.example.com]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]
  endpoints:
    - {address: 192.0.2.1, labels: {version: v1}}
    - {address: 192.0.2.2, labels: {version: v2, tier: slow}, weight: 3}
    - {address: 192.0.2.3, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: books}
spec:
  host: books.example.com
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}
  subsets:
    - {name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
    - {name: v2, labels: {version: v2}}
    - {name: whole}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: books}
spec:
  hosts: [books.example.com]
  http:
    - match: [{headers: {x: {exact: y}}}]
      route: [{destination: {host: books.example.com, port: {number: 80}, subset: v1}}]
    - route:
        - {destination: {host: books.example.com, port: {number: 80}, subset: v2}, weight: 9}
        - {destination: {host: books.example.com, port: {number: 80}}, weight: 1}
"""


def web() -> Snapshot:
    mesh = mesh_of({"workloads.yaml": WORKLOADS, "mesh/it.yaml": OUTSIDE})
    return check_snapshot(build_snapshots(mesh, CONTROL)["web-v1"], static_clusters={SDS_CLUSTER})


def addresses(cluster: dict[str, Any]) -> list[str]:
    groups = cluster["load_assignment"]["endpoints"]
    endpoints = (one["endpoint"]["address"]["socket_address"] for group in groups for one in group["lb_endpoints"])
    return [one["address"].rpartition(".")[2] for one in endpoints]


def test_each_subset_is_a_cluster_of_its_endpoints() -> None:
    clusters = {name: shown(one) for name, one in web().of(CLUSTER).items() if "books" in name}
    assert {name: (addresses(one), one["lb_policy"]) for name, one in clusters.items()} == {
        "outbound|80||books.example.com": (["1", "2", "3"], "LEAST_REQUEST"),
        "outbound|80|v1|books.example.com": (["1"], "RANDOM"),
        "outbound|80|v2|books.example.com": (["2", "3"], "LEAST_REQUEST"),
        "outbound|80|whole|books.example.com": (["1", "2", "3"], "LEAST_REQUEST"),
        "tunnel|443||books.example.com": (["1", "2", "3"], "LEAST_REQUEST"),
        "tunnel|443|v1|books.example.com": (["1"], "RANDOM"),
        "tunnel|443|v2|books.example.com": (["2", "3"], "LEAST_REQUEST"),
        "tunnel|443|whole|books.example.com": (["1", "2", "3"], "LEAST_REQUEST"),
    }
    limits = {one["circuit_breakers"]["thresholds"][0]["max_connections"] for one in clusters.values()}
    assert limits == {7}


def test_every_subset_keeps_from_the_addresses_that_no_host_may_have() -> None:
    clusters = {name: shown(one) for name, one in web().of(CLUSTER).items() if "books" in name}
    filters = [one["typed_extension_protocol_options"].popitem()[1]["http_filters"] for one in clusters.values()]
    kept = [[one for one in found if one["name"] == "envoy.filters.http.upstream_rbac"] for found in filters]
    assert len(kept[0]) == 1
    assert all(one == kept[0] for one in kept)


def test_routes_lead_to_subsets_and_are_asked_about_as_the_host() -> None:
    hosts = {one["name"]: one for one in shown(web().of(ROUTE)["outbound"])["virtual_hosts"]}
    first, second, *_ = [
        one for one in hosts["books.example.com:80"]["routes"] if "connect_matcher" not in one["match"]
    ]
    assert first["route"]["cluster"] == "outbound|80|v1|books.example.com"
    shares = second["route"]["weighted_clusters"]["clusters"]
    assert [(one["name"], one["weight"]) for one in shares] == [
        ("outbound|80|v2|books.example.com", 9),
        ("outbound|80||books.example.com", 1),
    ]
    asked = [one["typed_per_filter_config"] for one in (first, *shares)]
    extensions = [next(iter(one.values()))["check_settings"]["context_extensions"] for one in asked]
    assert extensions == [{"policyd.host": "books.example.com", "policyd.port": "80"}] * 3


PLACED = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: books}
spec:
  hosts: [books.example.com]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints:
    - {address: 192.0.2.1, locality: us}
    - {address: 192.0.2.2, locality: eu/eu-1, weight: 3}
    - {address: 192.0.2.3, locality: eu/eu-2/rack}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: books}
spec: {host: books.example.com, trafficPolicy: {POLICY}}
"""


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        ("loadBalancer: {simple: RANDOM}", [("eu", "2", None, None), ("eu", "3", None, None), ("us", "1", None, None)]),
        ("outlierDetection: {}", [("eu", "2", None, None), ("eu", "3", 1, None), ("us", "1", 2, None)]),
        ("outlierDetection: {}, loadBalancer: {localityLbSetting: {enabled: false}}",
         [("eu", "2", None, None), ("eu", "3", None, None), ("us", "1", None, None)]),
        ('loadBalancer: {localityLbSetting: {distribute: [{from: "eu/*", to: {"us": 80, "eu/*": 20}}]}}',
         [("eu", "2", None, 1500), ("eu", "3", None, 500), ("us", "1", None, 8000)]),
    ],
)  # fmt: skip
def test_what_is_near_outside_goes_before_or_gets_its_share(
    policy: str, found: list[tuple[str, str, int | None, int | None]]
) -> None:
    workloads = WORKLOADS.replace("web-v1: {", "web-v1: {locality: eu/eu-1, ")
    mesh = mesh_of({"workloads.yaml": workloads, "mesh/it.yaml": PLACED.replace("{POLICY}", f"{{{policy}}}")})
    cluster = shown(build_snapshots(mesh, CONTROL)["web-v1"].of(CLUSTER)["outbound|80||books.example.com"])

    assert [
        (group["locality"]["region"], addresses({"load_assignment": {"endpoints": [group]}})[0],
         group.get("priority"), group.get("load_balancing_weight"))
        for group in cluster["load_assignment"]["endpoints"]
    ] == found  # fmt: skip


def test_what_is_passed_through_is_looked_up_by_its_own_name() -> None:
    policy = "{outlierDetection: {}, loadBalancer: {simple: PASSTHROUGH}}"
    mesh = mesh_of({"workloads.yaml": WORKLOADS, "mesh/it.yaml": PLACED.replace("{POLICY}", policy)})
    cluster = shown(build_snapshots(mesh, CONTROL)["web-v1"].of(CLUSTER)["outbound|80||books.example.com"])

    [group] = cluster["load_assignment"]["endpoints"]
    [endpoint] = group["lb_endpoints"]
    assert (cluster["type"], cluster["lb_policy"]) == ("STRICT_DNS", "RANDOM")
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "books.example.com", "port_value": 80}
