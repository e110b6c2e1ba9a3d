"""Keeps programs running: start, look until healthy, restart with back-off, end in order.

Law: the lives are values (life.py) and this is their thin shell. After `stop` nothing that was started runs.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policyd.cli import life as lives
from policyd.cli.child import Child, Program, start
from policyd.cli.child_log import ChildLog
from policyd.cli.guardian import Guardian
from policyd.cli.life import Life, Limits, Phase
from policyd.errors import ChildError, PolicydError

PROBE_SECONDS: Final = 0.1
LAST_LINES: Final = 12


def _spread() -> float:
    return random.uniform(-1.0, 1.0)  # noqa: S311 - spreads waits, guards nothing


@dataclass(slots=True)
class _Kept:
    """A program, its life and its task."""

    program: Program
    log: ChildLog
    life: Life
    task: asyncio.Task[None] | None = None
    child: Child | None = None


class Supervisor:
    """Programs by name, their logs in the folder `logs`; `changed` is called after every change of a life.

    `runs` is told the process of each program once it is started, and 0 when that has ended.
    """

    def __init__(
        self,
        logs: Path,
        changed: Callable[[str, Life], None] = lambda name, life: None,
        runs: Callable[[str, int], None] = lambda name, pid: None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        spread: Callable[[], float] = _spread,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logs = logs
        self._changed = changed
        self._runs = runs
        self._limits = limits
        self._spread = spread
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._news = asyncio.Event()
        self._guardian = Guardian()

    @property
    def lives(self) -> Mapping[str, Life]:
        """The life of each program."""
        return {name: kept.life for name, kept in self._kept.items()}

    def run(self, program: Program) -> None:
        """Start `program` and keep it running until `stop`."""
        log = ChildLog(self._logs / f"{program.name}.log", program.listen)
        kept = _Kept(program, log, Life(since=self._clock()))
        self._kept[program.name] = kept
        kept.task = asyncio.create_task(self._keep(kept), name=program.name)
        kept.task.add_done_callback(lambda _: self._news.set())

    async def healthy(self, names: Iterable[str], deadline: float) -> None:
        """Wait until all of `names` are healthy.

        Raises ChildError, with the last lines of its log, for one that was given up or is not healthy at `deadline`
        (of the clock).
        """
        wanted = list(names)
        while True:
            self._news.clear()
            self._raise_unforeseen()
            awaited = [name for name in wanted if self._kept[name].life.phase is not Phase.HEALTHY]
            if not awaited:
                return
            lost = [name for name in awaited if self._kept[name].life.phase is Phase.GAVE_UP]
            if lost:
                raise self._given_up(lost[0])
            left = deadline - self._clock()
            if left <= 0:
                raise self._too_late(awaited)
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except TimeoutError:
                continue

    async def stop(self, names: Iterable[str]) -> None:
        """End these programs at once, each within its grace; unknown names are passed over."""
        ending = [self._kept[name] for name in names if name in self._kept]
        await asyncio.gather(*(self._stop(kept) for kept in ending))

    async def close(self) -> None:
        """End whatever still runs, and the guard."""
        await self.stop(list(self._kept))
        self._guardian.close()

    def _raise_unforeseen(self) -> None:
        """Our own failure is not a program's: it is raised, never waited for."""
        for kept in self._kept.values():
            if kept.task is not None and kept.task.done() and (failure := kept.task.exception()) is not None:
                raise failure

    async def _stop(self, kept: _Kept) -> None:
        task, kept.task = kept.task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        kept.log.close()
        self._set(kept, lives.stopped(kept.life, self._clock()))

    async def _keep(self, kept: _Kept) -> None:
        while kept.life.phase is not Phase.GAVE_UP:
            how = await self._live(kept)
            kept.log.note(how)
            self._set(kept, lives.died(kept.life, self._clock(), how, self._limits, self._spread()))
            if kept.life.phase is Phase.WAITING:
                await asyncio.sleep(max(0.0, kept.life.wake - self._clock()))

    async def _live(self, kept: _Kept) -> str:
        """One life from start to end; returns how it ended."""
        self._set(kept, lives.started(kept.life, self._clock()))
        try:
            given = await kept.program.feed() if kept.program.feed else None
            child = await start(kept.program, kept.log, given)
        except PolicydError as error:
            return error.message
        self._guardian.add(child.group)
        self._runs(kept.program.name, child.group)
        probing = asyncio.create_task(self._probe(kept))
        try:
            return lives.ending(await child.wait())
        finally:
            probing.cancel()
            await child.end()
            self._runs(kept.program.name, 0)
            self._guardian.remove(child.group)

    async def _probe(self, kept: _Kept) -> None:
        while why := await kept.program.probe():
            self._set(kept, lives.awaited(kept.life, why))
            await asyncio.sleep(PROBE_SECONDS)
        self._set(kept, lives.healthy(kept.life, self._clock()))

    def _set(self, kept: _Kept, life: Life) -> None:
        if life != kept.life:
            kept.life = life
            self._news.set()
            self._changed(kept.program.name, life)

    def _given_up(self, name: str) -> ChildError:
        kept = self._kept[name]
        message = f"`{name}` {kept.life.why}, {kept.life.failures} times"
        return ChildError(message + self._said(kept), remedy=f"its whole log is `{kept.log.path}`")

    def _too_late(self, names: Iterable[str]) -> ChildError:
        awaited = [self._kept[name] for name in names]
        reasons = ", ".join(f"`{kept.program.name}` ({kept.life.why or 'no answer yet'})" for kept in awaited)
        said = "".join(self._said(kept) for kept in awaited[:3])
        return ChildError(f"not up in time: {reasons}{said}", remedy=f"the whole logs are in `{self._logs}`")

    def _said(self, kept: _Kept) -> str:
        lines = kept.log.last(LAST_LINES)
        if not lines:
            return f"\n  `{kept.program.name}` printed nothing"
        return f"\n  the last lines of `{kept.program.name}`:" + "".join(f"\n  | {line}" for line in lines)
