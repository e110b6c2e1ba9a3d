"""Who is revoked is expected of nobody, and where serial numbers count each trust domain has a chain of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.eras import Eras, Lost
from policyd.mesh.health import with_revoked
from policyd.mesh.model import Mesh
from policyd.mesh.placement import assumed
from policyd.spiffe import SpiffeId
from policyd.xds.resources.build import build_snapshots
from policyd.xds.snapshot import Snapshot
from tests.xds.resources.folders import CONTROL, TRUST_DOMAIN, WORKLOADS, mesh_of
from tests.xds.resources.test_build import shown

API = SpiffeId.workload(TRUST_DOMAIN, "default", "api")
OTHER = SpiffeId.workload(TRUST_DOMAIN, "far", "other")
TWO = WORKLOADS.replace("api-v2: {", "api-v2: {serviceAccount: second, ")
SECOND = SpiffeId.workload(TRUST_DOMAIN, "default", "second")
CALLED = "outbound|9080||api.default"
PEERS = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: it}
spec: {selector: {matchLabels: {app: api}}, mtls: {mode: MODE}}
"""


def checked(socket: dict[str, Any]) -> tuple[list[dict[str, str]], str]:
    """Which names a peer may have, and the secret by which it is verified."""
    context = socket["typed_config"]["common_tls_context"]["combined_validation_context"]
    sans = context["default_validation_context"].get("match_typed_subject_alt_names", [])
    return [one["matcher"] for one in sans], context["validation_context_sds_secret_config"]["name"]


def called(mesh: Mesh) -> tuple[list[str], str, int]:
    """Whom a caller expects behind the api, by which secret it is verified, and at how many places it is."""
    snapshot = dict(build_snapshots(mesh, CONTROL))["web-v1"]
    names, secret = checked(shown(snapshot.of(CLUSTER)[CALLED])["transport_socket"])
    places = shown(snapshot.of(ENDPOINT)[CALLED]).get("endpoints", [])
    return [one["exact"] for one in names], secret, sum(len(one["lb_endpoints"]) for one in places)


@pytest.mark.parametrize(
    ("revoked", "expected", "places"),
    [
        ({OTHER}, [API, SECOND], 2),
        ({SECOND}, [API], 1),
        ({API, SECOND}, [SpiffeId(TRUST_DOMAIN, "")], 0),  # no matcher would mean any
    ],
)
def test_an_identity_that_is_revoked_is_expected_of_nobody(
    revoked: set[SpiffeId], expected: list[SpiffeId], places: int
) -> None:
    mesh = with_revoked(mesh_of({"workloads.yaml": TWO}), frozenset(revoked))
    assert called(mesh) == ([str(one) for one in expected], "ROOTCA", places)


def test_a_revocation_reaches_every_snapshot_of_before() -> None:
    """What is kept of an earlier building has no memory of who was expected."""
    mesh = mesh_of({"workloads.yaml": TWO})
    before = build_snapshots(mesh, CONTROL)
    after = dict(build_snapshots(with_revoked(mesh, frozenset({SECOND})), CONTROL, before))
    names, _ = checked(shown(after["web-v1"].of(CLUSTER)[CALLED])["transport_socket"])
    assert names == [{"exact": str(API)}]


def test_identities_that_are_no_workloads_change_no_mesh() -> None:
    mesh = mesh_of({"workloads.yaml": TWO})
    assert with_revoked(mesh, frozenset({SpiffeId.agent(TRUST_DOMAIN, "laptop")})) is mesh


def ways_in(
    mode: str, federated: frozenset[str]
) -> list[tuple[dict[str, Any], tuple[list[dict[str, str]], str] | None]]:
    mesh = mesh_of({"workloads.yaml": WORKLOADS, "mesh/it.yaml": PEERS.replace("MODE", mode)})
    mesh = replace(mesh, looks_at_serials=True, federated=federated)
    listener = shown(dict(build_snapshots(mesh, CONTROL))["api-v1"].of(LISTENER)["api-v1/inbound"])
    return [
        (
            one.get("filter_chain_match", {}),
            checked(one["transport_socket"]) if "transport_socket" in one else None,
        )
        for one in listener["filter_chains"]
    ]


OWN = ([{"prefix": f"spiffe://{TRUST_DOMAIN}/"}], "ROOTCA+CRL")


@pytest.mark.parametrize(
    ("mode", "federated", "chains"),
    [
        ("STRICT", frozenset(), [({}, OWN)]),
        (
            "STRICT",
            frozenset({"b.test", "a.test"}),
            [
                ({}, OWN),
                ({"server_names": ["a.test"]}, ([], "spiffe://a.test")),
                ({"server_names": ["b.test"]}, ([], "spiffe://b.test")),
            ],
        ),
        (
            "PERMISSIVE",
            frozenset({"a.test"}),
            [
                ({"transport_protocol": "tls"}, OWN),
                ({"transport_protocol": "tls", "server_names": ["a.test"]}, ([], "spiffe://a.test")),
                ({"transport_protocol": "raw_buffer"}, None),
            ],
        ),
        ("DISABLE", frozenset({"a.test"}), [({}, None)]),
    ],
)
def test_where_serial_numbers_count_each_trust_domain_has_its_chain(
    mode: str, federated: frozenset[str], chains: list[Any]
) -> None:
    assert ways_in(mode, federated) == chains


