"""While one call waits for the medium the loop makes others, and what was begun is finished."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from policyd.audit.group import Waiting, Wake
from policyd.audit.journal import Journal
from policyd.errors import JournalError
from policyd.server.pausing_tasks import PausingTasks, pause
from tests.audit.samples import WRITER, an_entry, wait_until
from tests.fakes.asleep import Asleep
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FailingDisk


class Bell:
    """Keeps what wakes those who wait."""

    def __init__(self) -> None:
        self.waiting: list[Wake] = []

    def ring_from_elsewhere(self) -> None:
        """Wake them all, from a thread that is not the loop's."""
        for wake in self.waiting:
            thread = threading.Thread(target=wake)
            thread.start()
            thread.join()
        self.waiting.clear()


def waits(bell: Bell, told: list[str], name: str) -> Callable[[], str]:
    def call() -> str:
        told.append(f"{name} begins")
        pause(bell.waiting.append)
        told.append(f"{name} ends")
        return name

    return call


async def test_a_call_that_does_not_pause_is_made_at_once() -> None:
    assert await PausingTasks(asyncio.get_running_loop()).run(lambda: 7) == 7


async def test_others_are_made_while_one_pauses() -> None:
    bell, told = Bell(), list[str]()
    pausing = PausingTasks(asyncio.get_running_loop())
    tasks = [asyncio.create_task(pausing.run(waits(bell, told, name))) for name in ("a", "b")]
    await asyncio.sleep(0)
    assert (told, len(bell.waiting)) == (["a begins", "b begins"], 2)
    bell.ring_from_elsewhere()
    assert await asyncio.gather(*tasks) == ["a", "b"]
    assert told == ["a begins", "b begins", "a ends", "b ends"]


async def test_what_a_call_raises_is_raised_after_a_pause_too() -> None:
    bell = Bell()

    def call() -> None:
        pause(bell.waiting.append)
        raise JournalError("the disk is full")

    task = asyncio.create_task(PausingTasks(asyncio.get_running_loop()).run(call))
    await asyncio.sleep(0)
    bell.ring_from_elsewhere()
    with pytest.raises(JournalError, match="the disk is full"):
        await task


async def test_what_was_begun_is_finished_though_nobody_waits_for_it() -> None:
    bell, told = Bell(), list[str]()
    task = asyncio.create_task(PausingTasks(asyncio.get_running_loop()).run(waits(bell, told, "a")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bell.ring_from_elsewhere()
    await asyncio.sleep(0)
    assert told == ["a begins", "a ends"]


def test_who_is_on_no_such_stack_sleeps() -> None:
    bell, told = Bell(), list[str]()
    thread = threading.Thread(target=waits(bell, told, "a"))
    thread.start()
    wait_until(lambda: bool(bell.waiting))
    assert told == ["a begins"]
    bell.ring_from_elsewhere()
    thread.join()
    assert told == ["a begins", "a ends"]


async def test_many_records_share_one_wait_for_the_medium(tmp_path: Path) -> None:
    """A hundred calls on one loop, each of which goes on when its record is on the medium: a few syncs."""
    disk, waiting = FailingDisk(), Asleep(pause)
    journal = Journal(
        tmp_path / "journal", WRITER, FakeClock(), durability="fsync", waiting=Waiting(waiting, 600.0), disk=disk
    )
    before = disk.synced
    pausing = PausingTasks(asyncio.get_running_loop())
    tasks = [asyncio.create_task(pausing.run(lambda: journal.keep(an_entry()))) for _ in range(100)]
    await asyncio.sleep(0)
    assert waiting.count == 100
    journal.hurry()
    placed = await asyncio.gather(*tasks)
    assert [one.seq for one in placed if one] == list(range(1, 101))
    assert disk.synced - before <= 2
    journal.close()
