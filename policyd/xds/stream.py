"""One xDS stream as a value: what the proxy asked for, what it has, and what to send it next.

Law: the proxy ends with exactly what it subscribed to of the newest Snapshot; at most one response a type is
unanswered; and no listener or route arrives before the clusters it needs, nor does a cluster go before them
("eventual consistency considerations" of the xDS protocol).

Transitions are pure. A request changes what is known of the proxy, then `update` compares that with a
Snapshot: what to send follows from the difference, never from a memory of what happened. Times are seconds of
one clock that only goes forward. Source: the xDS protocol, its sections on the incremental variant, and what
Envoy 1.40 was measured to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER
from policyd.errors import StreamError
from policyd.xds.held import changed
from policyd.xds.plan import advance, endpoints_again
from policyd.xds.snapshot import Snapshot
from policyd.xds.state import ALONE, ORDER, UNKNOWN, Push, Rejection, Request, StreamState, TypeState, with_type

__all__ = ["Push", "Request", "StreamState", "due", "receive", "start", "update"]

WILDCARD: Final = "*"
FIRST_BACKOFF: Final = 5.0  # seconds until rejected content is tried again; doubles
LONGEST_BACKOFF: Final = 60.0
GRACE: Final = 1.0  # seconds in which a proxy tells what it has; one that comes back, its clusters last
MAX_TYPES: Final = 16
MAX_NAMES: Final = 20_000
MAX_NAME_LENGTH: Final = 1024
MAX_ERROR_LENGTH: Final = 2000
_ORDERED: Final = frozenset(ORDER)


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
    first = before is None and request.type_url in _ORDERED and not state.types.keys() & _ORDERED
    if first and not _follows(request):
        state = replace(state, grace_until=now + GRACE)
    after = _open(request) if before is None else _subscribe(_answered(before, request, now), request)
    state = with_type(state, request.type_url, after)
    clusters = state.types.get(CLUSTER)
    if before is None and request.type_url == ENDPOINT and clusters and clusters.pending:
        state = endpoints_again(state, clusters.pending)  # they came before the proxy told of its endpoints
    return update(state, snapshot, now) if snapshot is not None else (state, ())


def answered(state: StreamState, request: Request) -> Push | None:
    """The response that a request answers, if it is one that was not answered before."""
    known = state.types.get(request.type_url)
    return known.pending if known and known.pending and known.pending.nonce == request.nonce else None


def words(push: Push, error: str) -> str:
    """What a proxy said of a response that it rejected, and of which secret, which it does not say itself."""
    text = error[:MAX_ERROR_LENGTH]
    return f"`{push.resources[0].name}`: {text}" if push.type_url in ALONE and push.resources else text


def update(state: StreamState, snapshot: Snapshot, now: float = 0.0) -> tuple[StreamState, tuple[Push, ...]]:
    """Say what to send now, in order. Call it for a new Snapshot, and when `due` says so."""
    pushes = []
    for type_url in state.types:
        if not state.types[type_url].has_all(snapshot.of(type_url)):
            state, push = advance(state, type_url, snapshot, now)
            pushes += [push] if push else []
    return state, tuple(pushes)


def due(state: StreamState, now: float = 0.0) -> float | None:
    """When `update` should be called though nothing has happened; None when there is no need."""
    times = [one.rejection.retry_at for one in state.types.values() if one.rejection] + [state.grace_until]
    return min((time for time in times if now < time < math.inf), default=None)


# ---- taking a request in


def _check(state: StreamState, request: Request) -> None:
    known = state.types.get(request.type_url)
    if known is None and len(state.types) >= MAX_TYPES:
        raise StreamError(f"more than {MAX_TYPES} types on one stream")
    if known is not None and not (request.subscribe or request.unsubscribe or request.initial_versions):
        return
    names = {*request.subscribe, *request.unsubscribe, *request.initial_versions}
    if any(len(name) > MAX_NAME_LENGTH for name in names):
        raise StreamError(f"a name longer than {MAX_NAME_LENGTH} characters")
    if len(names.union(known.names, known.asked) if known else names) > MAX_NAMES:
        raise StreamError(f"more than {MAX_NAMES} names of one type")


def _follows(request: Request) -> bool:
    """Whether who asks names listeners, as gRPC does: it asks for routes and clusters as they lead to them."""
    return request.type_url == LISTENER and bool(request.subscribe) and WILDCARD not in request.subscribe


def _open(request: Request) -> TypeState:
    """The first request of a type; no name at all means everything ("legacy wildcard")."""
    names = frozenset(request.subscribe) - {WILDCARD}
    wildcard = not request.subscribe or WILDCARD in request.subscribe
    has = {name: version for name, version in request.initial_versions.items() if wildcard or name in names}
    # what it already has needs no answer unless it changed
    return TypeState(wildcard, names, has, asked=names.difference(has), owed=not request.initial_versions)


def _subscribe(state: TypeState, request: Request) -> TypeState:
    """Apply the changes of subscription, whatever nonce the request carries."""
    if not request.subscribe and not request.unsubscribe:
        return state
    subscribed = frozenset(request.subscribe)
    gone = frozenset(request.unsubscribe) - subscribed
    wildcard = (state.wildcard or WILDCARD in subscribed) and WILDCARD not in gone
    names = (state.names | subscribed) - gone - {WILDCARD}
    asked = state.asked | (subscribed - {WILDCARD})
    if wildcard:
        asked |= gone - {WILDCARD}  # "*" still covers the name, so the proxy must be told what it is now
        return replace(state, wildcard=True, names=names, asked=asked, compared=None)
    return _forget(replace(state, wildcard=False, names=names, asked=asked))


def _forget(state: TypeState) -> TypeState:
    """Drop what is known of names that the proxy no longer wants, since it dropped them itself."""
    state = replace(state, compared=None)
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
    touched = push.touched()
    if request.error is None:
        after = _accepted(state, push, touched, now)
    else:
        after = replace(_rejected(state, push, request.error, now), pending=None, answered_at=now)
        # what was sent because it was asked for was not behind, and is now
        after = replace(after, behind=after.behind | touched)
    return after if all(map(after.wants, touched)) else _forget(after)


def _accepted(state: TypeState, push: Push, touched: set[str], now: float) -> TypeState:
    has = changed(state.has, push.removed, {one.name: one.version for one in push.resources})
    rejection = state.rejection and _without(state.rejection, touched - _refused_before(state.rejection, push))
    perhaps = state.perhaps - touched
    behind = (state.behind | touched) - _as_compared(state, push)
    return replace(state, has=has, perhaps=perhaps, rejection=rejection, pending=None, answered_at=now, behind=behind)


def _refused_before(rejection: Rejection, push: Push) -> set[str]:
    """What the proxy accepts of what it rejected, and does not use."""
    if push.type_url not in ALONE:
        return set()
    return {one.name for one in push.resources if rejection.content.get(one.name) == one.version}


def _as_compared(state: TypeState, push: Push) -> set[str]:
    """The names of a confirmed response that are as the Snapshot says which the proxy was last compared with."""
    there = state.compared
    if there is None:
        return set()
    came = {one.name for one in push.resources if (now := there.get(one.name)) and now.version == one.version}
    return came.union(name for name in push.removed if name not in there)


def _rejected(state: TypeState, push: Push, text: str, now: float) -> TypeState:
    """Envoy rejects a whole response but applies what is good in it: what became of each is unknown."""
    content = {one.name: one.version for one in push.resources} | dict.fromkeys(push.removed, UNKNOWN)
    has = {name: version for name, version in state.has.items() if name not in push.removed}
    has.update((one.name, UNKNOWN) for one in push.resources if one.name in has)
    perhaps = state.perhaps | (content.keys() - has.keys())
    before = state.rejection
    again = before is not None and any(before.content.get(name) == version for name, version in content.items())
    attempts = before.attempts + 1 if before and again else 1
    is_alone = push.type_url in ALONE
    wait = math.inf if is_alone else min(FIRST_BACKOFF * 2 ** (attempts - 1), LONGEST_BACKOFF)
    text = text[:MAX_ERROR_LENGTH]
    texts = {**(before.texts if before else {}), **dict.fromkeys(content if is_alone else (), text)}
    content = {**(before.content if before else {}), **content}
    refused = Rejection(text, now, now + wait, attempts, content, texts)
    return replace(state, has=has, perhaps=perhaps, rejection=refused)


def _without(rejection: Rejection, names: Iterable[str]) -> Rejection | None:
    """The rejection less those names; None when nothing of it is left."""
    gone = set(names)
    content = {name: version for name, version in rejection.content.items() if name not in gone}
    texts = {name: text for name, text in rejection.texts.items() if name not in gone}
    return replace(rejection, content=content, texts=texts) if content else None
