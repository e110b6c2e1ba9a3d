"""Puts in force which instances answer: what agents say is kept, and the mesh follows it, and time.

Law: nothing of what is declared changes by it, and no decision: only where callers are led.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import structlog

from policyd.mesh import health
from policyd.mesh.eras import Lost
from policyd.mesh.health import Book
from policyd.mesh.model import Mesh
from policyd.sources.state import write_private
from policyd.spiffe import SpiffeId

MAX_BYTES: Final = 4 << 20
_REVOKED: Final = "its identity is revoked"
_log = structlog.get_logger("policyd.server")


class Metrics(Protocol):
    """What is counted: names.INSTANCES_UNHEALTHY."""

    def instances_unhealthy(self, count: int, /) -> None:
        """So many instances are probed and not reached."""


class Liveness:
    """For the loop's own thread, but for `troubles` and `applied`; `file` keeps who answered for the next start."""

    def __init__(
        self,
        file: Path,
        *,
        clock: Callable[[], float],
        metrics: Metrics,
        revoked: Callable[[], frozenset[SpiffeId]] = frozenset,
        lost: Callable[[], frozenset[Lost]] = frozenset,
    ) -> None:
        self._file = file
        self._revoked = revoked
        self._lost = lost
        self._clock = clock
        self._metrics = metrics
        self._book: Book = health.resumed(_load(file), clock())
        self._left: frozenset[str] = frozenset()
        self._told: Mapping[str, str] = {}
        self._woken = asyncio.Event()
        self._looked = asyncio.Event()
        self._in_force: Callable[[], Mesh] | None = None

    def hear(self, said: Mapping[str, tuple[bool, str]]) -> None:
        """An agent says which instances answer, and why others do not."""
        before, now = self._book, self._clock()
        self._book = health.heard(before, said, now)
        known = {name for name, word in before.items() if now < word.until}
        if any(name not in known or (before[name].healthy, before[name].reason) != word for name, word in said.items()):
            self._woken.set()

    async def turn(self, leaving: Iterable[str], back: Iterable[str]) -> bool:
        """An agent says whose sidecars end, and whose are back; returns when that is in force: whether it is news."""
        if self._in_force is None:
            return False
        before, self._left = self._left, health.turned(self._left, self._in_force(), leaving, back)
        if self._left == before:
            return False
        while self.applied(mesh := self._in_force()) is not mesh:
            self._woken.set()
            await self._looked.wait()
        return True

    def wake(self) -> None:
        """Another mesh may be in force now."""
        self._woken.set()

    def troubles(self, mesh: Mesh) -> Mapping[str, str]:
        """The instances of a mesh that are not to be reached, and why."""
        out = self._revoked()
        revoked = {name: _REVOKED for name, one in mesh.instances.items() if one.workload in out}
        return {**health.troubles(self._book, mesh, self._clock(), self._left), **revoked}

    def applied(self, mesh: Mesh) -> Mesh:
        """A mesh that leads to no instance that does not answer, and expects nobody who is revoked. For any thread."""
        living = health.with_health(mesh, self.troubles(mesh))
        return health.with_revoked(living, self._revoked(), self._lost())

    async def run(self, mesh: Callable[[], Mesh], changed: Callable[[], Awaitable[object]]) -> None:
        """For ever: look whenever something new was said, or the last word is too long ago.

        `mesh` is the one in force; `changed` puts another in force, which it has from `applied`.
        """
        self._in_force = mesh
        while True:
            self._woken.clear()
            now = mesh()
            self._book = health.of_mesh(self._book, now, self._clock())
            self._left &= now.instances.keys()
            troubles = self.troubles(now)
            self._tell(troubles)
            if self.applied(now) is not now:
                await changed()
                await asyncio.to_thread(self._keep, now)
            self._looked.set()
            self._looked = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(health.next_change(self._book, self._clock())):
                    await self._woken.wait()

    def _tell(self, troubles: Mapping[str, str]) -> None:
        self._metrics.instances_unhealthy(len(troubles))
        for name in sorted(troubles.keys() - self._told.keys()):
            _log.warning("instance.unhealthy", instance=name, reason=troubles[name])
        for name in sorted(self._told.keys() - troubles.keys()):
            _log.info("instance.healthy", instance=name)
        self._told = troubles

    def _keep(self, mesh: Mesh) -> None:
        out = self.troubles(mesh)
        healthy = sorted(name for name, one in mesh.instances.items() if one.probe is not None and name not in out)
        with suppress(OSError):  # the next start then waits until it hears of them
            write_private(self._file, json.dumps({"healthy": healthy}).encode())


def _load(file: Path) -> list[str]:
    """Who answered before; what is broken is as if it were not there."""
    try:
        found = json.loads(file.read_bytes()[:MAX_BYTES])["healthy"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
