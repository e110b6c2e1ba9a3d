"""Keeps the issuers' keys fresh while the server runs; new ones take effect as any other change of the folder does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

import structlog

from policyd.sources.files import Folder, digest
from policyd.sources.key_sets import FetchFailed, KeySets, fetch

AT_ONCE: Final = 8
_log = structlog.get_logger("policyd.server")


class Metrics(Protocol):
    """What is counted: names.KEY_FETCHES, names.KEY_SETS_FAILING."""

    def keys_fetched(self, outcome: str, /) -> None:
        """One URI was asked: `new`, `same` or `failed`."""

    def keys_failing(self, count: int, /) -> None:
        """So many URIs could not be fetched the last time."""


def with_keys(folder: Folder, sets: KeySets) -> Folder:
    """A folder to which the keys that were fetched belong, by their URIs."""
    fetched = sets.texts()
    if not fetched:
        return folder
    return replace(folder, texts={**folder.texts, **fetched}, digest=digest({**fetched, "": folder.digest}))


class KeyFetching:
    """Fetches what is `wanted` (URIs, and the seconds that each may take), and says so when keys have `changed`."""

    def __init__(
        self,
        sets: KeySets,
        *,
        wanted: Callable[[], Mapping[str, float]],
        changed: Callable[[], Awaitable[object]],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sets = sets
        self._wanted = wanted
        self._changed = changed
        self._metrics = metrics
        self._clock = clock
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Other URIs may be wanted now. For the loop's own thread."""
        self._woken.set()

    async def run(self) -> None:
        """Fetch for ever."""
        while True:
            self._woken.clear()
            wanted = self._wanted()
            self._sets.want(wanted)
            due = self._sets.due(self._clock())[:AT_ONCE]
            new = await asyncio.gather(*(self._fetched(uri, wanted[uri]) for uri in due))
            self._metrics.keys_failing(len(list(self._sets.problems())))
            if any(new):
                await self._changed()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._sets.pause(self._clock())):
                    await self._woken.wait()

    async def _fetched(self, uri: str, seconds: float) -> bool:
        """Whether there are new keys."""
        try:
            is_new = self._sets.took(uri, await fetch(uri, seconds), self._clock())
        except FetchFailed as error:
            self._sets.missed(uri, error.message, self._clock())
            self._metrics.keys_fetched("failed")
            _log.warning("keys.not_fetched", uri=uri, error=error.message)
            return False
        self._metrics.keys_fetched("new" if is_new else "same")
        if is_new:
            _log.info("keys.fetched", uri=uri)
        return is_new
