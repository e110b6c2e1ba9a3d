"""Endpoints by locality, as a caller sees them: in the order in which they take over, or by shares.

Law: without outlier detection nobody finds out that a locality is broken, so then all are equal, as in Istio.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from policyd.mesh.destinations import Caller
from policyd.mesh.istio.traffic_policy import Distribute, Failover, LocalityBalancing, Sections
from policyd.mesh.locality import Locality, matches
from policyd.mesh.model import Instance, Served
from policyd.xds.resources import counting, tls
from policyd.xds.resources.model import socket
from policyd.xds.resources.policies import by_distribution

Place = tuple[Instance, Served]  # what is served, and by whom
_Groups = Mapping[tuple[int, Locality | None], Sequence[Place]]


def groups(found: Iterable[Place], caller: Caller, policy: Sections) -> list[dict[str, Any]]:
    """LocalityLbEndpoints of instances, the preferred first (config.endpoint.v3)."""
    places = list(found)
    wanted = _setting(policy)
    if by_distribution(policy):
        return _shared(_gathered(places, [0] * len(places)), caller, wanted.distribute)
    priorities = [0] * len(places)
    if wanted.enabled and policy.outlier_detection is not None:
        priorities = _priorities([instance for instance, _ in places], caller, wanted)
    return [
        {**_group(members, place), **({"priority": priority} if priority else {})}
        for (priority, place), members in _gathered(places, priorities).items()
    ]


def _setting(policy: Sections) -> LocalityBalancing:
    given = policy.load_balancer.locality_lb_setting if policy.load_balancer else None
    return given or LocalityBalancing()  # Istio's mesh-wide default: enabled


def _gathered(places: Sequence[Place], priorities: Sequence[int]) -> _Groups:
    found: dict[tuple[int, Locality | None], list[Place]] = {}
    for place, priority in zip(places, priorities, strict=True):
        found.setdefault((priority, place[0].locality), []).append(place)
    order = sorted(found, key=lambda key: (key[0], str(key[1] or "")))
    return {key: found[key] for key in order}


def _metadata(instance: Instance, served: Served) -> dict[str, Any]:
    return {**counting.endpoint_metadata(instance), **(tls.IN_PLAINTEXT if served.peers == "DISABLE" else {})}


def _group(members: Sequence[Place], place: Locality | None) -> dict[str, Any]:
    endpoints = [
        {
            "endpoint": {"address": socket(one.address, served.inbound_port)},
            "metadata": {"filter_metadata": _metadata(one, served)},
            **({"load_balancing_weight": one.weight} if one.weight != 1 else {}),
        }
        for one, served in members
    ]
    group: dict[str, Any] = {"lb_endpoints": endpoints}
    if place is not None:
        named = {"region": place.region, "zone": place.zone, "sub_zone": place.subzone}
        group["locality"] = {key: value for key, value in named.items() if value}
    return group


def _priorities(instances: Sequence[Instance], caller: Caller, wanted: LocalityBalancing) -> list[int]:
    """How far each is from the caller, without gaps (Envoy wants every priority from 0 on)."""
    if wanted.failover_priority:
        far = [_mismatched(instance, caller, wanted.failover_priority) for instance in instances]
    elif caller.locality is not None:
        far = [_distance(caller.locality, instance.locality, wanted.failover) for instance in instances]
    else:
        far = [0] * len(instances)
    order = sorted(set(far))
    return [order.index(one) for one in far]


def _mismatched(instance: Instance, caller: Caller, labels: Sequence[str]) -> int:
    """How many labels, from the first that differs from the caller's on, an instance misses."""
    own = {**dict(caller.labels), **(caller.locality.labels if caller.locality else {})}
    there = {**instance.labels, **(instance.locality.labels if instance.locality else {})}
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
    """Each locality with its share; those of callers that no share is for go by the weights of the instances."""
    here = caller.locality
    shares = next((one.to for one in distribute if here is not None and matches(one.from_, here)), None)
    weights = {place: sum(one.weight for one, _ in members) for (_, place), members in found.items()}
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
