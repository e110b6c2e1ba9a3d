"""Room in a live segment: spaces that lines come into, in memory or by writes; none are left in a finished one."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from mmap import mmap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.audit.appender import Limits
from policyd.audit.disk import Disk
from policyd.audit.journal import Journal
from policyd.audit.lines import open_lines
from policyd.audit.read import Follower, ends, newest
from policyd.audit.record import decode
from policyd.audit.scan import Span, scan
from policyd.audit.segments import Segment, list_segments
from policyd.audit.stencil import Own
from policyd.audit.verify import verify
from policyd.errors import BrokenRecord, JournalError
from tests.audit.samples import NOON, WRITER, an_entry
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FailingDisk

AHEAD = Limits(ahead=8192)
KINDS = ["written", "fsync"]

Open = Callable[..., Journal]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def open_journal(folder: Path) -> Iterator[Open]:
    opened: list[Journal] = []

    def make(**options: Any) -> Journal:
        journal = Journal(folder, WRITER, FakeClock(), **{"limits": AHEAD, **options})
        opened.append(journal)
        return journal

    yield make
    for journal in opened:
        with suppress(JournalError):
            journal.close()


def the_segment(folder: Path) -> Segment:
    return list_segments(folder)[WRITER][-1]


def fill_until_there_is_room(journal: Journal) -> int:
    """Append until the live segment ends with spaces; how many that took."""
    for count in range(1, 200):
        journal.append(an_entry())
        if the_segment(journal.directory).path.read_bytes().endswith(b"  "):
            return count
    raise AssertionError("it never had room")


def seqs(folder: Path) -> list[int]:
    return [line.record.seq for line in scan(folder, Span()).lines(not_broken)]


def not_broken(error: BrokenRecord) -> None:
    raise error


class NotMapped(FailingDisk):
    """A file system on which nothing is mapped."""

    def can_map(self, folder: Path) -> bool:
        return False


@pytest.mark.parametrize("durability", KINDS)
def test_a_busy_segment_ends_with_room_that_no_reader_takes_for_a_record(
    open_journal: Open, folder: Path, durability: Any
) -> None:
    journal = open_journal(durability=durability)
    count = fill_until_there_is_room(journal)
    raw = the_segment(folder).path.read_bytes()
    whole = len(raw.rstrip(b" "))
    expected = list(range(1, count + 1))
    assert 0 < len(raw) - whole <= AHEAD.ahead
    assert seqs(folder) == expected
    assert ends(folder)[WRITER].offset == whole
    assert [line.record.seq for line in newest(folder, ends(folder), not_broken)] == expected[::-1]
    assert [line.record.seq for line in Follower(folder, {}, not_broken).poll()] == expected
    (chain,) = verify(folder).chains
    assert (chain.last, chain.pending, verify(folder).problems) == (count, 0, ())


@pytest.mark.parametrize("durability", KINDS)
def test_closing_ends_the_file_with_its_last_line(open_journal: Open, folder: Path, durability: Any) -> None:
    journal = open_journal(durability=durability)
    fill_until_there_is_room(journal)
    journal.close()
    assert the_segment(folder).path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("durability", KINDS)
def test_no_finished_segment_has_room(open_journal: Open, folder: Path, durability: Any) -> None:
    journal = open_journal(durability=durability, limits=Limits(max_bytes=20_000, ahead=2048))
    count = 300
    for _ in range(count):
        journal.append(an_entry())
    *finished, live = (segment.path.read_bytes() for segment in list_segments(folder)[WRITER])
    assert len(finished) > 4
    assert all(raw.endswith(b"}\n") and len(raw) <= 20_000 for raw in finished)
    assert len(live) <= 20_000
    assert seqs(folder) == list(range(1, count + 1))


@pytest.mark.parametrize("durability", KINDS)
def test_what_a_killed_writer_left_is_gone_on_with_and_its_room_is_no_loss(
    open_journal: Open, folder: Path, durability: Any, tmp_path: Path
) -> None:
    journal = open_journal(durability=durability)
    count = fill_until_there_is_room(journal)
    left = the_segment(folder).path.read_bytes()
    journal.close()
    the_segment(folder).path.write_bytes(left)
    open_journal(durability=durability).append(an_entry())
    assert seqs(folder) == list(range(1, count + 2))
    assert [line.record.kind for line in scan(folder, Span()).lines(not_broken)] == ["decision"] * (count + 1)
    assert sorted(path.suffix for path in folder.iterdir() if path.name.startswith(WRITER)) == [".jsonl", ".lock"]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_line_that_a_kill_cut_off_in_the_room_is_kept_aside(data: st.DataObject, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("torn") / "journal"
    journal = Journal(folder, WRITER, FakeClock(), limits=AHEAD)
    count = fill_until_there_is_room(journal)
    left = the_segment(folder).path.read_bytes()
    journal.append(an_entry())
    journal.close()
    line = the_segment(folder).path.read_bytes()[len(left.rstrip(b" ")) :]
    cut = data.draw(st.integers(1, len(line) - 1))
    torn = line[:cut].rstrip(b" ")
    whole = left.rstrip(b" ")
    the_segment(folder).path.write_bytes(whole + torn + b" " * (len(left) - len(whole) - len(torn)))
    (chain,) = verify(folder).chains
    assert (chain.last, chain.pending) == (count, len(torn))
    Journal(folder, WRITER, FakeClock(), limits=AHEAD).close()
    notes = [one.record.detail for one in scan(folder, Span()).lines(not_broken) if one.record.kind == "operation"]
    assert [note["cut_bytes"] for note in notes] == [len(torn)]
    assert next(folder.glob("*.torn-*")).read_bytes() == torn
    assert verify(folder).problems == ()


@pytest.mark.parametrize("on_full", ["deny", "drop"])
@pytest.mark.parametrize("durability", KINDS)
def test_on_a_full_disk_what_is_told_is_what_is_kept(
    open_journal: Open, folder: Path, durability: Any, on_full: Any
) -> None:
    disk = FailingDisk()
    journal = open_journal(durability=durability, disk=disk, on_full=on_full)
    told, refused = [], 0
    for space in (12_000, 700, 100, 9_000, None):
        disk.space = space
        for _ in range(60):
            try:
                record = journal.append(an_entry())
            except JournalError:
                record = None
            if record is None:
                refused += 1
            else:
                told.append(record.seq)
    kept = [line.record for line in scan(folder, Span()).lines(not_broken)]
    assert [one.seq for one in kept if one.kind == "decision"] == told
    gaps = [one.detail for one in kept if one.kind == "operation"]
    assert sum(gap["dropped" if on_full == "drop" else "refused"] for gap in gaps) == refused > 0
    assert verify(folder).problems == ()


def test_where_there_is_no_space_for_room_lines_are_added_one_by_one(open_journal: Open, folder: Path) -> None:
    disk = FailingDisk()
    journal = open_journal(disk=disk)
    while the_segment_size(folder) < AHEAD.ahead:
        journal.append(an_entry())
    disk.space = 4000
    assert journal.append(an_entry()) is not None
    assert the_segment(folder).path.read_bytes().endswith(b"}\n")
    assert 0 < disk.space < 4000


def the_segment_size(folder: Path) -> int:
    listed = list_segments(folder).get(WRITER)
    return listed[-1].path.stat().st_size if listed else 0


@pytest.mark.parametrize("durability", KINDS)
def test_where_even_cutting_fails_nothing_is_taken_until_it_has_been_cut(
    open_journal: Open, folder: Path, durability: Any
) -> None:
    disk = FailingDisk()
    journal = open_journal(durability=durability, disk=disk)
    told = fill_until_there_is_room(journal)
    disk.broken = {"write", "sync", "truncate"}
    if durability == "written":  # memory that is there takes what it has room for
        while True:
            try:
                journal.append(an_entry())
            except JournalError:
                break
            told += 1
    for _ in range(3):
        with pytest.raises(JournalError, match="takes no record"):
            journal.append(an_entry())
    disk.broken = set()
    journal.append(an_entry())
    kinds = [line.record.kind for line in scan(folder, Span()).lines(not_broken)]
    assert kinds == ["decision"] * told + ["operation", "decision"]
    assert verify(folder).problems == ()


def test_on_a_file_system_that_is_not_known_nothing_is_mapped(open_journal: Open, folder: Path) -> None:
    journal = open_journal(disk=NotMapped())
    for _ in range(100):
        journal.append(an_entry())
    assert the_segment(folder).path.read_bytes().endswith(b"}\n")


def test_where_no_memory_may_be_kept_lines_are_added_one_by_one_and_it_is_not_tried_again(
    open_journal: Open, folder: Path
) -> None:
    tried = list[int]()

    class Disk(FailingDisk):
        def map(self, fd: int, start: int, end: int) -> tuple[int, mmap]:
            tried.append(start)
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    journal = open_journal(disk=Disk())
    for _ in range(100):
        journal.append(an_entry())
    assert the_segment(folder).path.read_bytes().endswith(b"}\n")
    assert seqs(folder) == list(range(1, 101))
    assert len(tried) == 1


@pytest.mark.parametrize("length", [1_000, 8_000, 100_000])
def test_lines_of_any_length_come_in_order(open_journal: Open, folder: Path, length: int) -> None:
    journal = open_journal()
    fill_until_there_is_room(journal)
    for _ in range(20):
        journal.append(an_entry())
        journal.append(an_entry(context={"request": {"path": "/" + "a" * length}}))
    (chain,) = verify(folder).chains
    assert chain.pending == 0
    assert verify(folder).problems == ()
    assert seqs(folder) == list(range(1, chain.last + 1))


def test_several_that_come_together_stand_one_behind_the_other(open_journal: Open, folder: Path) -> None:
    journal = open_journal()
    count = fill_until_there_is_room(journal)
    stencil = journal.stencil(an_entry())
    journal.keep_filled([(stencil, Own(1_795_000_000_000_000 + number)) for number in range(5)])
    assert seqs(folder) == list(range(1, count + 6))
    assert verify(folder).problems == ()


def test_who_reads_while_lines_come_gets_each_once_and_whole(open_journal: Open, folder: Path) -> None:
    journal, count, broken = open_journal(), 3000, list[BrokenRecord]()
    follower = Follower(folder, {}, broken.append)
    writer = threading.Thread(target=lambda: [journal.append(an_entry()) for _ in range(count)])
    journal.append(an_entry())
    writer.start()
    found: list[int] = []
    while len(found) < count + 1:
        found += [line.record.seq for line in follower.poll()]
        assert verify(folder).problems == ()
    writer.join()
    assert found == list(range(1, count + 2))
    assert broken == []


def test_a_reader_that_was_there_before_keeps_nothing_of_the_room(open_journal: Open, folder: Path) -> None:
    journal = open_journal()
    count = fill_until_there_is_room(journal)
    with open_lines(the_segment(folder), not_broken) as lines:
        assert len(list(lines.forward(0))) == count
        end = lines.end()
        journal.append(an_entry())
        assert [decode(found.raw).seq for found in lines.forward(end)] == [count + 1]
        assert next(decode(found.raw).seq for found in lines.backward(lines.end())) == count + 1


def test_this_disk_knows_where_it_may_map(tmp_path: Path) -> None:
    """Files of processes are on no disk."""
    assert not Disk().can_map(Path("/proc"))
    assert Disk().can_map(Path("/dev/shm"))


def test_a_file_that_somebody_cut_is_not_mapped_beyond_its_end(tmp_path: Path) -> None:
    disk, path = Disk(), tmp_path / "file"
    path.write_bytes(b"x" * 100)
    fd = disk.open_inside(path)
    with pytest.raises(OSError, match="Input/output error"):
        disk.map(fd, 0, 10_000)
    disk.close(fd)


def test_records_keep_their_time(open_journal: Open, folder: Path) -> None:
    journal = open_journal()
    fill_until_there_is_room(journal)
    assert {line.record.time for line in scan(folder, Span()).lines(not_broken)} == {NOON}
