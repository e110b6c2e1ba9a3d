"""Calls that have begun and say nothing: a thread waits for the message of each, so they are few and short.

Law: who is silent holds up itself and nobody else. A peer has at most SILENT_PER_PEER such calls, the next of which is
refused at once, and each ends after SILENT_SECONDS. Envoy sends a call and its message together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import grpc
import structlog

from policyd.spiffe import SpiffeId

SILENT_PER_PEER: Final = 4
SILENT_SECONDS: Final = 0.5
LATE_SECONDS: Final = 0.1  # a message that is under way is here by then, also on a busy machine

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

    def message(self, messages: Iterator[bytes], context: grpc.ServicerContext, peer: SpiffeId) -> bytes:
        """The one message of a call of `peer`; ends the call where none comes, or where it has too many such calls."""
        if len(self._calls) >= SILENT_PER_PEER and self._late(peer) >= SILENT_PER_PEER:
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

    def look(self) -> None:
        """End the calls that have been silent for too long; call it now and then."""
        oldest = self._stopwatch() - SILENT_SECONDS
        for call in tuple(self._calls.values()):
            if call.since < oldest:
                _log.warning("check.silent", peer=str(call.peer), seconds=SILENT_SECONDS)
                call.context.cancel()

    def _late(self, peer: SpiffeId) -> int:
        oldest = self._stopwatch() - LATE_SECONDS
        return sum(call.peer == peer and call.since < oldest for call in tuple(self._calls.values()))
