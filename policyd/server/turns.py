"""Checks answered by the thread of gRPC that reads them, a turn at a time: all that are there are decided, their
records are kept together, then all replies go out.

Law: a call is made once, when its message has come, and no other thread is woken for it: waking one, and handing it the
interpreter, costs more than a decision that is remembered. Whoever reads the replies is woken once a turn, too. Every
call has a stack of its own (a greenlet) on which it waits for its record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import grpc
import structlog
from greenlet import getcurrent, greenlet

from policyd.audit.record import Entry
from policyd.server.check_threads import CheckThreads
from policyd.server.inside_grpc import Begun, begun, take_event
from policyd.server.silence import Silence, refuse

TURN_SECONDS: Final = 0.002  # how long the first of a turn waits for others to be decided
SPARE: Final = 256  # stacks that are kept for later: a new one costs more than a decision that is remembered

_log = structlog.get_logger(__name__)

Call = Callable[[], None]
Outcome = Exception | None


class _Stack(greenlet):
    """That of one call after the other."""


class Turns:
    """A pool for one synchronous gRPC server, which is to be told by `serve`.

    Calls whose message comes as bytes are made in turns once `ready` says so, others by the threads of `others`; so
    are refusals, and what comes before. `keep_all` keeps the entries of a turn, and says of each what is raised to the
    call that had it, if anything; `stopwatch` tells seconds of no date.
    """

    def __init__(
        self,
        others: CheckThreads,
        silence: Silence,
        *,
        ready: Callable[[], bool],
        keep_all: Callable[[Sequence[Entry]], Sequence[Outcome]],
        stopwatch: Callable[[], float],
    ) -> None:
        self._others = others
        self._silence = silence
        self._ready = ready
        self._keep_all = keep_all
        self._stopwatch = stopwatch
        self._server: grpc.Server | None = None
        self._in_turn = False
        self._entries: list[Entry] = []
        self._stacks: list[_Stack] = []  # which wait for these to be kept
        self._call: Call | None = None  # what the stack that is switched to begins with
        self._spare: list[_Stack] = []

    def serve(self, server: grpc.Server) -> None:
        """Which server this is the pool of; before it starts."""
        self._server = server

    def submit(self, run: Callable[..., object], *arguments: Any) -> None:
        """Have a call made: when its message has come, or by another thread at once."""
        call = begun(run, arguments)
        if call is None:
            self._others.submit(run, *arguments)
        elif self._silence.refuses(call.context):
            self._others.submit(call.make, None, refuse)
        else:
            self._silence.begins(call.context)
            call.listen(self._heard)

    def keep(self, entry: Entry) -> None:
        """Return when `entry` is kept: with those of its turn. Raises what keeps it from being so."""
        stack = getcurrent()
        if isinstance(stack, _Stack):
            assert stack.parent is not None, "it was switched to"
            self._entries.append(entry)
            self._stacks.append(stack)
            outcome: Outcome = stack.parent.switch()
        else:
            [outcome] = self._keep_all([entry])
        if outcome is not None:
            raise outcome

    def look(self) -> None:
        """Start more of the other threads if all are held up."""
        self._others.look()

    def shutdown(self) -> None:
        """End the other threads after what was submitted is done; the server has stopped."""
        self._others.shutdown()

    def _heard(self, call: Begun, message: bytes | None) -> None:
        self._silence.ends(call.context)
        if not self._ready():
            self._others.submit(call.make, message)
            return
        self._begin(partial(call.make, message))
        if not self._in_turn:
            self._turn()

    def _turn(self) -> None:
        """Decide what is there, have the records kept, and let the replies go out."""
        assert self._server is not None, "it was told"
        self._in_turn, end = True, self._stopwatch() + TURN_SECONDS
        try:
            while self._entries and self._stopwatch() < end and take_event(self._server):
                pass
        finally:
            self._answer()
            self._in_turn = False

    def _answer(self) -> None:
        while self._entries:
            entries, self._entries = self._entries, []
            stacks, self._stacks = self._stacks, []
            for stack, outcome in zip(stacks, self._kept(entries), strict=True):
                stack.switch(outcome)

    def _kept(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        self._silence.stop_listening()
        try:
            return self._keep_all(entries)
        except Exception as error:  # noqa: BLE001  # it is told to those who wait
            return [error] * len(entries)
        finally:
            self._silence.listen()

    def _begin(self, call: Call) -> None:
        self._call = call
        stack = self._spare.pop() if self._spare else _Stack(self._calls)
        stack.switch()

    def _calls(self) -> None:
        """Make one call after the other, each after a switch to this stack."""
        stack = getcurrent()
        assert isinstance(stack, _Stack), "it was made as one"
        assert stack.parent is not None, "it was switched to"
        while True:
            self._make()
            if len(self._spare) == SPARE:
                return
            self._spare.append(stack)
            stack.parent.switch()

    def _make(self) -> None:
        call, self._call = self._call, None  # which no stack that is spare keeps
        assert call is not None, "a call begins"
        try:
            call()
        except Exception:  # noqa: BLE001  # it must not end the thread that reads
            _log.exception("check.fault")
