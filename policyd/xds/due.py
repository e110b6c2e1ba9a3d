"""Who is to be told of a change: noted from any thread, and told in the event loop after a quiet moment.

Law: many changes in a row are one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from policyd.xds.debounce import Debounce

T = TypeVar("T", bound=Hashable)


class Due(Generic[T]):
    """`tell` is called for each one whose moment has come; `clock` counts seconds and only goes forward."""

    def __init__(self, debounce: Debounce, clock: Callable[[], float], tell: Callable[[T], object]) -> None:
        self._debounce = debounce
        self._clock = clock
        self._tell = tell
        self._changed: deque[T] = deque()  # filled by whatever thread makes a change
        self._told = False  # the event loop knows that something changed
        self._waiting: set[T] = set()
        self._timer: asyncio.TimerHandle | None = None

    def note(self, one: T, loop: asyncio.AbstractEventLoop) -> None:
        """Something changed for one; from any thread."""
        self._changed.append(one)
        if not self._told:  # one call for all that a change concerns
            self._told = True
            loop.call_soon_threadsafe(self._gather)

    def awaits(self, one: T) -> bool:
        """Whether its moment is still to come."""
        return one in self._waiting or one in self._changed

    def cancel(self) -> None:
        """Nobody is told any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _gather(self) -> None:
        """A change came for some: they are due after a quiet moment."""
        self._told = False
        while self._changed:
            self._waiting.add(self._changed.popleft())
        now = self._clock()
        self._debounce = self._debounce.note(now)
        due = self._debounce.due()
        assert due is not None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due - now), self._release)

    def _release(self) -> None:
        """The moment has come for all that wait."""
        self._timer, self._debounce = None, self._debounce.done()
        waiting, self._waiting = self._waiting, set()
        for one in waiting:
            self._tell(one)
