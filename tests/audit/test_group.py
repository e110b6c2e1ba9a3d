"""Durability `fsync`: who waits together, and what is told to whom where the medium refuses."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from policyd.audit.appender import Limits
from policyd.audit.journal import Journal
from policyd.audit.record import Record
from policyd.audit.segments import list_segments
from policyd.audit.verify import verify
from policyd.errors import JournalError
from tests.audit.samples import WRITER, an_entry, records, wait_until
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FailingDisk

Open = Callable[..., Journal]


class SlowDisk(FailingDisk):
    """A medium that takes what is written when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)

    def sync(self, fd: int) -> None:
        self.waiting.release()
        self.allowed.acquire()
        super().sync(fd)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def open_journal(folder: Path) -> Iterator[Open]:
    opened: list[Journal] = []

    def make(disk: FailingDisk, **options: Any) -> Journal:
        opened.append(Journal(folder, WRITER, FakeClock(), durability="fsync", disk=disk, **options))
        return opened[-1]

    yield make
    for journal in opened:
        journal.close()


@pytest.fixture
def many() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def test_one_after_the_other_every_record_is_on_the_medium_before_its_caller_goes_on(open_journal: Open) -> None:
    disk = FailingDisk()
    journal = open_journal(disk)
    assert [(journal.append(an_entry()), disk.synced)[1] for _ in range(3)] == [1, 2, 3]


def test_who_writes_while_others_wait_shares_the_next_sync(
    open_journal: Open, folder: Path, many: ThreadPoolExecutor
) -> None:
    disk = SlowDisk()
    journal = open_journal(disk)
    first = many.submit(journal.append, an_entry())
    disk.waiting.acquire()
    rest = [many.submit(journal.append, an_entry()) for _ in range(20)]
    wait_until(lambda: len(records(folder)) == 21)
    assert not [one for one in (first, *rest) if one.done()]
    disk.allowed.release()
    assert first.result() is not None
    disk.waiting.acquire()
    assert not [one for one in rest if one.done()]
    disk.allowed.release()
    assert sorted(_seq(one) for one in rest) == list(range(2, 22))
    assert disk.synced == 2
    disk.allowed.release()  # for closing


def test_where_the_medium_refuses_everyone_who_waits_is_told_and_nothing_of_theirs_stays(
    open_journal: Open, folder: Path, many: ThreadPoolExecutor
) -> None:
    disk = SlowDisk()
    journal = open_journal(disk)
    disk.allowed.release()
    kept = journal.append(an_entry())
    disk.waiting.acquire()
    first = many.submit(journal.append, an_entry())
    disk.waiting.acquire()
    rest = [many.submit(journal.append, an_entry()) for _ in range(10)]
    wait_until(lambda: len(records(folder)) == 12)
    disk.broken = {"sync"}
    disk.allowed.release(2)  # theirs, and that of who asks for the trouble
    for one in (first, *rest):
        with pytest.raises(JournalError, match="takes no record: Input/output error"):
            one.result()
    assert records(folder) == [kept]
    assert journal.trouble() != ""
    disk.broken = set()
    disk.allowed.release(3)  # the note, this one, and closing
    record = journal.append(an_entry())
    assert record is not None
    assert [one.kind for one in records(folder)] == ["decision", "operation", "decision"]
    assert records(folder)[1].detail["refused"] == 11
    assert verify(folder).problems == ()


def test_with_drop_a_medium_that_refuses_holds_nobody_up(open_journal: Open) -> None:
    disk = FailingDisk()
    journal = open_journal(disk, on_full="drop")
    disk.broken = {"sync"}
    assert journal.append(an_entry()) is None
    disk.broken = set()


class FlakyDisk(FailingDisk):
    """A medium of which one sync in five fails."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice

    def sync(self, fd: int) -> None:
        self.broken = {"sync"} if self._dice.random() < 0.2 else set()
        super().sync(fd)


def test_on_a_failing_medium_the_journal_holds_what_was_promised_and_nothing_else(
    folder: Path, many: ThreadPoolExecutor
) -> None:
    disk = FlakyDisk(random.Random(11))
    journal = Journal(folder, WRITER, FakeClock(), durability="fsync", disk=disk, limits=Limits(max_bytes=5000))
    futures = [many.submit(journal.append, an_entry(request_id=str(number))) for number in range(400)]
    told = {_seq(one): str(number) for number, one in enumerate(futures) if one.exception() is None}
    with_errors = len(futures) - len(told)
    try:
        journal.close()
    except JournalError:
        journal = Journal(folder, WRITER, FakeClock())
        journal.close()
    held = {one.seq: one.request_id for one in records(folder) if one.kind == "decision"}
    assert held == told
    assert with_errors > 10
    assert len(told) > 100
    assert len(list_segments(folder)[WRITER]) > 3
    assert verify(folder).problems == ()


def _seq(future: Future[Record | None]) -> int:
    record = future.result()
    assert record is not None
    return record.seq
