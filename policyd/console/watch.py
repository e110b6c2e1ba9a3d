"""Looks at the mesh, one after another, and the last of them kept: what a range of time is told from.

Law: memory is bounded by edges, not by time. The newest looks are kept all, older ones at greater distances; a proxy
that does not answer is told, and keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from policyd.console.source import Seen
from policyd.errors import PolicydError

WATCHED_SECONDS: Final = 2.0  # between two looks while somebody looks at the graph
ALONE_SECONDS: Final = 15.0
NEWEST: Final = 20  # looks that are all kept
APART_SECONDS: Final = 30.0  # between those that are older
OLDEST_SECONDS: Final = 24 * 3600.0 + 100.0
FEWEST: Final = 4  # looks that a time is parted into at least, however many edges each has
MAX_EDGES: Final = 20_000  # of all looks together


@dataclass(frozen=True, slots=True)
class Stretch:
    """Two looks, between which something happened."""

    before: Seen
    now: Seen

    @property
    def seconds(self) -> float:
        """How long it was."""
        return max(self.now.at - self.before.at, 0.001)


def kept(looks: list[Seen]) -> list[Seen]:
    """Of looks, the oldest first, those that are kept: the older, the farther apart, and the more edges, the fewer."""
    newest = looks[-NEWEST:]
    now, parts = newest[-1].at, max(MAX_EDGES / max(len(newest[-1].look), 1) / 10, FEWEST)
    older: list[Seen] = []
    for one in looks[:-NEWEST]:
        age = now - one.at
        apart = max(APART_SECONDS, age / parts)
        if age <= OLDEST_SECONDS and (not older or one.at - older[-1].at >= apart):
            older.append(one)
    all_of_them = [*older, *newest]
    edges = 0
    for at in range(len(all_of_them) - 1, -1, -1):
        edges += len(all_of_them[at].look)
        if edges > MAX_EDGES and at < len(all_of_them) - 2:
            return all_of_them[at + 1 :]
    return all_of_them


class Watch:
    """Looks again and again; `see` blocks, and is called in a thread."""

    def __init__(self, see: Callable[[], Seen], clock: Callable[[], float] = time.monotonic) -> None:
        self.trouble = "no look has ended yet"
        self.watchers = 0
        self.number = 0  # of the last look
        self._see = see
        self._clock = clock
        self._looks: list[Seen] = []
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()

    def stretch(self, seconds: float, ended: float = 0.0) -> Stretch | None:
        """About so many seconds that ended so many ago, or the nearest to it that was seen; None before two looks."""
        if len(self._looks) < 2:
            return None
        last = self._clock() - ended
        behind = [one for one in self._looks[1:] if one.at <= last] if ended else self._looks
        now = behind[-1] if behind else self._looks[1]
        before = [one for one in self._looks if one.at < now.at]
        first = next((one for one in reversed(before) if now.at - one.at >= seconds * 0.9), before[0])
        return Stretch(first, now)

    def ago(self, look: Seen) -> float:
        """How many seconds a look is old."""
        return max(self._clock() - look.at, 0.0)

    async def run(self) -> None:
        """Look, without end."""
        while True:
            await self.look()
            ended = self._clock()
            if not self.watchers and len(self._looks) > 1:
                self._hurry.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), ALONE_SECONDS)
            await asyncio.sleep(max(ended + WATCHED_SECONDS - self._clock(), 0))

    async def look(self) -> None:
        """Look once; what keeps us from it is told, and the looks before are kept."""
        try:
            seen = await asyncio.to_thread(self._see)
        except (PolicydError, OSError) as error:
            self.trouble = str(error)
        else:
            self.trouble = ""
            self.number += 1
            self._looks = kept([*self._looks, seen])
        self._news.set()
        self._news = asyncio.Event()

    async def next(self) -> None:
        """Wait for the end of a look; whoever waits makes looks come sooner."""
        self.watchers += 1
        self._hurry.set()
        try:
            await self._news.wait()
        finally:
            self.watchers -= 1
