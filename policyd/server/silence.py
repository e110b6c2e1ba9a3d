"""Calls that have begun and say nothing: a thread waits for the message of each, so they are few and short.

Law: who is silent holds up itself and nobody else. Such a call ends after SILENT_SECONDS, and for a while its peer has
at most SILENT_PER_PEER at a time: the next one is refused at once. Envoys and agents send a call and its message
together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import grpc
import structlog

from policyd.spiffe import SpiffeId

SILENT_PER_PEER: Final = 4
SILENT_SECONDS: Final = 0.5
SUSPECT_SECONDS: Final = 60.0

_log = structlog.get_logger(__name__)


class _Silent(NamedTuple):
    peer: SpiffeId
    since: float
    context: grpc.ServicerContext


class Silence:
    """The calls of a server whose message has not come; `stopwatch` tells seconds of no date. Safe for threads."""

    def __init__(self, stopwatch: Callable[[], float]) -> None:
        self._stopwatch = stopwatch
        self._calls: dict[int, _Silent] = {}
        self._suspects: dict[SpiffeId, float] = {}  # until when

    def message(self, messages: Iterator[bytes], context: grpc.ServicerContext, peer: SpiffeId) -> bytes:
        """The one message of a call of `peer`; ends the call where none comes, or where it has too many such calls."""
        if peer in self._suspects and self._silent(peer) >= SILENT_PER_PEER:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{SILENT_PER_PEER} of your calls have no message yet")
        key = id(context)
        self._calls[key] = _Silent(peer, self._stopwatch(), context)
        try:
            body = next(messages, None)
        finally:
            del self._calls[key]
        if body is None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a call has one message, this one has none")
        return body

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
                _log.warning("call.silent", peer=str(call.peer), seconds=SILENT_SECONDS)
                self._suspects[call.peer] = now + SUSPECT_SECONDS
                call.context.cancel()

    def _silent(self, peer: SpiffeId) -> int:
        return sum(call.peer == peer for call in tuple(self._calls.values()))
