"""policyd is told of sidecars that are to end, so that callers are led elsewhere before, and of those that serve.

Law: nothing that goes wrong here keeps the agent from ending, or lasts longer than its bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from typing import Final

from policyd.errors import PolicydError
from proxy.events import SidecarStatus
from proxy.lifecycle import Phase
from proxy.outside import Outside

LONGEST: Final = 3.0  # seconds that leaving may take; policyd answers sooner
TOGETHER: Final = 0.05  # sidecars that become ready together are told of together
FIRST_WAIT: Final = 1.0  # after a word that did not arrive

Tell = Callable[[Collection[str], Collection[str]], Awaitable[None]]


class Leaving:
    """`look` after every change of a status, `run` in a task; `leave` once, at the end.

    `tell` says who leaves and who is back.
    """

    def __init__(self, tell: Tell, outside: Outside) -> None:
        self._tell = tell
        self._outside = outside
        self._ready: frozenset[str] = frozenset()
        self._owed: set[str] = set()
        self._news = asyncio.Event()

    def look(self, statuses: Iterable[SidecarStatus]) -> None:
        """Owe a word of each sidecar that has become ready."""
        ready = frozenset(one.instance for one in statuses if one.state == Phase.READY.value)
        fresh, self._ready = ready - self._ready, ready
        self._owed = (self._owed | fresh) & ready
        if fresh:
            self._news.set()

    async def run(self) -> None:
        """Tell who is ready, for ever."""
        while True:
            await self._news.wait()
            await self._outside.sleep(TOGETHER)
            self._news.clear()
            back = sorted(self._owed)
            try:
                if back:
                    await self._tell((), back)
                    self._outside.say("agent.back", instances=back)
                self._owed.difference_update(back)
            except PolicydError:
                await self._outside.sleep(FIRST_WAIT)
                self._news.set()

    async def leave(self) -> None:
        """Have callers led away from all sidecars that serve; returns when they are, or when it takes too long."""
        leaving = sorted(self._ready)
        if not leaving:
            return
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(LONGEST):
                    await self._tell(leaving, ())
            self._outside.say("agent.left", instances=leaving)
        except PolicydError as error:
            self._outside.say("agent.not_left", code=error.code, reason=str(error))
