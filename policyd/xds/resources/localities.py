"""Endpoints by locality, as a caller sees them: in the order in which they take over, or by shares.

Law: without outlier detection nobody finds out that a locality is broken, so then all are equal, as in Istio.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policyd.mesh.destinations import Caller
from policyd.mesh.istio.balancing import Distribute, Failover, LocalityBalancing
from policyd.mesh.istio.traffic_policy import Sections
from policyd.mesh.locality import Locality, matches
from policyd.mesh.model import Instance, Served
from policyd.xds.resources import counting, tls
from policyd.xds.resources.model import socket
from policyd.xds.resources.policies import by_distribution

Place = tuple[Instance, Served]  # what is served, and by whom


@dataclass(frozen=True, slots=True)
class Spot:
    """An endpoint (LbEndpoint, without its weight), and what it is chosen by."""

    endpoint: Mapping[str, Any]
    locality: Locality | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    weight: int = 1


_Groups = Mapping[tuple[int, Locality | None], Sequence[Spot]]


def groups(found: Iterable[Spot], caller: Caller, policy: Sections) -> list[dict[str, Any]]:
    """LocalityLbEndpoints, the preferred first (config.endpoint.v3)."""
    spots = list(found)
    wanted = _setting(policy)
    if by_distribution(policy):
        return _shared(_gathered(spots, [0] * len(spots)), caller, wanted.distribute)
    priorities = [0] * len(spots)
    balanced = policy.load_balancer is None or not policy.load_balancer.passes_through
    if wanted.enabled and balanced and policy.outlier_detection is not None:
        priorities = _priorities(spots, caller, wanted)
    return [
        {**_group(members, place), **({"priority": priority} if priority else {})}
        for (priority, place), members in _gathered(spots, priorities).items()
    ]


def spot(place: Place) -> Spot:
    """Where a sidecar is reached."""
    one, served = place
    endpoint = {
        "endpoint": {"address": socket(one.address, served.inbound_port)},
        "metadata": {"filter_metadata": _metadata(one, served)},
    }
    return Spot(endpoint, one.locality, one.labels, one.weight)


def _setting(policy: Sections) -> LocalityBalancing:
    given = policy.load_balancer.locality_lb_setting if policy.load_balancer else None
    return given or LocalityBalancing()  # Istio's mesh-wide default: enabled


def _gathered(spots: Sequence[Spot], priorities: Sequence[int]) -> _Groups:
    found: dict[tuple[int, Locality | None], list[Spot]] = {}
    for one, priority in zip(spots, priorities, strict=True):
        found.setdefault((priority, one.locality), []).append(one)
    order = sorted(found, key=lambda key: (key[0], str(key[1] or "")))
    return {key: found[key] for key in order}


def _metadata(instance: Instance, served: Served) -> dict[str, Any]:
    return {**counting.endpoint_metadata(instance), **(tls.IN_PLAINTEXT if served.peers == "DISABLE" else {})}


def _group(members: Sequence[Spot], place: Locality | None) -> dict[str, Any]:
    endpoints = [
        {**one.endpoint, **({"load_balancing_weight": one.weight} if one.weight != 1 else {})} for one in members
    ]
    group: dict[str, Any] = {"lb_endpoints": endpoints}
    if place is not None:
        named = {"region": place.region, "zone": place.zone, "sub_zone": place.subzone}
        group["locality"] = {key: value for key, value in named.items() if value}
    return group


def _priorities(spots: Sequence[Spot], caller: Caller, wanted: LocalityBalancing) -> list[int]:
    """How far each is from the caller, without gaps (Envoy wants every priority from 0 on)."""
    if wanted.failover_priority:
        far = [_mismatched(one, caller, wanted.failover_priority) for one in spots]
    elif caller.locality is not None:
        far = [_distance(caller.locality, one.locality, wanted.failover) for one in spots]
    else:
        far = [0] * len(spots)
    order = sorted(set(far))
    return [order.index(one) for one in far]


def _mismatched(spot: Spot, caller: Caller, labels: Sequence[str]) -> int:
    """How many labels, from the first that differs from the caller's on, an endpoint misses."""
    own = {**dict(caller.labels), **(caller.locality.labels if caller.locality else {})}
    there = {**spot.labels, **(spot.locality.labels if spot.locality else {})}
    for at, label in enumerate(labels):
        name, equals, value = label.partition("=")
        if (value if equals else own.get(name, "")) != there.get(name, ""):
            return len(labels) - at
    return 0


def _distance(here: Locality, there: Locality | None, failover: Sequence[Failover]) -> int:
    """0 the same subzone, 1 the same zone, 2 the same region, 3 another one, 4 one that is not to take over."""
    if there is not None and there.region == here.region:
        same_zone = there.zone == here.zone
        return 0 if same_zone and there.subzone == here.subzone else 1 if same_zone else 2
    chosen = next((one.to for one in failover if one.from_ == here.region), None)
    return 3 if chosen is None or (there is not None and there.region == chosen) else 4


def _shared(found: _Groups, caller: Caller, distribute: Sequence[Distribute]) -> list[dict[str, Any]]:
    """Each locality with its share; those of callers that no share is for go by the weights of the endpoints."""
    here = caller.locality
    shares = next((one.to for one in distribute if here is not None and matches(one.from_, here)), None)
    weights = {place: sum(one.weight for one in members) for (_, place), members in found.items()}
    if shares is not None:
        weights = _weights(weights, shares)
    return [
        {**_group(members, place), "load_balancing_weight": weights[place]}
        for (_, place), members in found.items()
        if weights.get(place)
    ]


def _weights(sizes: Mapping[Locality | None, int], shares: Mapping[str, int]) -> dict[Locality | None, int]:
    """A share is divided among the localities of its pattern by their sizes; a locality has its narrowest one's."""
    weights: dict[Locality | None, int] = {}
    for pattern in sorted(shares, key=lambda one: (one.count("*"), -one.count("/"))):
        chosen = {p: size for p, size in sizes.items() if p is not None and p not in weights and matches(pattern, p)}
        whole = sum(chosen.values())
        # in hundredths of a percent, so that small localities are not rounded up to a whole one
        weights.update({place: max(1, shares[pattern] * size * 100 // whole) for place, size in chosen.items()})
    return weights
