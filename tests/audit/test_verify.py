"""A journal that was tampered with is found out, and the first record that does not fit is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from policyd.audit.appender import Limits
from policyd.audit.journal import Journal
from policyd.audit.segments import list_segments, segment_name
from policyd.audit.verify import Verdict, verify
from policyd.audit.verify_writer import Chain
from tests.audit.samples import WRITER, an_entry
from tests.fakes.clock import FakeClock

Lines = list[bytes]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journal of three segments, of 3, 3 and 1 records."""
    folder = tmp_path / "journal"
    journal = Journal(folder, WRITER, FakeClock(), limits=Limits(max_bytes=2000))
    for _ in range(7):
        journal.append(an_entry())
    journal.close()
    assert [segment.first_seq for segment in list_segments(folder)[WRITER]] == [1, 4, 7]
    return folder


def test_a_whole_journal_is_whole(folder: Path) -> None:
    assert verify(folder) == Verdict((Chain(WRITER, 1, 7),))
    assert verify(folder).chains[0].count == 7


def test_oldest_segments_that_are_gone_without_a_seal_that_says_so_are_missed(folder: Path) -> None:
    (folder / segment_name(WRITER, 1)).unlink()
    verdict = verify(folder)
    (problem,) = verdict.problems
    assert problem.message == "records 1 to 3 are missing, and no seal says that they were removed"
    assert (problem.file, verdict.chains) == (str(folder / segment_name(WRITER, 4)), (Chain(WRITER, 0, 0),))


def test_a_line_that_is_being_written_is_pending(folder: Path) -> None:
    with (folder / segment_name(WRITER, 7)).open("ab") as file:
        file.write(b'{"time":')
    assert verify(folder) == Verdict((Chain(WRITER, 1, 7, pending=8),))


def test_nothing_is_whole(tmp_path: Path) -> None:
    assert verify(tmp_path) == Verdict()


@pytest.mark.parametrize(
    ("break_it", "line", "last", "message"),
    [
        (
            lambda lines: [lines[0], lines[1].replace(b'"allow"', b'"deny"'), lines[2]],
            3, 5, "record 6 does not continue what stands before it: one of the two was changed",
        ),
        (lambda lines: [lines[0], lines[2]], 2, 4, "record 6 follows record 4"),
        (lambda lines: [lines[0], lines[0], lines[2]], 2, 4, "record 4 follows record 4"),
        (lambda lines: [lines[1], lines[0], lines[2]], 1, 3, "this is record 5, by the file's name 4"),
        (lambda lines: [lines[0], b"\n", lines[2]], 2, 4, "no record: Input data was truncated"),
        (lambda lines: [lines[0], lines[1][:-1]], 2, 4, "this line is no whole record"),
        (
            lambda lines: [lines[0], lines[1].replace(WRITER.encode(), b"serve-else"), lines[2]],
            2, 4, "this record is of writer `serve-else`",
        ),
    ],
)  # fmt: skip
def test_the_first_record_that_does_not_fit_is_named(
    folder: Path, break_it: Callable[[Lines], Lines], line: int, last: int, message: str
) -> None:
    path = folder / segment_name(WRITER, 4)
    path.write_bytes(b"".join(break_it(path.read_bytes().splitlines(keepends=True))))
    verdict = verify(folder)
    (problem,) = verdict.problems
    assert (problem.file, problem.line, problem.message) == (str(path), line, message)
    assert verdict.chains == (Chain(WRITER, 1, last),)


def test_a_segment_taken_out_of_the_middle_is_missed(folder: Path) -> None:
    (folder / segment_name(WRITER, 4)).unlink()
    (problem,) = verify(folder).problems
    assert problem.message == "record 7 follows record 3"


def test_a_first_record_that_is_not_the_writers_own_is_found(folder: Path) -> None:
    other = folder / segment_name("other", 1)
    other.write_bytes((folder / segment_name(WRITER, 1)).read_bytes().replace(WRITER.encode(), b"other"))
    (problem,) = verify(folder).problems
    assert (problem.file, problem.line) == (str(other), 1)
