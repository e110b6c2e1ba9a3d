"""Sidecar to snapshots: routes, clusters and endpoints of what is known and of what it leads to, shared by class."""

from __future__ import annotations

import pytest

from policyd.envoy_api import CLUSTER, ENDPOINT, ROUTE
from policyd.xds.agreed import SDS_CLUSTER
from policyd.xds.resources.build import build_snapshots
from policyd.xds.snapshot import Snapshot, check_snapshot
from tests.xds.resources.folders import CONTROL, WORKLOADS, mesh_of
from tests.xds.resources.test_build import shown

SPLIT = """\
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api}
spec: {hosts: [api], http: [{route: [{destination: {host: other.far}}]}]}
"""


def snapshots(hosts: str, more: str = "") -> dict[str, Snapshot]:
    sidecar = f"""\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: it}}
spec: {{workloadSelector: {{labels: {{app: web}}}}, egress: [{{hosts: {hosts}}}]}}
"""
    return dict(build_snapshots(mesh_of({"workloads.yaml": WORKLOADS, "mesh/it.yaml": sidecar + more}), CONTROL))


def known(snapshot: Snapshot) -> tuple[set[str], set[str], set[str]]:
    """The virtual hosts, clusters and endpoints of a sidecar that are other Services'."""
    hosts = {one["name"] for one in shown(snapshot.of(ROUTE)["outbound"])["virtual_hosts"]}
    clusters = {name.removeprefix("outbound|") for name in snapshot.of(CLUSTER) if name.startswith("outbound|")}
    endpoints = {name.removeprefix("outbound|") for name in snapshot.of(ENDPOINT)}
    return hosts - {"nowhere"}, clusters, endpoints


API, OTHER = "9080||api.default", "9080||other.far"


@pytest.mark.parametrize(
    ("hosts", "more", "virtual", "clusters"),
    [
        ('["~/*"]', "", set(), set()),
        ('["./api.default"]', "", {"api.default:9080"}, {API}),
        ('["far/*"]', "", {"other.far:9080"}, {OTHER}),
        ('["./api.default"]', SPLIT, {"api.default:9080"}, {OTHER}),
    ],
    ids=["nothing", "one", "a namespace", "what it leads to"],
)
def test_a_proxy_is_sent_what_it_may_know_and_what_that_leads_to(
    hosts: str, more: str, virtual: set[str], clusters: set[str]
) -> None:
    snapshot = snapshots(hosts, more)["web-v1"]

    assert known(snapshot) == (virtual, clusters, clusters)
    check_snapshot(snapshot, static_clusters={SDS_CLUSTER})


def test_others_go_on_knowing_everything_and_share_it() -> None:
    limited = snapshots('["~/*"]')
    free = snapshots('["*/*"]')

    assert known(limited["api-v1"]) == known(free["api-v1"]) == known(free["web-v1"])
    assert limited["api-v1"].of(ROUTE)["outbound"] is limited["api-v2"].of(ROUTE)["outbound"]
