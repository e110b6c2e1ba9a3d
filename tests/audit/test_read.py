"""Reading a journal that is being written."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.audit.appender import Limits
from policyd.audit.journal import Journal
from policyd.audit.lines import open_lines
from policyd.audit.read import Follower, Position, ends, newest
from policyd.audit.record import MAX_LINE_BYTES, decode
from policyd.audit.segments import list_segments, segment_name
from policyd.errors import BrokenRecord, JournalError
from tests.audit.samples import NOON, WRITER, an_entry, raw_lines, seal_by_hand
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FailingDisk

SMALL = Limits(max_bytes=2000)  # three records a segment


def unbroken(error: BrokenRecord) -> None:
    raise AssertionError(error)


def a_journal(folder: Path, count: int, writer: str = WRITER, limits: Limits = SMALL) -> Journal:
    journal = Journal(folder, writer, FakeClock(), limits=limits)
    for number in range(count):
        journal.append(an_entry(request_id=f"{writer}-{number}"))
    return journal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.mark.parametrize("count", [0, 1, 3, 4, 10])
def test_the_newest_come_first_across_segments(folder: Path, count: int) -> None:
    a_journal(folder, count).close()
    assert [line.record.seq for line in newest(folder, ends(folder), unbroken)] == list(range(count, 0, -1))
    assert [line.raw for line in newest(folder, ends(folder), unbroken)] == raw_lines(folder)[::-1]


def test_large_records_are_read_backward_across_blocks(folder: Path) -> None:
    journal = Journal(folder, WRITER, FakeClock())
    for size in (0, 70_000, 300_000, 1, 65_536, 10, 130_000):
        journal.append(an_entry(request_id="x" * size))
    journal.close()
    assert [line.raw for line in newest(folder, ends(folder), unbroken)] == raw_lines(folder)[::-1]


def test_several_writers_are_merged_by_time(folder: Path) -> None:
    clock = FakeClock()
    one, two = Journal(folder, "decide-1", clock), Journal(folder, "decide-2", clock)
    for second, journal in enumerate((one, two, two, one)):
        journal.append(an_entry(time=NOON + timedelta(seconds=second)))
    found = [(line.record.writer, line.record.seq) for line in newest(folder, ends(folder), unbroken)]
    assert found == [("decide-1", 2), ("decide-2", 2), ("decide-2", 1), ("decide-1", 1)]
    one.close()
    two.close()


def test_a_follower_loses_and_repeats_nothing_while_the_journal_rotates(folder: Path) -> None:
    dice = random.Random(3)
    journal = a_journal(folder, 4)
    follower = Follower(folder, ends(folder), unbroken)
    seen: list[int] = []
    for _ in range(40):
        for _ in range(dice.randrange(8)):
            journal.append(an_entry())
        seen += [line.record.seq for line in follower.poll()]
    journal.close()
    assert seen == list(range(5, len(raw_lines(folder)) + 1))
    assert len(list_segments(folder)[WRITER]) > 20


def test_the_past_and_what_follows_make_the_whole(folder: Path) -> None:
    journal = a_journal(folder, 5)
    positions = ends(folder)
    journal.append(an_entry())
    past = [line.record.seq for line in newest(folder, positions, unbroken)]
    journal.append(an_entry())
    assert [*reversed(past), *(line.record.seq for line in Follower(folder, positions, unbroken).poll())] == [
        1, 2, 3, 4, 5, 6, 7,
    ]  # fmt: skip
    journal.close()


def test_a_writer_that_comes_later_is_read_from_its_beginning(folder: Path) -> None:
    first = a_journal(folder, 1)
    follower = Follower(folder, ends(folder), unbroken)
    second = a_journal(folder, 2, "decide-2")
    assert [line.record.request_id for line in follower.poll()] == ["decide-2-0", "decide-2-1"]
    first.close()
    second.close()


@given(cuts=st.lists(st.integers(0, 4000), max_size=6))
def test_half_a_line_is_no_record_until_it_is_whole(cuts: list[int], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("half") / "journal"
    a_journal(folder, 5, limits=Limits()).close()
    segment = folder / segment_name(WRITER, 1)
    data = segment.read_bytes()
    follower = Follower(folder, {}, unbroken)
    seen: list[bytes] = []
    for cut in [*sorted(cuts), len(data)]:
        segment.write_bytes(data[:cut])
        assert ends(folder)[WRITER].offset == data[:cut].rfind(b"\n") + 1
        seen += [line.raw for line in follower.poll()]
    assert b"".join(seen) == data


class Refusing(FailingDisk):
    """A medium that refuses what a reader has seen already."""

    def __init__(self) -> None:
        super().__init__()
        self.look: Callable[[], object] = lambda: None

    def sync(self, fd: int) -> None:
        """Let the reader look, then fail if broken."""
        self.look()
        super().sync(fd)


@pytest.mark.parametrize("refused", [1, 5])
@pytest.mark.parametrize("name", ["", "longer" * 20])
def test_what_the_medium_refused_is_read_as_what_came_in_its_place(folder: Path, refused: int, name: str) -> None:
    disk, read = Refusing(), list[int]()
    journal = Journal(folder, WRITER, FakeClock(), durability="fsync", disk=disk)
    follower = Follower(folder, {}, unbroken)
    disk.look = lambda: read.extend(line.record.seq for line in follower.poll())
    journal.append(an_entry())
    journal.append(an_entry())
    disk.broken = {"sync"}
    assert None not in journal.keep_all([an_entry(request_id=str(number)) for number in range(refused)])
    assert read == [*range(1, 3 + refused)]
    disk.broken, disk.look = set(), lambda: None
    for _ in range(9):
        journal.append(an_entry(request_id=name))
    assert [line.record.seq for line in follower.poll()] == [*range(3, 13)]  # and the gap
    journal.close()


def test_a_reader_far_behind_gets_on_in_steps(folder: Path) -> None:
    a_journal(folder, 10).close()
    follower = Follower(folder, {}, unbroken, budget=1500)
    steps = []
    while lines := follower.poll():
        steps.append([line.record.seq for line in lines])
    assert [seq for step in steps for seq in step] == list(range(1, 11))
    assert len(steps) > 3


def test_a_segment_that_retention_took_is_passed_over(folder: Path) -> None:
    journal = a_journal(folder, 9)
    follower = Follower(folder, {WRITER: Position(1, 0)}, unbroken)
    for segment in list_segments(folder)[WRITER][:2]:
        segment.path.unlink()
    seen = [line.record.seq for line in follower.poll()]
    assert seen == [decode(line).seq for line in raw_lines(folder)]
    assert seen[-1] == 9
    journal.close()


@pytest.mark.parametrize("damage", [b"garbage\n", b"\n", b"{}\n", b"x" * (2 * MAX_LINE_BYTES + 99) + b"\n"])
def test_what_is_no_record_is_reported_and_passed_over(folder: Path, damage: bytes) -> None:
    a_journal(folder, 2, limits=Limits()).close()
    segment = folder / segment_name(WRITER, 1)
    first, second = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(first + damage + second)
    broken: list[BrokenRecord] = []
    forward = [line.record.seq for line in Follower(folder, {}, broken.append).poll()]
    backward = [line.record.seq for line in newest(folder, ends(folder), broken.append)]
    assert (forward, backward) == ([1, 2], [2, 1])
    assert len(broken) == 2
    assert broken[0].message.startswith(f"`{segment}`, byte {len(first)}: ")


def test_no_folder_is_an_error(folder: Path) -> None:
    with pytest.raises(JournalError, match="cannot be listed: No such file or directory"):
        ends(folder)


# ---- sealed segments


def seal_all_but_the_last(folder: Path) -> None:
    for segment in list_segments(folder)[WRITER][:-1]:
        seal_by_hand(segment.path)


def test_sealed_and_open_segments_read_alike(folder: Path) -> None:
    a_journal(folder, 10).close()
    lines, positions = raw_lines(folder), ends(folder)
    middle = Position(4, len(lines[3]) + len(lines[4]))
    seal_all_but_the_last(folder)
    assert [segment.is_sealed for segment in list_segments(folder)[WRITER]] == [True, True, True, False]
    assert ends(folder) == positions
    assert [line.raw for line in newest(folder, positions, unbroken)] == lines[::-1]
    assert [line.raw for line in newest(folder, {WRITER: middle}, unbroken)] == lines[4::-1]
    assert [line.raw for line in Follower(folder, {}, unbroken).poll()] == lines
    assert [line.raw for line in Follower(folder, {WRITER: middle}, unbroken).poll()] == lines[5:]


def test_a_reader_goes_on_while_segments_are_sealed_under_it(folder: Path) -> None:
    dice = random.Random(4)
    journal = a_journal(folder, 4)
    follower = Follower(folder, {}, unbroken, budget=700)
    seen: list[int] = []
    past = newest(folder, ends(folder), unbroken)
    backward = [next(past).record.seq]
    for _ in range(40):
        for _ in range(dice.randrange(4)):
            journal.append(an_entry())
        for segment in list_segments(folder)[WRITER][:-1]:
            if not segment.is_sealed and dice.random() < 0.5:
                seal_by_hand(segment.path)
        seen += [line.record.seq for line in follower.poll()]
    backward += [line.record.seq for line in past]
    while lines := follower.poll():
        seen += [line.record.seq for line in lines]
    journal.close()
    assert seen == list(range(1, seen[-1] + 1))
    assert seen[-1] > 30
    assert backward == [4, 3, 2, 1]


def test_a_segment_that_is_sealed_between_listing_and_opening_is_read(folder: Path) -> None:
    a_journal(folder, 4).close()
    (first, _) = list_segments(folder)[WRITER]
    seal_by_hand(first.path)
    with open_lines(first, unbroken) as lines:
        assert [decode(line.raw).seq for line in lines.forward(0)] == [1, 2, 3]


@pytest.mark.parametrize("damage", ["a bit", "its end", "its beginning", "another's", "a newer format"])
def test_what_is_damaged_of_a_sealed_segment_is_said_and_the_rest_is_read(folder: Path, damage: str) -> None:
    a_journal(folder, 4).close()
    (first, _) = list_segments(folder)[WRITER]
    path = seal_by_hand(first.path)
    data = path.read_bytes()
    if damage == "a bit":
        path.write_bytes(data[:60] + bytes([data[60] ^ 1]) + data[61:])
    elif damage == "its end":
        path.write_bytes(data[:-3])
    elif damage == "its beginning":
        path.write_bytes(b"else" + data[4:])
    elif damage == "another's":
        path.write_bytes(data.replace(WRITER.encode(), b"serve-0a1b2c3e"))
    else:
        path.write_bytes(data.replace(b"segment 1", b"segment 2", 1))
    broken: list[BrokenRecord] = []
    forward = [line.record.seq for line in Follower(folder, {}, broken.append).poll()]
    backward = [line.record.seq for line in newest(folder, ends(folder), broken.append)]
    assert (forward, backward) == ([4], [4])
    assert len(broken) == 2
    assert all(error.message.startswith(f"`{path}`") for error in broken)
