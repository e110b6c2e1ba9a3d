"""Calls that have begun and say nothing: a thread waits for the message of each, so they are few and short.

Law: who is silent holds up itself and nobody else. Such a call ends after SILENT_SECONDS, and for a while its peer has
at most SILENT_PER_PEER at a time: the next one is refused at once. Envoys and agents send a call and its message
together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    since: float
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

    def message(self, messages: Iterator[bytes], context: grpc.ServicerContext, peer: SpiffeId) -> bytes:
        """The one message of a call of `peer`; ends the call where none comes, or where it has too many such calls."""
        if peer in self._suspects and self._silent(peer) >= SILENT_PER_PEER:
            refuse(messages, context)
        self.begins(context)
        try:
            return one_message(messages, context, peer)
        finally:
            self.ends(context)

    def begins(self, context: grpc.ServicerContext) -> None:
        """A call has begun, without its message."""
        self._calls[id(context)] = _Silent(self._stopwatch(), context)

    def ends(self, context: grpc.ServicerContext) -> None:
        """Its message has come, or never will."""
        del self._calls[id(context)]

    def refuses(self, context: grpc.ServicerContext) -> bool:
        """Whether too many calls of whoever began this one are silent."""
        if not self._suspects:
            return False
        peer = _peer_of(context)
        return peer in self._suspects and self._silent(peer) >= SILENT_PER_PEER

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
        for call in tuple(self._calls.values()):
            if call.since < now - SILENT_SECONDS:
                who = _peer_of(call.context)
                _log.warning("call.silent", peer=str(who or ""), seconds=SILENT_SECONDS)
                if who is not None:
                    self._suspects[who] = now + SUSPECT_SECONDS
                call.context.cancel()

    def _silent(self, peer: SpiffeId) -> int:
        return sum(_peer_of(call.context) == peer for call in tuple(self._calls.values()))


def _peer_of(context: grpc.ServicerContext) -> SpiffeId | None:
    """Who began a call; None for who would be refused."""
    try:
        return spiffe_peer(cast("Facts", context.auth_context()))
    except PolicydError:
        return None