def test_a_caller_looks_at_the_lists_of_its_own_trust_domain() -> None:
    mesh = replace(mesh_of({"workloads.yaml": WORKLOADS}), looks_at_serials=True)
    assert called(mesh) == ([str(API)], "ROOTCA+CRL", 2)


def test_who_is_of_another_trust_domain_is_verified_by_its_own_bundle() -> None:
    peer = "spiffe://bank.test/ns/default/sa/pay"
    outside = f"""\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: pay}}
spec:
  hosts: [pay.bank.test]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 4000}}]
  resolution: STATIC
  endpoints: [{{address: 192.0.2.7}}]
  subjectAltNames: ["{peer}"]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: pay}}
spec: {{host: pay.bank.test, trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL}}}}}}
"""

    declaration = declare({"workloads.yaml": WORKLOADS, "mesh/it.yaml": outside})
    mesh = build(declaration, TRUST_DOMAIN, assumed(declaration), federated=frozenset({"bank.test"}))
    snapshot: Snapshot = dict(build_snapshots(replace(mesh, looks_at_serials=True), CONTROL))["web-v1"]
    [cluster] = [one for name, one in snapshot.of(CLUSTER).items() if "pay.bank.test" in name and "tunnel" not in name]
    assert checked(shown(cluster)["transport_socket"]) == ([{"exact": peer}], "ROOTCA")


LOST = Lost("2a", API)


def eras(snapshot: Snapshot, kind: str) -> dict[str, list[str]]:
    """The eras that the chains of listeners, or clusters, are of; those that are of none are left out."""
    found = {}
    for name, one in snapshot.of(kind).items():
        fields = shown(one)
        parts = [one.get("metadata") for one in fields.get("filter_chains", ())] if kind == LISTENER else []
        said = [part["filter_metadata"]["policyd.era"]["name"] for part in parts or [fields.get("metadata")] if part]
        if said:
            found[name] = said
    return found


def test_connections_of_before_end_when_an_identity_is_revoked() -> None:
    mesh = with_revoked(mesh_of({"workloads.yaml": TWO}), frozenset({SECOND}))
    found = eras(dict(build_snapshots(mesh, CONTROL))["web-v1"], LISTENER)
    assert found == {"web-v1/inbound": [mesh.eras.now], "web-v1/outbound": [mesh.eras.now]}
    assert eras(dict(build_snapshots(mesh, CONTROL))["web-v1"], CLUSTER) == {}  # others are expected there now


def test_connections_of_before_end_when_a_certificate_is_revoked_and_lead_no_more_to_who_lost_it() -> None:
    mesh = replace(mesh_of({"workloads.yaml": WORKLOADS}), looks_at_serials=True)
    mesh = with_revoked(mesh, frozenset(), frozenset({LOST}))
    snapshot = dict(build_snapshots(mesh, CONTROL))["web-v1"]
    assert eras(snapshot, LISTENER) == {"web-v1/inbound": [mesh.eras.now], "web-v1/outbound": [mesh.eras.now]}
    assert eras(snapshot, CLUSTER) == {CALLED: [mesh.eras.of_peers([API])]}


def test_without_a_revocation_there_is_no_era() -> None:
    mesh = mesh_of({"workloads.yaml": WORKLOADS})
    assert with_revoked(mesh, frozenset(), frozenset({LOST})) is mesh  # nobody looks at serial numbers there
    assert [eras(dict(build_snapshots(mesh, CONTROL))["web-v1"], kind) for kind in (LISTENER, CLUSTER)] == [{}, {}]


def test_each_revocation_begins_an_era_which_is_the_same_for_who_hears_of_it_later() -> None:
    some: list[tuple[set[SpiffeId], set[Lost]]] = [
        (set(), set()), ({API}, set()), ({SECOND}, set()), ({API, SECOND}, set()), (set(), {LOST}),
        (set(), {Lost("2b", API)}), (set(), {LOST, Lost("2b", API)}), (set(), {Lost("2a", SECOND)}), ({SECOND}, {LOST}),
    ]  # fmt: skip
    assert len({Eras.of(*one).now for one in some}) == len(some)
    assert [Eras.of(*one) for one in some] == [Eras.of(sorted(ids), sorted(lost)) for ids, lost in some]
    assert Eras.of((), (LOST,)).of_peers([SECOND]) == ""
