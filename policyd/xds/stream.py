"""One delta xDS stream as a value: what the proxy asked for, what it has, and what to send it next.

Law: the proxy ends with exactly what it subscribed to of the newest Snapshot; at most one response a type is
unanswered; and no listener or route arrives before the clusters it needs, nor does a cluster go before them
("eventual consistency considerations" of the xDS protocol).

Transitions are pure. A request changes what is known of the proxy, then `update` compares that with a
Snapshot: what to send follows from the difference, never from a memory of what happened. Times are seconds of
one clock that only goes forward. Source: the xDS protocol, its sections on the incremental variant, and what
Envoy 1.40 was measured to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE
from policyd.errors import StreamError
from policyd.xds.snapshot import Resource, Snapshot

WILDCARD: Final = "*"
ORDER: Final = (CLUSTER, ENDPOINT, LISTENER, ROUTE)  # then every other type
FIRST_BACKOFF: Final = 5.0  # seconds until rejected content is tried again; doubles
LONGEST_BACKOFF: Final = 60.0
GRACE: Final = 1.0  # seconds in which a proxy tells what it has; one that comes back, its clusters last
MAX_TYPES: Final = 16
MAX_NAMES: Final = 20_000
MAX_NAME_LENGTH: Final = 1024
MAX_ERROR_LENGTH: Final = 2000

# the types that must be as the Snapshot says before resources of this type go
_GO_AFTER: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {ROUTE: (LISTENER,), CLUSTER: (LISTENER, ROUTE), ENDPOINT: (CLUSTER,)}
)
_UNKNOWN = ""  # the version of a resource of which the proxy rejected a change


@dataclass(frozen=True, slots=True)
class Request:
    """A DeltaDiscoveryRequest; `error` is Envoy's text if it rejects the response of `nonce`."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Push:
    """A DeltaDiscoveryResponse; `version` is that of the type's resources in the Snapshot."""

    type_url: str
    nonce: str
    version: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rejection:
    """What the proxy refused: `text` is its own; `content` is version by name, "" for a removal."""

    text: str
    at: float
    retry_at: float
    attempts: int
    content: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TypeState:
    """What is known of one type on one stream.

    `has` is version by name of what the proxy holds for certain; `perhaps` are names that were in a rejected
    response and that it may hold. `asked` are names to answer whatever it holds; `owed` is that the first
    request is still to be answered, with nothing if need be. `pending` is the unanswered response.
    """

    wildcard: bool = False
    names: frozenset[str] = frozenset()
    has: Mapping[str, str] = field(default_factory=dict)
    perhaps: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()
    owed: bool = False
    pending: Push | None = None
    rejection: Rejection | None = None
    sent_at: float | None = None
    answered_at: float | None = None

    def wants(self, name: str) -> bool:
        """Whether the proxy is subscribed to the name."""
        return self.wildcard or name in self.names


@dataclass(frozen=True, slots=True)
class StreamState:
    """One stream: its types, and until when the proxy is still telling what it has."""

    types: Mapping[str, TypeState] = field(default_factory=dict)
    prefix: str = ""
    sent: int = 0
    grace_until: float = 0.0


def start(prefix: str = "") -> StreamState:
    """A stream on which nothing was said yet; nonces begin with `prefix`."""
    return StreamState(prefix=prefix)


def receive(
    state: StreamState, request: Request, snapshot: Snapshot | None, now: float = 0.0
) -> tuple[StreamState, tuple[Push, ...]]:
    """Take in a request and say what to send, in order; with no Snapshot yet, nothing is sent.

    Raises StreamError for a request beyond all bounds; the stream should end.
    """
    _check(state, request)
    before = state.types.get(request.type_url)
    if not state.types and request.type_url in ORDER:
        state = replace(state, grace_until=now + GRACE)
    after = _open(request) if before is None else _subscribe(_answered(before, request, now), request)
    state = _with(state, request.type_url, after)
    clusters = state.types.get(CLUSTER)
    if before is None and request.type_url == ENDPOINT and clusters and clusters.pending:
        state = _endpoints_again(state, clusters.pending)  # they came before the proxy told of its endpoints
    return update(state, snapshot, now) if snapshot is not None else (state, ())


