"""One change after another: what comes out is what a build from nothing makes, and what was not touched is kept."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE
from policyd.errors import InvalidInput
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh
from policyd.mesh.placement import Placement, place
from policyd.xds.agreed import SDS_CLUSTER
from policyd.xds.resources.build import ProxyClass, build_snapshots
from policyd.xds.resources.reuse import Snapshots
from policyd.xds.snapshot import differences, kind, make_snapshot
from tests.xds.resources.folders import CONTROL

ROUTES = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: it}
spec: {hosts: [a], http: [{route: [{destination: {host: a}}], timeout: 3s}]}
"""
SUBSETS = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: it}
spec: {host: a, subsets: [{name: v1, labels: {version: v1}}], trafficPolicy: {outlierDetection: {}}}
"""
HOST = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: www}
spec:
  hosts: [www.example.com]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 203.0.113.1}]
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: both}
spec: {selector: {tier: front}, ports: [{port: 80}]}
"""
GATEWAY = "gateways: {ingress: {listen: [8080]}}\n"
COPIES = {
    "a-1": "{service: a, port: 80, labels: {version: v1, tier: front}}",
    "a-2": "{service: a, port: 80, labels: {version: v2}, locality: eu/eu-1}",
    "b-1": "{service: b, port: 80, labels: {tier: front}}",
    "c-1": "{service: c, port: 80, namespace: far, serviceAccount: own}",
    "d-1": "{service: d, port: 80, address: 10.1.2.3, appPort: 1001, inboundPort: 1002, outboundPort: 1003}",
    "c-2": "{service: c, port: 80, namespace: far, locality: us}",
}


class Folder:
    """A folder that changes; instances stay where they were put."""

    def __init__(self) -> None:
        self._placed = Placement()
        self._ports = iter(range(20_000, 60_000))

    def mesh(self, copies: set[str], files: dict[str, str] | None = None, edge: bool = True) -> Mesh:
        """The Mesh of these copies and these files of resources."""
        lines = "".join(f"  {name}: {COPIES[name]}\n" for name in sorted(copies))
        workloads = f"workloads:\n{lines}" if lines else ""
        declaration = declare({"workloads.yaml": workloads + (GATEWAY if edge else ""), **(files or {})})
        self._placed = place(
            declaration, self._placed, is_free=lambda _: True, candidates=self._ports, secret=lambda: "s"
        )
        return build(declaration, "cluster.local", self._placed)


def contents(snapshots: Snapshots[ProxyClass]) -> dict[str, dict[str, dict[str, str]]]:
    return {
        name: {
            kind(url): {one.name: one.version for one in found.values()} for url, found in snapshot.resources.items()
        }
        for name, snapshot in snapshots.items()
    }


PEERS = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: it}
spec: {selector: {matchLabels: {tier: front}}, mtls: {mode: PERMISSIVE}}
"""
LABELS = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: told-apart}
spec:
  hosts: [b]
  http:
    - {match: [{sourceLabels: {tier: front}}], route: [{destination: {host: a}}]}
    - {route: [{destination: {host: b}}], retries: {attempts: 5}}
"""
FILES = {
    "mesh/labels.yaml": LABELS,
    "mesh/peers.yaml": PEERS,
    "mesh/host.yaml": HOST,
    "mesh/routes.yaml": ROUTES,
    "mesh/subsets.yaml": SUBSETS,
    "mesh/service.yaml": SERVICE,
}
STATES = st.tuples(st.sets(st.sampled_from(sorted(COPIES))), st.sets(st.sampled_from(sorted(FILES))), st.booleans())


@settings(max_examples=40, deadline=None)
@given(states=st.lists(STATES, min_size=2, max_size=5))
def test_a_change_leads_to_what_a_build_from_nothing_makes(states: list[tuple[set[str], set[str], bool]]) -> None:
    folder, before = Folder(), None
    for copies, files, edge in states:
        needed = {"a-1", "b-1"} if files else set()  # what the files name
        mesh = folder.mesh(copies | needed, {name: FILES[name] for name in files}, edge)

        made = build_snapshots(mesh, CONTROL, before).check({SDS_CLUSTER})
        anew = build_snapshots(mesh, CONTROL)

        assert contents(made) == contents(anew)
        assert {name: one.version for name, one in made.items()} == {name: one.version for name, one in anew.items()}
        assert made.config == anew.config
        before = made


