"""What a stream needs to be sent now: the difference between what the proxy has and a Snapshot, in order.

Law: what comes goes clusters, endpoints, listeners, routes, and waits for what it needs; what goes, goes last
("eventual consistency considerations" of the xDS protocol).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE
from policyd.xds.snapshot import Resource, Snapshot, differences
from policyd.xds.state import ALONE, UNKNOWN, Push, StreamState, TypeState, in_step, with_type

# the types that must be as the Snapshot says before resources of this type go
_GO_AFTER: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {ROUTE: (LISTENER,), CLUSTER: (LISTENER, ROUTE), ENDPOINT: (CLUSTER,)}
)


def advance(state: StreamState, type_url: str, snapshot: Snapshot, now: float) -> tuple[StreamState, Push | None]:
    """Send what the type needs now, if its last response was answered."""
    if state.types[type_url].pending:
        return state, None
    there = snapshot.of(type_url)
    known = _compared(state.types[type_url], there)
    if known is not state.types[type_url]:
        state = with_type(state, type_url, known)
    if not known.behind and not known.asked and not known.owed:
        return state, None
    names = sorted(known.behind | known.asked)
    changed = [one for name in names if (one := there.get(name)) and _differs(known, name, one.version, now)]
    resources = tuple(one for one in changed if _may_come(state, one, snapshot, now))
    waits = len(resources) < len(changed) and _clusters_under_way(state)
    if waits and known.owed:
        return state, None  # the first answer is whole, since a starting Envoy goes by it
    removed = {name for name in known.asked if name not in there}
    if not waits and (gone := _vanished(known, there, now)) and _may_go(state, type_url, snapshot, now):
        removed |= gone
    if type_url in ALONE and resources:
        resources, removed = resources[:1], set()  # the next comes with the answer
    if not resources and not removed and not known.owed:
        return state, None
    version = snapshot.version_of(type_url)
    push = Push(type_url, f"{state.prefix}{state.sent + 1}", version, resources, tuple(sorted(removed)))
    return _sent(state, known, push, now), push


def _compared(known: TypeState, there: Mapping[str, Resource]) -> TypeState:
    """Find out what is not as the Snapshot says; after a small change only a few names can be."""
    if known.compared is there and not known.behind:
        return known
    if known.compared is None:
        looked_at: Iterable[str] = known.has.keys() | known.perhaps | there.keys()
    else:
        looked_at = known.behind | differences(known.compared, there)
        if not looked_at:
            return known  # what it was compared with says the same
    behind = frozenset(name for name in looked_at if _is_behind(known, name, there.get(name)))
    return replace(known, compared=there, behind=behind)


def _is_behind(known: TypeState, name: str, one: Resource | None) -> bool:
    if one is None:
        return name in known.has or name in known.perhaps
    return name in known.perhaps or (known.wants(name) and known.has.get(name) != one.version)


def _differs(known: TypeState, name: str, version: str, now: float) -> bool:
    """Whether a resource of the Snapshot is to be sent: asked for, or wanted and not what the proxy has."""
    if not known.wants(name):
        return False
    return name in known.asked or (known.has.get(name) != version and not _backs_off(known, name, version, now))


def _vanished(known: TypeState, there: Mapping[str, Resource], now: float) -> set[str]:
    """Names that the proxy holds, or may hold, and that the Snapshot has no longer."""
    held = (name for name in known.behind if name in known.has or name in known.perhaps)
    return {name for name in held if name not in there and not _backs_off(known, name, UNKNOWN, now)}


def _backs_off(known: TypeState, name: str, version: str, now: float) -> bool:
    """Whether just this content was rejected, and not long enough ago."""
    refused = known.rejection
    return refused is not None and now < refused.retry_at and refused.content.get(name) == version


def _clusters_under_way(state: StreamState) -> bool:
    clusters = state.types.get(CLUSTER)
    return clusters is None or clusters.pending is not None


def _may_come(state: StreamState, one: Resource, snapshot: Snapshot, now: float) -> bool:
    """Whether the proxy has the clusters that a listener or route needs.

    Where Envoy rejects such a cluster, a listener or route that works is kept as it is; one that the proxy
    lacks or asks for is sent, for a route that answers 503 is better than a listener that never opens.
    """
    if one.type_url not in (LISTENER, ROUTE):
        return True
    clusters = state.types.get(CLUSTER)
    if clusters is None:
        return now >= state.grace_until
    there = snapshot.of(CLUSTER)
    if clusters.compared is not None and not clusters.behind and not differences(clusters.compared, there):
        return True
    needed = {needs.name for needs in one.references if needs.type_url == CLUSTER and needs.name in there}
    needed = {name for name in needed if clusters.wants(name)}
    settled = clusters.pending is None or needed.isdisjoint(clusters.pending.touched())
    if settled and all(clusters.has.get(name) == there[name].version for name in needed):
        return True
    if clusters.pending:
        return False
    known = state.types[one.type_url]
    return needed <= clusters.has.keys() or one.name in known.asked or one.name not in known.has


def _may_go(state: StreamState, type_url: str, snapshot: Snapshot, now: float) -> bool:
    """Whether all that may still use vanished resources of the type is as the Snapshot says."""
    for before in _GO_AFTER.get(type_url, ()):
        known = state.types.get(before)
        if known is None:
            if now < state.grace_until:
                return False
        elif not in_step(known, snapshot.of(before)):
            return False
    return True


def _sent(state: StreamState, known: TypeState, push: Push, now: float) -> StreamState:
    """Note a response that is being sent."""
    known = replace(known, pending=push, owed=False, asked=known.asked - push.touched(), sent_at=now)
    state = with_type(state, push.type_url, known, sent=1)
    return endpoints_again(state, push) if push.type_url == CLUSTER else state


def endpoints_again(state: StreamState, push: Push) -> StreamState:
    """A changed cluster warms until its endpoints come, and Envoy does not ask again (Envoy #13009)."""
    endpoints = state.types.get(ENDPOINT)
    if endpoints is None:
        return state
    needed = {needs.name for one in push.resources for needs in one.references if needs.type_url == ENDPOINT}
    again = frozenset(name for name in needed if endpoints.wants(name))
    return with_type(state, ENDPOINT, replace(endpoints, asked=endpoints.asked | again))