def update(state: StreamState, snapshot: Snapshot, now: float = 0.0) -> tuple[StreamState, tuple[Push, ...]]:
    """Say what to send now, in order. Call it for a new Snapshot, and when `due` says so."""
    pushes = []
    for type_url in (*ORDER, *sorted(state.types.keys() - set(ORDER))):
        if type_url in state.types:
            state, push = _advance(state, type_url, snapshot, now)
            pushes += [push] if push else []
    return state, tuple(pushes)


def due(state: StreamState, now: float = 0.0) -> float | None:
    """When `update` should be called though nothing has happened; None when there is no need."""
    times = [one.rejection.retry_at for one in state.types.values() if one.rejection] + [state.grace_until]
    return min((time for time in times if time > now), default=None)


# ---- taking a request in


def _check(state: StreamState, request: Request) -> None:
    known = state.types.get(request.type_url)
    if known is None and len(state.types) >= MAX_TYPES:
        raise StreamError(f"more than {MAX_TYPES} types on one stream")
    names = {*request.subscribe, *request.unsubscribe, *request.initial_versions}
    if any(len(name) > MAX_NAME_LENGTH for name in names):
        raise StreamError(f"a name longer than {MAX_NAME_LENGTH} characters")
    if len(names.union(known.names, known.asked) if known else names) > MAX_NAMES:
        raise StreamError(f"more than {MAX_NAMES} names of one type")


def _open(request: Request) -> TypeState:
    """The first request of a type; no name at all means everything ("legacy wildcard")."""
    names = frozenset(request.subscribe) - {WILDCARD}
    wildcard = not request.subscribe or WILDCARD in request.subscribe
    has = {name: version for name, version in request.initial_versions.items() if wildcard or name in names}
    # what it already has needs no answer unless it changed
    return TypeState(wildcard, names, has, asked=names.difference(has), owed=not request.initial_versions)


def _subscribe(state: TypeState, request: Request) -> TypeState:
    """Apply the changes of subscription, whatever nonce the request carries."""
    subscribed = frozenset(request.subscribe)
    gone = frozenset(request.unsubscribe) - subscribed
    wildcard = (state.wildcard or WILDCARD in subscribed) and WILDCARD not in gone
    names = (state.names | subscribed) - gone - {WILDCARD}
    if not subscribed and not gone:
        return state
    asked = state.asked | (subscribed - {WILDCARD})
    if wildcard:
        asked |= gone - {WILDCARD}  # "*" still covers the name, so the proxy must be told what it is now
        return replace(state, wildcard=True, names=names, asked=asked)
    return _forget(replace(state, wildcard=False, names=names, asked=asked))


def _forget(state: TypeState) -> TypeState:
    """Drop what is known of names that the proxy no longer wants, since it dropped them itself."""
    if state.wildcard:
        return state
    has = {name: version for name, version in state.has.items() if name in state.names}
    rejection = state.rejection and _without(state.rejection, {*state.rejection.content} - state.names)
    kept = state.names
    return replace(state, has=has, perhaps=state.perhaps & kept, asked=state.asked & kept, rejection=rejection)


def _answered(state: TypeState, request: Request, now: float) -> TypeState:
    """Apply an ACK or NACK; a nonce other than the pending one answers nothing."""
    push = state.pending
    if push is None or request.nonce != push.nonce:
        return state
    state = replace(state, pending=None, answered_at=now)
    if request.error is None:
        return _forget(_accepted(state, push))
    return _forget(_rejected(state, push, request.error, now))


def _accepted(state: TypeState, push: Push) -> TypeState:
    touched = {*push.removed, *(one.name for one in push.resources)}
    has = {name: version for name, version in state.has.items() if name not in touched}
    has.update((one.name, one.version) for one in push.resources)
    rejection = state.rejection and _without(state.rejection, touched)
    return replace(state, has=has, perhaps=state.perhaps - touched, rejection=rejection)