def changed(before: Snapshots[ProxyClass], after: Snapshots[ProxyClass], instance: str) -> dict[str, set[str]]:
    """What an instance is sent anew, by type."""
    old, new = before[instance], after[instance]
    found = {kind(url): set(differences(old.of(url), new.of(url))) for url in (CLUSTER, ENDPOINT, LISTENER, ROUTE)}
    return {name: names for name, names in found.items() if names}


def test_a_copy_more_changes_the_endpoints_of_its_service_and_nothing_else_is_made() -> None:
    folder = Folder()
    before = build_snapshots(folder.mesh({"a-1", "b-1"}), CONTROL)
    laid = before["b-1"]
    after = build_snapshots(folder.mesh({"a-1", "a-2", "b-1"}), CONTROL, before)

    assert changed(before, after, "b-1") == {"endpoints": {"outbound|80||a.default"}}
    assert after.own["b-1"] is before.own["b-1"]
    assert after["b-1"].of(LISTENER) is laid.of(LISTENER)  # so that a stream need not compare them
    same = before["b-1"].of(ENDPOINT)["outbound|80||b.default"]
    assert after["b-1"].of(ENDPOINT)["outbound|80||b.default"] is same


def test_a_copy_with_an_identity_of_its_own_changes_the_cluster_too() -> None:
    folder = Folder()
    before = build_snapshots(folder.mesh({"b-1", "c-2"}), CONTROL)
    after = build_snapshots(folder.mesh({"b-1", "c-1", "c-2"}), CONTROL, before)

    assert changed(before, after, "b-1") == {
        "clusters": {"outbound|80||c.far"},
        "endpoints": {"outbound|80||c.far"},
    }


def test_an_address_that_is_new_to_the_mesh_is_forbidden_to_every_host_at_once() -> None:
    folder = Folder()
    before = build_snapshots(folder.mesh({"b-1"}, {"mesh/host.yaml": HOST}), CONTROL)
    after = build_snapshots(folder.mesh({"b-1", "d-1"}, {"mesh/host.yaml": HOST}), CONTROL, before)

    assert "outbound|80||www.example.com" in changed(before, after, "b-1")["clusters"]


def test_a_route_changes_routes_alone() -> None:
    folder = Folder()
    before = build_snapshots(folder.mesh({"a-1", "b-1"}), CONTROL)
    after = build_snapshots(folder.mesh({"a-1", "b-1"}, {"mesh/routes.yaml": ROUTES}), CONTROL, before)

    assert changed(before, after, "b-1") == {"routes": {"outbound"}}
    assert all(after.own[name] == before.own[name] and after.own[name] is before.own[name] for name in ("a-1", "b-1"))


def test_what_did_not_change_is_the_very_same_snapshot() -> None:
    folder = Folder()
    mesh = folder.mesh({"a-1", "b-1"})
    before = build_snapshots(mesh, CONTROL)
    kept = before["b-1"]

    assert build_snapshots(folder.mesh({"a-1", "b-1"}), CONTROL, before)["b-1"] is kept


def test_a_reference_to_nothing_is_found_without_laying_anything_together() -> None:
    snapshots = build_snapshots(Folder().mesh({"a-1"}), CONTROL)

    with pytest.raises(InvalidInput) as refused:
        snapshots.check()  # without the cluster of the bootstrap

    assert f"needs clusters named `{SDS_CLUSTER}`" in str(refused.value.problems[0])


def test_what_was_good_is_looked_at_again_where_a_name_that_it_needs_is_gone() -> None:
    folder = Folder()
    before = build_snapshots(folder.mesh({"a-1", "b-1"}), CONTROL).check({SDS_CLUSTER})
    mesh = folder.mesh({"a-1", "b-1"}, {"mesh/routes.yaml": ROUTES})
    made = build_snapshots(mesh, CONTROL, before)
    assert made.own["a-1"] is before.own["a-1"]
    fewer = {
        one: make_snapshot(
            found for type_url in snapshot.resources for found in snapshot.of(type_url).values() if type_url != ROUTE
        )
        for one, snapshot in made.shared.items()
    }
    broken = dataclasses.replace(made, shared=fewer, _good=set()).after(before)
    with pytest.raises(InvalidInput, match="needs routes named `outbound`, and there are none"):
        broken.check({SDS_CLUSTER})
