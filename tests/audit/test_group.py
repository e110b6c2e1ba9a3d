"""Durability `fsync`: who waits together, and what is told to whom where the medium refuses."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from policyd.audit.appender import Limits
from policyd.audit.group import Epoch, Group, Waiting
from policyd.audit.journal import Journal
from policyd.audit.record import Record
from policyd.audit.segments import list_segments
from policyd.audit.verify import verify
from policyd.errors import JournalError
from tests.audit.samples import WRITER, an_entry, records, wait_until
from tests.fakes.asleep import Asleep
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FailingDisk, FlakyDisk, SlowDisk

Open = Callable[..., Journal]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def asleep() -> Asleep:
    return Asleep()


@pytest.fixture
def open_journal(folder: Path, asleep: Asleep) -> Iterator[Open]:
    opened: list[Journal] = []

    def make(disk: FailingDisk, **options: Any) -> Journal:
        waiting = Waiting(asleep, options.pop("linger", 0.0))
        journal = Journal(folder, WRITER, FakeClock(), durability="fsync", disk=disk, waiting=waiting, **options)
        opened.append(journal)
        return journal

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
    open_journal: Open, folder: Path, many: ThreadPoolExecutor, asleep: Asleep
) -> None:
    disk = SlowDisk()
    journal = open_journal(disk)
    first = many.submit(journal.append, an_entry())
    disk.waiting.acquire()
    rest = [many.submit(journal.append, an_entry()) for _ in range(20)]
    wait_until(lambda: asleep.count == 21)
    assert len(records(folder)) == 1
    assert not [one for one in (first, *rest) if one.done()]
    disk.allowed.release()
    assert first.result() is not None
    disk.waiting.acquire()
    assert len(records(folder)) == 21
    assert not [one for one in rest if one.done()]
    disk.allowed.release()
    assert sorted(_seq(one) for one in rest) == list(range(2, 22))
    assert disk.synced == 2


def test_a_group_gathers_who_comes_soon_until_it_is_told_that_nobody_will(
    open_journal: Open, many: ThreadPoolExecutor, asleep: Asleep
) -> None:
    disk = FailingDisk()
    journal = open_journal(disk, linger=600.0)
    for count in (3, 5):
        told = [many.submit(journal.append, an_entry()) for _ in range(count)]
        wait_until(lambda count=count: asleep.count == count)  # type: ignore[misc]
        assert not [one for one in told if one.done()]
        journal.hurry()
        assert [one.result() is not None for one in told] == [True] * count
        journal.hurry()  # nobody waits: this hurries nobody who comes later
    assert disk.synced == 2


def test_who_hurries_commits_by_itself(open_journal: Open, many: ThreadPoolExecutor, asleep: Asleep) -> None:
    committed = list[int]()

    class Disk(FailingDisk):
        def sync(self, fd: int) -> None:
            committed.append(threading.get_ident())
            super().sync(fd)

    journal = open_journal(Disk(), linger=600.0)
    assert not journal.hurry()
    told = many.submit(journal.append, an_entry())
    wait_until(lambda: asleep.count == 1)
    assert journal.hurry()
    assert _seq(told) == 1
    assert committed == [threading.get_ident()]


def test_who_hurries_while_a_commit_is_under_way_is_in_the_next_which_follows_at_once(
    open_journal: Open, many: ThreadPoolExecutor, asleep: Asleep
) -> None:
    disk = SlowDisk()
    journal = open_journal(disk, linger=600.0)
    first = many.submit(journal.append, an_entry())
    wait_until(lambda: asleep.count == 1)
    hurried = many.submit(journal.hurry)
    disk.waiting.acquire()
    second = many.submit(journal.append, an_entry())
    wait_until(lambda: asleep.count == 2)
    assert not journal.hurry()
    disk.allowed.release(2)
    assert hurried.result()
    assert sorted(map(_seq, (first, second))) == [1, 2]


def test_closing_brings_to_the_medium_what_waits_for_more(
    open_journal: Open, folder: Path, many: ThreadPoolExecutor, asleep: Asleep
) -> None:
    disk = FailingDisk()
    journal = open_journal(disk, linger=600.0)
    told = [many.submit(journal.append, an_entry()) for _ in range(3)]
    wait_until(lambda: asleep.count == 3)
    journal.close()
    assert sorted(_seq(one) for one in told) == [1, 2, 3]
    assert len(records(folder)) == 3
    with pytest.raises(JournalError, match="the journal is closed"):
        journal.append(an_entry())


def test_closing_waits_for_the_sync_that_is_under_way(open_journal: Open, many: ThreadPoolExecutor) -> None:
    disk = SlowDisk()
    journal = open_journal(disk)
    told = many.submit(journal.append, an_entry())
    disk.waiting.acquire()
    closed = many.submit(journal.close)
    disk.broken = {"sync"}
    assert not closed.done()
    disk.allowed.release()
    with pytest.raises(JournalError, match="takes no record: Input/output error"):
        told.result()
    closed.result()


def test_a_file_that_is_removed_while_it_is_synced_is_closed_afterwards_and_replaced(
    open_journal: Open, folder: Path, many: ThreadPoolExecutor
) -> None:
    class Disk(SlowDisk):
        def sync(self, fd: int) -> None:
            super().sync(fd)
            os.fstat(fd)

    disk = Disk()
    journal = open_journal(disk)
    first = many.submit(journal.append, an_entry())
    disk.waiting.acquire()
    (segment,) = list_segments(folder)[WRITER]
    segment.path.unlink()
    assert journal.trouble() == ""
    disk.allowed.release(2)
    assert _seq(first) == 1
    assert journal.trouble() == ""
    assert _seq(many.submit(journal.append, an_entry())) == 2
    assert [one.seq for one in records(folder)] == [2]


def test_no_more_waits_for_the_medium_than_there_is_room_for(
    open_journal: Open, folder: Path, many: ThreadPoolExecutor, asleep: Asleep
) -> None:
    disk = SlowDisk()
    journal = open_journal(disk, buffer_bytes=1000)
    first = many.submit(journal.append, an_entry())
    disk.waiting.acquire()
    second = many.submit(journal.append, an_entry())
    wait_until(lambda: asleep.count == 2)
    with pytest.raises(JournalError, match="bytes wait for the disk, which is slower than what is recorded"):
        journal.append(an_entry())
    disk.allowed.release(4)
    assert [_seq(first), _seq(second)] == [1, 2]
    third = journal.append(an_entry())
    assert third is not None
    assert [(record.seq, record.kind) for record in records(folder)] == [
        (1, "decision"),
        (2, "decision"),
        (3, "operation"),
        (4, "decision"),
    ]
    assert records(folder)[2].detail["refused"] == 1


def test_where_the_medium_refuses_everyone_who_waits_is_told_and_nothing_of_theirs_stays(
    open_journal: Open, folder: Path, many: ThreadPoolExecutor, asleep: Asleep
) -> None:
    disk = SlowDisk()
    journal = open_journal(disk)
    disk.allowed.release()
    kept = journal.append(an_entry())
    disk.waiting.acquire()
    first = many.submit(journal.append, an_entry())
    disk.waiting.acquire()
    rest = [many.submit(journal.append, an_entry()) for _ in range(10)]
    wait_until(lambda: asleep.count == 11)
    disk.broken = {"sync"}
    disk.allowed.release(2)  # theirs, and that of who asks for the trouble
    for one in (first, *rest):
        with pytest.raises(JournalError, match="takes no record: Input/output error"):
            one.result()
    assert records(folder) == [kept]
    assert journal.trouble() != ""
    disk.broken = set()
    disk.allowed.release(2)  # the note, and this one
    record = journal.append(an_entry())
    assert record is not None
    assert [one.kind for one in records(folder)] == ["decision", "operation", "decision"]
    assert records(folder)[1].detail["refused"] == 11
    assert verify(folder).problems == ()


@pytest.mark.parametrize("broken", ["write", "sync"])
def test_a_group_that_cannot_be_written_is_refused_as_one(
    open_journal: Open, folder: Path, many: ThreadPoolExecutor, asleep: Asleep, broken: str
) -> None:
    disk = FailingDisk()
    journal = open_journal(disk, linger=600.0)
    told = [many.submit(journal.append, an_entry()) for _ in range(5)]
    wait_until(lambda: asleep.count == 5)
    disk.broken = {broken}
    journal.hurry()
    for one in told:
        with pytest.raises(JournalError, match="takes no record: Input/output error"):
            one.result()
    assert records(folder) == []
    disk.broken = set()
    assert journal.trouble() == ""
    assert [(one.seq, one.detail["refused"]) for one in records(folder)] == [(1, 5)]


def test_with_drop_a_medium_that_refuses_holds_nobody_up(open_journal: Open) -> None:
    disk = FailingDisk()
    journal = open_journal(disk, on_full="drop")
    disk.broken = {"sync"}
    assert journal.append(an_entry()) is None
    disk.broken = set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_ever_where_the_thread_that_commits_has_a_fault(many: ThreadPoolExecutor) -> None:
    def commit() -> None:
        raise RuntimeError("a fault of ours")

    group = Group(commit, Waiting())
    for _ in range(2):
        told = many.submit(group.wait, Epoch(), 1)
        with pytest.raises(JournalError, match="nothing brings records to the medium any more"):
            told.result(60)
    group.close()


def test_nobody_waits_for_ever_where_who_hurries_has_a_fault(many: ThreadPoolExecutor, asleep: Asleep) -> None:
    def commit() -> None:
        raise RuntimeError("a fault of ours")

    group = Group(commit, Waiting(asleep, linger=600.0))
    told = many.submit(group.wait, Epoch(), 1)
    wait_until(lambda: asleep.count == 1)
    assert group.hurry()
    with pytest.raises(JournalError, match="nothing brings records to the medium any more"):
        told.result(60)
    assert not group.hurry()
    group.close()


def test_on_a_failing_medium_the_journal_holds_what_was_promised_and_nothing_else(
    folder: Path, many: ThreadPoolExecutor
) -> None:
    disk = FlakyDisk()
    journal = Journal(folder, WRITER, FakeClock(), durability="fsync", disk=disk, limits=Limits(max_bytes=5000))

    def write(caller: int) -> dict[int, str]:
        """What was told of some appends, one after the other."""
        told = {}
        for number in range(20):
            try:
                record = journal.append(an_entry(request_id=f"{caller}-{number}"))
            except JournalError:
                continue
            assert record is not None
            told[record.seq] = record.request_id
        return told

    futures = [many.submit(write, caller) for caller in range(20)]
    told = {seq: name for future in futures for seq, name in future.result().items()}
    disk.well = True
    journal.close()
    held = {one.seq: one.request_id for one in records(folder) if one.kind == "decision"}
    assert held == told
    assert 20 < len(told) < 380
    assert len(list_segments(folder)[WRITER]) > 3
    assert verify(folder).problems == ()


def _seq(future: Future[Record | None]) -> int:
    record = future.result()
    assert record is not None
    return record.seq
