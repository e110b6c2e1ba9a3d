"""Services as gRPC's clients reach them: clusters, and endpoints by locality, each with its weight.

Law: gRPC passes over a locality without a weight, and takes endpoints of one locality in turn, whatever theirs are; so
those of another weight are a locality of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from policyd.mesh.destinations import Caller
from policyd.mesh.istio.balancing import ConsistentHash, LoadBalancer
from policyd.mesh.istio.connection_pool import ConnectionPool
from policyd.mesh.istio.traffic_policy import Sections
from policyd.mesh.model import Mesh, Port, Service
from policyd.mesh.protocols import HTTP2
from policyd.mesh.scope import Scope
from policyd.xds.resources import clusters, localities, tls
from policyd.xds.resources.localities import Place, Spot
from policyd.xds.resources.model import outbound_cluster, socket
from policyd.xds.resources.policies import UNBOUNDED
from policyd.xds.resources.proxyless import secured

_POLICIES: Final = "type.googleapis.com/envoy.extensions.load_balancing_policies"
_PRECISION: Final = 100


def ports(service: Service, scope: Scope) -> Iterator[Port]:
    """The ports of a Service that gRPC can call, of those that are known."""
    yield from (one for one in service.ports if one.protocol in HTTP2 and scope.sees(service, one.number))


def cluster(mesh: Mesh, caller: Caller, service: Service, port: int, subset: str = "") -> dict[str, Any]:
    """A Service's port, or a subset of it: endpoints by EDS, mTLS with those that serve it."""
    name = outbound_cluster(service.id, port, subset)
    policy = mesh.destination(caller, service).policy_of(port, subset)
    found = list(clusters.serving(mesh, caller, service, port, subset))
    pool = policy.connection_pool or ConnectionPool()
    limit = pool.http.http2_max_requests or UNBOUNDED  # gRPC's own of 1,024 is no policy of ours
    made = {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": {"resource_api_version": "V3", "ads": {}}},
        "circuit_breakers": {"thresholds": [{"max_requests": limit}]},
        **_balancing(policy.load_balancer or LoadBalancer()),
    }
    if _is_plain(policy, found):
        return made
    expected = {one.workload for one, there in found if there.peers != "DISABLE"}
    return {**made, "transport_socket": secured.upstream(tls.expected_of(mesh, expected))}


def endpoints(mesh: Mesh, caller: Caller, service: Service, port: int, subset: str = "") -> dict[str, Any]:
    """Where instances are reached (ClusterLoadAssignment): those alone that take what the cluster speaks."""
    policy = mesh.destination(caller, service).policy_of(port, subset)
    found = list(clusters.serving(mesh, caller, service, port, subset))
    refuses = "STRICT" if _is_plain(policy, found) else "DISABLE"
    reached = [place for place in clusters.reachable(mesh, service, found) if place[1].peers != refuses]
    groups = localities.groups(map(_spot, reached), caller, policy)
    return {
        "cluster_name": outbound_cluster(service.id, port, subset),
        "endpoints": [part for group in groups for part in _parts(group)],
    }


def hashed(policy: Sections) -> ConsistentHash | None:
    """By what requests are told apart, where what is equal goes to one instance."""
    return policy.load_balancer.consistent_hash if policy.load_balancer else None


def _is_plain(policy: Sections, found: list[Place]) -> bool:
    """Whether all of it is in plain text; where nobody serves it, it is not."""
    if policy.tls is not None and policy.tls.mode == "DISABLE":
        return True
    return bool(found) and all(there.peers == "DISABLE" for _, there in found)


def _balancing(balancer: LoadBalancer) -> dict[str, Any]:
    if (ring := balancer.consistent_hash) is not None:
        size = ring.minimum_ring_size or (ring.ring_hash.minimum_ring_size if ring.ring_hash else 1024)
        return {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": size}}
    if balancer.simple not in ("LEAST_REQUEST", "LEAST_CONN"):
        return {"lb_policy": "ROUND_ROBIN"}
    # a client takes the first that it has; gRPC in C has none but the second
    each = [_policy("least_request.v3.LeastRequest"), _policy("round_robin.v3.RoundRobin")]
    whole = _policy("wrr_locality.v3.WrrLocality", {"endpoint_picking_policy": {"policies": each}})
    return {"load_balancing_policy": {"policies": [whole]}}


def _policy(kind: str, fields: dict[str, Any] | None = None) -> dict[str, Any]:
    config = {"@type": f"{_POLICIES}.{kind}", **(fields or {})}
    return {"typed_extension_config": {"name": kind.partition(".")[0], "typed_config": config}}


def _spot(place: Place) -> Spot:
    one, served = place
    endpoint = {"endpoint": {"address": socket(one.address, served.inbound_port)}}
    return Spot(endpoint, one.locality, one.labels, one.weight)


def _parts(group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A locality as gRPC wants it: with a name, if an empty one, and a weight; one for each weight that is in it."""
    by_weight: dict[int, list[dict[str, Any]]] = {}
    for one in group["lb_endpoints"]:
        by_weight.setdefault(one.get("load_balancing_weight", 1), []).append(one)
    total = sum(weight * len(members) for weight, members in by_weight.items())
    share = group.get("load_balancing_weight", total)
    named = group.get("locality", {})
    for weight, members in sorted(by_weight.items()):
        apart = {"sub_zone": "/".join(filter(None, (named.get("sub_zone"), f"weight-{weight}")))}
        yield {
            **group,
            "locality": {**named, **(apart if len(by_weight) > 1 else {})},
            "lb_endpoints": members,
            "load_balancing_weight": max(1, share * _PRECISION * weight * len(members) // total),
        }
