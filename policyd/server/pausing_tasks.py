"""Calls that pause while the journal's medium works: the event loop goes on with others meanwhile.

Law: a call runs in the loop's thread alone, and only where it pauses do others come in between; so it holds nothing
there that they may want. What was begun is finished, also where nobody waits for it any more. Each call has a stack of
its own (a greenlet), so that what it calls need not know that it may pause.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

from policyd.audit.group import Wake, sleep

Result = TypeVar("Result")
Begin = Callable[[Wake], None]


class _Stack(greenlet):
    """One that may be left while what it waits for is under way."""


class PausingTasks:
    """Makes calls on `loop`. Those that are woken together go on in one turn of it: waking a loop costs a system call,
    and what waits for the same commit is many.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._mutex = threading.Lock()
        self._woken: list[Callable[[], None]] = []

    async def run(self, call: Callable[[], Result]) -> Result:
        """What `call` returns or raises; it may `pause`."""
        stack, outcome = _Stack(call), self._loop.create_future()
        self._go_on(stack, outcome)
        result: Result = await outcome
        return result

    def _go_on(self, stack: _Stack, outcome: asyncio.Future[Any]) -> None:
        try:
            said = stack.switch()
        except Exception as error:  # noqa: BLE001  # it is told to whoever waits
            if not outcome.done():
                outcome.set_exception(error)
            return
        if not stack.dead:
            said(partial(self._wake, partial(self._go_on, stack, outcome)))
        elif not outcome.done():
            outcome.set_result(said)

    def _wake(self, step: Callable[[], None]) -> None:
        """From any thread."""
        with self._mutex:
            self._woken.append(step)
            first = len(self._woken) == 1
        if first:  # else a turn is due that takes this one along
            self._loop.call_soon_threadsafe(self._turn)

    def _turn(self) -> None:
        with self._mutex:
            woken, self._woken = self._woken, []
        for step in woken:
            step()


def can_pause() -> bool:
    """Whether who calls is on such a stack."""
    here = getcurrent()
    return isinstance(here, _Stack) and here.parent is not None


def pause(begin: Begin) -> None:
    """Call `begin` and wait until what it was given is called, from any thread; who is on no such stack sleeps."""
    here = getcurrent()
    if isinstance(here, _Stack) and here.parent is not None:
        here.parent.switch(begin)
    else:
        sleep(begin)
