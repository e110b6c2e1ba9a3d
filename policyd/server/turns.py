"""Checks answered by the thread of gRPC that reads them, a turn at a time: all that are there are decided, one commit
brings their records to the medium, then all replies go out.

Law: a call is made once, when its message has come, and no other thread is woken for it: waking one, and handing it the
interpreter, costs more than a decision that is remembered. Replies go out together, since whoever reads them is woken
once, too. Every call has a stack of its own (a greenlet), so that what it calls need not know that it may pause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

import grpc
import structlog
from greenlet import getcurrent, greenlet

from policyd.audit.group import Wake, sleep
from policyd.server.check_threads import CheckThreads
from policyd.server.inside_grpc import Begun, Behavior, begun, take_event
from policyd.server.silence import Silence, refuse

TURN_SECONDS: Final = 0.002  # how long the first of a turn waits for others to be decided
SPARE: Final = 256  # stacks that are kept for later: a new one costs more than a decision that is remembered

_log = structlog.get_logger(__name__)

Call = Callable[[], None]


class _Stack(greenlet):
    """That of one call after the other."""


class Turns:
    """A pool for one synchronous gRPC server, which is to be told by `serve`.

    Calls whose message comes as bytes are made in turns once `ready` says so, others by the threads of `others`; so
    are refusals, and what comes before. `commit` has those go on that wait for the medium; `stopwatch` tells seconds
    of no date.
    """

    def __init__(
        self,
        others: CheckThreads,
        silence: Silence,
        *,
        ready: Callable[[], bool],
        commit: Callable[[], object],
        stopwatch: Callable[[], float],
    ) -> None:
        self._others = others
        self._silence = silence
        self._ready = ready
        self._commit = commit
        self._stopwatch = stopwatch
        self._server: grpc.Server | None = None
        self._deciding = False  # in a turn, before its commit
        self._paused = 0
        self._woken: SimpleQueue[_Stack] = SimpleQueue()
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
            self._others.submit(call.make, None, _refused)
        else:
            self._silence.begins(call.context)
            call.listen(self._heard)

    def pause(self, begin: Callable[[Wake], None]) -> None:
        """Call `begin` and wait until what it was given is called; a call in a turn lets the others go on."""
        stack = getcurrent()
        if not isinstance(stack, _Stack):
            sleep(begin)
            return
        assert stack.parent is not None, "it was switched to"
        self._paused += 1
        try:
            begin(partial(self._woken.put, stack))
            stack.parent.switch()
        finally:
            self._paused -= 1

    def look(self) -> None:
        """Start more of the other threads if all are held up."""
        self._others.look()

    def shutdown(self) -> None:
        """End the other threads after what was submitted is done; the server has stopped."""
        self._others.shutdown()

    def _heard(self, call: Begun, message: bytes | None) -> None:
        self._silence.ends(call.context)
        if not self._ready():
            self._others.submit(call.make, message, _as_it_is)
            return
        self._begin(partial(call.make, message, self._together))
        if not self._deciding:
            self._turn()

    def _turn(self) -> None:
        """Take what is there, then have all go on that wait."""
        assert self._server is not None, "it was told"
        self._deciding, end = True, self._stopwatch() + TURN_SECONDS
        while self._paused and self._stopwatch() < end and take_event(self._server):
            pass
        self._deciding = False
        while self._paused:
            if self._woken.empty():
                self._commit()
            self._woken.get().switch()

    def _together(self, behavior: Behavior) -> Behavior:
        """What replies with others of its turn."""

        def reply(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            said = behavior(messages, context)
            if self._deciding:
                self.pause(_go_on)
            return said

        return reply

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


def _go_on(wake: Wake) -> None:
    wake()


def _as_it_is(behavior: Behavior) -> Behavior:
    return behavior


def _refused(_: Behavior) -> Behavior:
    return refuse
