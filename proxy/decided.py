"""What one Envoy decides by itself, as it writes of it: taken, counted, put into the spool, sent to policyd.

Law: the agent reads no more of what is told than how much it is, and changes nothing of it. What is lost on the way is
said on the same way, as soon as something gets through again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from policyd._pb import agent_pb2
from policyd.decision_line import END, ended_at
from policyd.errors import StateError
from proxy.outside import Outside
from proxy.spool import Spool

NEARLY: Final = 500_000  # microseconds by which lines that are written together may be out of order
FULL: Final = "the agent's spool is full"
NO_DISK: Final = "the agent's disk takes no more"
SPOILED: Final = "the agent's disk has not given back what it took"
CRASHED: Final = "its Envoy has ended by itself, and may not have told its last decisions"
KILLED: Final = "its agent has ended by itself, and its Envoy with it, which may not have told its last decisions"
UNASKED: Final = "its Envoy has ended and had not said how many decisions it made: it may not have told its last"
NOT_TOLD: Final = "Envoy counts more decisions than it told"
SILENT: Final = "Envoy counts decisions and has told none of them: is it as new as policyd?"


@dataclass(slots=True)
class Lost:
    """How many decisions are not on record, and why the first of them."""

    count: int = 0
    why: str = ""
    silent: bool = False


class Decided:
    """The decisions of one instance's Envoy; `opened` gives its spool, `changed` is called when it has something."""

    def __init__(
        self, instance: str, opened: Callable[[], Spool], outside: Outside, changed: Callable[[], None]
    ) -> None:
        self.instance = instance
        self.spool: Spool | None = None  # none until something is told
        self._opened = opened
        self.process = 0  # which Envoy it is, counted
        self.arrived = 0  # decisions of this Envoy, whether they could be kept or not
        self.missed = 0  # and those that it has counted and not told
        self.away = False  # policyd has not taken what is in the spool for a while
        self.held = False  # whether some has been left unread since the moment that is watched
        self._runs = False
        self._say = outside.say
        self._changed = changed
        self._lost = Lost()
        self._moment = 0  # microseconds of the clock; 0: nobody asks
        self._later = 0

    def watch(self, moment: int) -> None:
        """Tell apart from now on what ended after a moment."""
        self._moment, self._later, self.held = moment, 0, False

    @property
    def fill(self) -> float:
        """How full the spool is, 1 where nothing more goes in."""
        return 0.0 if self.spool is None else self.spool.fill

    @property
    def before(self) -> int:
        """How many have been told that had ended at the moment, as far as each says when."""
        return self.arrived - self._later

    def fresh(self) -> None:
        """Another Envoy starts, which counts from 0."""
        self.process, self.arrived, self.missed = self.process + 1, 0, 0
        self._runs = True

    def crashed(self) -> None:
        """Its Envoy has ended by itself: what it had not told yet is gone, and nobody knows how much that is."""
        self._gone(CRASHED)

    def ended(self, counted: int | None) -> None:
        """It was ended, and had counted so many decisions, None if it did not say; called after a crash says nothing.

        All that it had told has been taken.
        """
        if counted is None or not self._runs:
            self._gone(UNASKED)
            return
        if (missing := counted - self.arrived - self.missed) > 0:
            self.missed += missing
            self.lose(missing, NOT_TOLD)
        self._over()

    def _gone(self, why: str) -> None:
        if self._runs and self.arrived:
            self._lost.why = self._lost.why or why
            self._confess()
        self._over()

    def _over(self) -> None:
        """Nobody tells any more; what is still to be said stays marked, for the next agent."""
        self._runs = False
        if self.spool is not None and not self._lost.why:
            self.spool.over()

    def left(self, spool: Spool) -> None:
        """An earlier agent has left this; if it did not end it, that is said as of an Envoy that has `crashed`."""
        self.spool = spool
        if spool.was_cut:
            self._lost.why = self._lost.why or KILLED
            self._confess()
            if not self._lost.why:  # it is said, and not before
                spool.over()

    def take(self, lines: bytes, count: int) -> None:
        """Put what was told into the spool."""
        if self._moment:
            self._later += self._after(lines)
        self.arrived += count
        if self._lost.why:
            self._confess()
        if why := self._add(agent_pb2.Told(lines=lines)):
            self.lose(count, why)
        self._changed()

    def _after(self, lines: bytes) -> int:
        """How many of them ended after the moment; they begin with what ended first, or nearly."""
        told = lines.removesuffix(END).split(END)
        if _ended_at(told[0]) > self._moment + NEARLY:
            return len(told)
        return sum(_ended_at(one) > self._moment for one in told)

    def lose(self, count: int, why: str) -> None:
        """So many are not on record."""
        if not self._lost.why:
            self._say("sidecar.decisions_lost", instance=self.instance, reason=why)
            self._lost.why = why
        self._lost.count += count
        self._confess()

    def miss(self, count: int, why: str) -> None:
        """Its Envoy has counted so many and will not tell them."""
        self.missed += count
        self._lost.silent = not self.arrived
        self.lose(count, why)

    def done(self) -> None:
        """Its agent ends, and no Envoy tells any more: what is still to be said is, whether there is room or not."""
        if self._lost.why:
            self._confess(beyond=True)
        self._over()

    def _confess(self, *, beyond: bool = False) -> None:
        """Say what was lost, in its place among what is told."""
        told = agent_pb2.Told(lost=self._lost.count, why=self._lost.why, silent=self._lost.silent)
        if not self._add(told, beyond=beyond):
            self._lost = Lost()
            self._changed()

    def _add(self, told: agent_pb2.Told, *, beyond: bool = False) -> str:
        try:
            if self.spool is None:
                self.spool = self._opened()
            if told.lines:
                self.spool.telling()
            return "" if self.spool.add(told.SerializeToString(), beyond=beyond) is not None else FULL
        except (OSError, StateError):
            return NO_DISK


def _ended_at(line: bytes) -> int:
    """When a request ended, in microseconds; 0, which is before every moment, of what is no line."""
    try:
        return ended_at(line)
    except ValueError:
        return 0


class Wake:
    """An event that may be set from anywhere in the loop, and is waited for by one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def __call__(self) -> None:
        """There is something."""
        self._event.set()

    async def wait(self) -> None:
        """Return when there is."""
        await self._event.wait()
        self._event.clear()
