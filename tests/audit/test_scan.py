"""The records of a stretch of time: all of them, in order, and no segment read that cannot hold one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from policyd.audit.journal import Journal, Limits
from policyd.audit.scan import CLOCK_SLACK, Span, scan
from policyd.audit.segments import list_segments
from policyd.errors import JournalError
from tests.audit.samples import NOON, an_entry
from tests.fakes.clock import FakeClock

MINUTE = timedelta(minutes=1)


def write(folder: Path, writer: str, minutes: list[float]) -> None:
    journal = Journal(folder, writer, FakeClock(), limits=Limits(max_bytes=2048))
    for minute in minutes:
        journal.append(an_entry(time=NOON + minute * MINUTE))
    journal.close()


def found(folder: Path, span: Span) -> list[tuple[str, int]]:
    told: list[int] = []
    chosen = scan(folder, span)
    lines = [(line.record.writer, line.record.seq) for line in chosen.lines(print, told.append)]
    assert sum(told) == chosen.size
    return lines


def test_records_of_several_writers_come_in_the_order_of_time(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    write(folder, "a", [0, 2, 4])
    write(folder, "b", [1, 2, 3])
    assert found(folder, Span()) == [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("b", 3), ("a", 3)]
    assert found(folder, Span(NOON + 2 * MINUTE, NOON + 3 * MINUTE)) == [("a", 2), ("b", 2)]


def test_segments_that_end_before_the_span_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    write(folder, "a", list(range(0, 60 * 24, 10)))
    span = Span(NOON + timedelta(hours=20))
    assert [seq for _, seq in found(folder, span)] == list(range(121, 145))
    read, all_ = len(scan(folder, span).writers[0]), len(list_segments(folder)["a"])
    assert read < all_ / 3


def test_a_clock_that_was_set_back_hides_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    back = CLOCK_SLACK / MINUTE - 1
    minutes = [*range(600, 640), *[639 - back + one for one in range(40)], *range(640, 680)]
    write(folder, "a", minutes)
    for since in range(500, 680, 7):
        wanted = [seq for seq, minute in enumerate(minutes, 1) if minute >= since]
        assert sorted(seq for _, seq in found(folder, Span(NOON + since * MINUTE))) == wanted


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError):
        scan(tmp_path / "nothing", Span())
