"""That something changed, told to all who wait: a number that grows and an event a change.

Law: a waiter says what it has seen, so that a change between looking and waiting is never missed; many
changes while it was busy are one.
"""

from __future__ import annotations

import asyncio


class Changes:
    """For one event loop; `announce` is called in it."""

    def __init__(self) -> None:
        self._number = 0
        self._event = asyncio.Event()

    @property
    def number(self) -> int:
        """How many changes there were."""
        return self._number

    def announce(self) -> None:
        """Wake all who wait."""
        self._number += 1
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def after(self, seen: int) -> int:
        """Wait until there were more than `seen` changes; returns how many."""
        while self._number <= seen:
            await self._event.wait()
        return self._number
