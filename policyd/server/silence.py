"""Calls that have begun and say nothing: of each something waits for the message, so they are few and short.

Law: who is silent holds up itself and nobody else. Such a call ends after SILENT_SECONDS, and for a while its peer has
at most SILENT_PER_PEER at a time: the next one is refused at once. Envoys and agents send a call and its message
together. While nobody listens, nobody is silent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, NamedTuple, NoReturn, cast

import grpc
import structlog

from policyd.errors import PolicydError
from policyd.peer import Facts, spiffe_peer
from policyd.spiffe import SpiffeId

SILENT_PER_PEER: Final = 4
SILENT_SECONDS: Final = 0.5
SUSPECT_SECONDS: Final = 60.0

_log = structlog.get_logger(__name__)


class _Silent(NamedTuple):
    since: float  # of the seconds in which somebody listened
    context: grpc.ServicerContext


def one_message(messages: Iterator[bytes], context: grpc.ServicerContext, peer: SpiffeId) -> bytes:
    """The message of a call that has said what it says; ends one that has none."""
    body = next(messages, None)
    if body is None:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a call has one message, this one has none")
    return body


def refuse(_messages: Iterator[bytes], context: grpc.ServicerContext) -> NoReturn:
    """End a call of a peer of which too many are silent."""
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{SILENT_PER_PEER} of your calls have no message yet")


class Silence:
    """The calls of a server whose message has not come; `stopwatch` tells seconds of no date. Safe for threads."""

    def __init__(self, stopwatch: Callable[[], float]) -> None:
        self._stopwatch = stopwatch
        self._calls: dict[int, _Silent] = {}
        self._suspects: dict[SpiffeId, float] = {}  # until when
        self._deaf_since: float | None = None
        self._deaf = 0.0  # for so many seconds in all

    def message(self, messages: Iterator[bytes], context: grpc.ServicerContext, peer: SpiffeId) -> bytes:
        """The one message of a call of `peer`; ends the call where none comes, or where it has too many such calls."""
        if peer in self._suspects and self._has_too_many(peer):
            refuse(messages, context)
        self.begins(context)
        try:
            return one_message(messages, context, peer)
        finally:
            self.ends(context)

    def begins(self, context: grpc.ServicerContext) -> None:
        """A call has begun, without its message."""
        self._calls[id(context)] = _Silent(self._listened(), context)

    def ends(self, context: grpc.ServicerContext) -> None:
        """Its message has come, or never will."""
        del self._calls[id(context)]

    def refuses(self, context: grpc.ServicerContext) -> bool:
        """Whether too many calls of whoever began this one are silent."""
        if not self._suspects:
            return False
        peer = _peer_of(context)
        return peer is not None and peer in self._suspects and self._has_too_many(peer)

    def stop_listening(self) -> None:
        """Who takes messages does something else until it says that it listens: that time is not the callers'."""
        self._deaf_since = self._stopwatch()

    def listen(self) -> None:
        """Messages are taken again."""
        if self._deaf_since is not None:
            self._deaf += self._stopwatch() - self._deaf_since
            self._deaf_since = None

    @property
    def waiting(self) -> int:
        """How many calls say nothing now."""
        return len(self._calls)

    def look(self) -> None:
        """End the calls that have been silent for too long; call it now and then."""
        now = self._stopwatch()
        for peer, until in tuple(self._suspects.items()):
            if until < now:
                del self._suspects[peer]
        begun_before = self._listened() - SILENT_SECONDS
        silent = [call.context for call in tuple(self._calls.values()) if call.since < begun_before]
        for who, calls in Counter(map(_peer_of, silent)).items():  # however many there are, a line for each peer
            _log.warning("call.silent", peer=str(who or ""), calls=calls, seconds=SILENT_SECONDS)
            if who is not None:
                self._suspects[who] = now + SUSPECT_SECONDS
        for context in silent:
            context.cancel()

    def _listened(self) -> float:
        """The seconds in which somebody listened; a clock that stands while nobody does."""
        since = self._deaf_since
        return (self._stopwatch() if since is None else since) - self._deaf

    def _has_too_many(self, peer: SpiffeId) -> bool:
        """Whether so many of its calls are silent; looks at no more than that takes, as there may be very many."""
        found = (call for call in tuple(self._calls.values()) if _peer_of(call.context) == peer)
        return sum(1 for _ in islice(found, SILENT_PER_PEER)) == SILENT_PER_PEER


def _peer_of(context: grpc.ServicerContext) -> SpiffeId | None:
    """Who began a call; None for who would be refused."""
    try:
        return spiffe_peer(cast("Facts", context.auth_context()))
    except PolicydError:
        return None