def _rejected(state: TypeState, push: Push, text: str, now: float) -> TypeState:
    """Envoy rejects a whole response but applies what is good in it: what became of each is unknown."""
    content = {one.name: one.version for one in push.resources} | dict.fromkeys(push.removed, _UNKNOWN)
    has = {name: version for name, version in state.has.items() if name not in push.removed}
    has.update((one.name, _UNKNOWN) for one in push.resources if one.name in has)
    perhaps = state.perhaps | (content.keys() - has.keys())
    before = state.rejection
    again = before is not None and any(before.content.get(name) == version for name, version in content.items())
    attempts = before.attempts + 1 if before and again else 1
    wait = min(FIRST_BACKOFF * 2 ** (attempts - 1), LONGEST_BACKOFF)
    content = {**(before.content if before else {}), **content}
    refused = Rejection(text[:MAX_ERROR_LENGTH], now, now + wait, attempts, content)
    return replace(state, has=has, perhaps=perhaps, rejection=refused)


def _without(rejection: Rejection, names: Iterable[str]) -> Rejection | None:
    """The rejection less those names; None when nothing of it is left."""
    content = {name: version for name, version in rejection.content.items() if name not in set(names)}
    return replace(rejection, content=content) if content else None


# ---- deciding what to send


def in_step(known: TypeState, resources: Mapping[str, Resource]) -> bool:
    """Whether the proxy has, and has confirmed, exactly what it wants of a type's resources."""
    if known.pending or known.owed or known.asked or known.rejection or known.perhaps:
        return False
    wanted = {name: one.version for name, one in resources.items() if known.wants(name)}
    return wanted == known.has


def _advance(state: StreamState, type_url: str, snapshot: Snapshot, now: float) -> tuple[StreamState, Push | None]:
    """Send what the type needs now, if its last response was answered."""
    known = state.types[type_url]
    if known.pending:
        return state, None
    there = snapshot.of(type_url)
    changed = [one for name, one in sorted(there.items()) if _differs(known, name, one.version, now)]
    resources = tuple(one for one in changed if _may_come(state, one, snapshot, now))
    waits = len(resources) < len(changed) and _clusters_under_way(state)
    if waits and known.owed:
        return state, None  # the first answer is whole, since a starting Envoy goes by it
    removed = {name for name in known.asked if name not in there}
    if not waits and (gone := _vanished(known, there, now)) and _may_go(state, type_url, snapshot, now):
        removed |= gone
    if not resources and not removed and not known.owed:
        return state, None
    version = snapshot.version_of(type_url)
    push = Push(type_url, f"{state.prefix}{state.sent + 1}", version, resources, tuple(sorted(removed)))
    return _sent(state, known, push, now), push


def _differs(known: TypeState, name: str, version: str, now: float) -> bool:
    """Whether a resource of the Snapshot is to be sent: asked for, or wanted and not what the proxy has."""
    if not known.wants(name):
        return False
    return name in known.asked or (known.has.get(name) != version and not _backs_off(known, name, version, now))


def _vanished(known: TypeState, there: Mapping[str, Resource], now: float) -> set[str]:
    """Names that the proxy holds, or may hold, and that the Snapshot has no longer."""
    held = known.has.keys() | known.perhaps
    return {name for name in held - there.keys() if not _backs_off(known, name, _UNKNOWN, now)}


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
    needed = {needs.name for needs in one.references if needs.type_url == CLUSTER and needs.name in there}
    needed = {name for name in needed if clusters.wants(name)}
    if all(clusters.has.get(name) == there[name].version for name in needed):
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
    answered = {*push.removed, *(one.name for one in push.resources)}
    known = replace(known, pending=push, owed=False, asked=known.asked - answered, sent_at=now)
    state = _with(replace(state, sent=state.sent + 1), push.type_url, known)
    return _endpoints_again(state, push) if push.type_url == CLUSTER else state


def _endpoints_again(state: StreamState, push: Push) -> StreamState:
    """A changed cluster warms until its endpoints come, and Envoy does not ask again (Envoy #13009)."""
    endpoints = state.types.get(ENDPOINT)
    if endpoints is None:
        return state
    needed = {needs.name for one in push.resources for needs in one.references if needs.type_url == ENDPOINT}
    again = frozenset(name for name in needed if endpoints.wants(name))
    return _with(state, ENDPOINT, replace(endpoints, asked=endpoints.asked | again))


def _with(state: StreamState, type_url: str, known: TypeState) -> StreamState:
    return replace(state, types=MappingProxyType({**state.types, type_url: known}))
