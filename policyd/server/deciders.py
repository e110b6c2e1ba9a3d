"""Keeps the decision processes running: started, handed the ruling in force, replaced when lost, ended with us.

Law: who answers checks answers under the ruling that was handed over last; a process that does not take it in time is
ended and replaced. What there is to decide by is in `handover`, what to say in `link`, one of them in
`decider_process`, their lives in `decider_life`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from policyd.authz.ruling import Ruling
from policyd.environment import Level
from policyd.errors import StateError
from policyd.server import link
from policyd.server.decider_life import DeciderLife
from policyd.server.decider_process import DeciderProcess, launch
from policyd.server.handover import Given, are_alike, messages
from policyd.server.link import Down, Identity, InForce, Listening, Opened, Setup, Speak, Trouble, Up, pack
from policyd.server.transport import GRACE_SECONDS
from policyd.server.transport import Identity as Certified
from policyd.telemetry.slots import Slots

TAKE_SECONDS: Final = 30.0  # for a ruling of a hundred thousand policies on a slow machine
END_SECONDS: Final = GRACE_SECONDS + 3.0
GIVE_UP: Final = 3  # failures in a row, at the start of the server

_log = structlog.get_logger("policyd.server")


class Observer(Protocol):
    """Who counts; policyd.telemetry.metrics.Metrics is one."""

    def deciding(self, count: int) -> None:
        """So many processes answer now."""

    def process_started(self) -> None:
        """One was started."""


@dataclass(eq=False)
class _Seat:
    """A place for one process at a time."""

    setup: Setup
    life: DeciderLife
    running: DeciderProcess | None = None


class Deciders:
    """The processes of `setups`, which count in `slots` and show the certificate of `identity`."""

    def __init__(
        self,
        setups: Iterable[Setup],
        slots: Slots,
        identity: Certified,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seats = [_Seat(setup, DeciderLife(setup.name, setup.address)) for setup in setups]
        self._slots = slots
        self._identity = identity
        self._observer = observer
        self._clock = clock
        self._news = asyncio.Condition()
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ruling: Ruling | None = None
        self._number = 1  # of that ruling
        self._packed: dict[tuple[int, int], list[bytes]] = {}
        self._ending = False

    async def start(self, stack: AsyncExitStack, ruling: Ruling) -> None:
        """Start all, and wait until they answer under `ruling`; raises StateError where one does not."""
        self._ruling = ruling
        stack.push_async_callback(self._end)
        for seat in self._seats:
            self._begin(self._keep(seat))
        lives = await self._until(lambda: self._all_decide() or self._one_fails(), TAKE_SECONDS)
        if not lives or self._one_fails():
            raise StateError("a decision process does not start", remedy="its log says why, above")

    @property
    def lives(self) -> tuple[DeciderLife, ...]:
        """What is known of each process."""
        return tuple(seat.running.life if seat.running else seat.life for seat in self._seats)

    def trouble(self) -> str:
        """Why not all checks are answered; "" if they are."""
        if not any(life.deciding for life in self.lives):
            return "no decision process answers"
        return next((f"{life.name}: {life.trouble}" for life in self.lives if life.trouble), "")

    async def hand_over(self, ruling: Ruling) -> None:
        """Have every process decide under `ruling`; returns when those that live do."""
        async with self._changing:
            before, self._ruling = self._ruling, ruling
            if before is not None and await asyncio.to_thread(are_alike, before, ruling):
                for one in self._all_running():
                    one.passed_on(self._number, ruling)
                return
            self._number += 1
            await asyncio.gather(*map(self._give, self._all_running()))
            self._packed.clear()

    async def refresh(self) -> None:
        """Show the certificate of now, which is another one after a renewal."""
        now = self._identity.current()
        for running in self._all_running():
            if running.certificate is not now:
                running.certificate = now
                await self._tell(running, Identity(now))

    async def speak(self, level: Level) -> None:
        """Log from this level on."""
        for seat in self._seats:
            seat.setup = replace(seat.setup, log_level=level)
        for running in self._all_running():
            await self._tell(running, Speak(level))

    async def restart(self) -> None:
        """Replace the processes one at a time, none before its successor takes checks; raises StateError."""
        for seat in self._seats:
            async with self._changing:
                await self._replace(seat)

    # ---- one process

    async def _keep(self, seat: _Seat) -> None:
        """Have a process in this seat, whatever becomes of it."""
        while not self._ending:
            running = seat.running = await self._launch(seat, seat.setup)
            self._begin(self._feed(running, link.Listen(), link.Open()))
            await self._follow(running)
            if seat.running is not running:
                return  # it was replaced, and the other one is kept elsewhere
            seat.life = running.life.ended(self._clock())
            seat.running = None
            await self._announce()
            if not self._ending:
                _log.error("decider.lost", name=seat.life.name, status=running.process.returncode)
                await asyncio.sleep(seat.life.wait)

    async def _launch(self, seat: _Seat, setup: Setup) -> DeciderProcess:
        """Start a process and tell it who it is."""
        process, reader, writer = await launch(self._slots)
        life = (seat.running.life if seat.running else seat.life).started(process.pid, self._clock())
        running = DeciderProcess(process, reader, writer, life, certificate=self._identity.current())
        self._observer.process_started()
        await self._tell(running, setup, Identity(self._identity.current()))
        return running

    async def _feed(self, running: DeciderProcess, *then: Down) -> None:
        """Hand over the ruling in force, which may be another one by then, and say what comes next."""
        while running.rule != self._number and not running.gone:
            await self._give(running)
        await self._tell(running, *then)

    async def _follow(self, running: DeciderProcess) -> None:
        """Hear what it says until it has gone."""
        while (message := await link.read_up(running.reader)) is not None:
            self._heard(running, message)
            await self._announce()
        running.gone = True
        await running.end(END_SECONDS)
        await self._announce()

    def _heard(self, running: DeciderProcess, message: Up) -> None:
        match message:
            case Listening():
                running.listening = True
            case Opened():
                running.life = running.life.opened(self._clock())
            case InForce(number, revision):
                running.rule = number
                running.life = running.life.took(revision)
            case Trouble(reason):
                running.life = running.life.troubled(reason[:500])

    async def _give(self, running: DeciderProcess) -> None:
        """Hand over what it lacks of the ruling in force, and wait until it answers under it."""
        async with running.sending:
            ruling, number = self._ruling, self._number
            assert ruling is not None, "processes are started under a ruling"
            packed = await self._pack(ruling, number, running.given)
            running.given = Given(number, ruling)
            await running.send(packed)
        if not await self._until(lambda: running.gone or running.rule >= number, TAKE_SECONDS):
            _log.error("decider.stuck", name=running.life.name, pid=running.process.pid)
            running.kill()

    async def _pack(self, ruling: Ruling, number: int, before: Given | None) -> list[bytes]:
        """Packed once for all that were given the same, in a thread: for ten thousand policies it takes a second."""
        key = number, before.number if before else 0
        kept = self._packed.get(key)
        if kept is None:
            kept = self._packed[key] = await asyncio.to_thread(_packed, ruling, number, before)
        return kept

    async def _replace(self, seat: _Seat) -> None:
        old = seat.running
        if old is None:
            return  # it is being started anew as it is
        setup = seat.setup.successor()
        new = await self._launch(seat, setup)
        following = self._begin(self._follow(new))
        # its journal first, which is another writer's: no check waits for what the old one has still to do
        await self._feed(new, link.Open(), link.Listen())
        if not await self._until(lambda: new.gone or new.listening, TAKE_SECONDS) or new.gone:
            new.kill()
            await following
            raise StateError(f"the successor of `{seat.setup.name}` does not start", remedy="its log says why")
        seat.running, seat.setup = new, setup
        await old.end(END_SECONDS)
        self._begin(self._keep_on(seat, new, following))

    async def _keep_on(self, seat: _Seat, running: DeciderProcess, following: asyncio.Task[None]) -> None:
        """As `_keep`, for a process that is there already."""
        await following
        if seat.running is running and not self._ending:
            seat.life = running.life.ended(self._clock())
            seat.running = None
            await self._keep(seat)

    # ---- all of them

    async def _tell(self, running: DeciderProcess, *told: Down) -> None:
        async with running.sending:
            await running.send([pack(one) for one in told])

    def _all_running(self) -> list[DeciderProcess]:
        return [seat.running for seat in self._seats if seat.running]

    def _all_decide(self) -> bool:
        return all(life.deciding for life in self.lives)

    def _one_fails(self) -> bool:
        return any(life.failures >= GIVE_UP for life in self.lives)

    async def _announce(self) -> None:
        self._observer.deciding(sum(life.deciding for life in self.lives))
        async with self._news:
            self._news.notify_all()

    async def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until it holds; whether it does."""
        try:
            async with asyncio.timeout(seconds), self._news:
                await self._news.wait_for(condition)
        except TimeoutError:
            return False
        return True

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _end(self) -> None:
        """End all at once; each finishes what it has begun."""
        self._ending = True
        await asyncio.gather(*(running.end(END_SECONDS) for running in self._all_running()))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _packed(ruling: Ruling, number: int, before: Given | None) -> list[bytes]:
    return [pack(one) for one in messages(ruling, number, before)]
