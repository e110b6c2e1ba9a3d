"""The columnar copy: complete, brought up to date by segments, and made anew from the journal alone."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policyd.audit.ask import copy as copies
from policyd.audit.ask.child import Question
from policyd.audit.ask.columns import COLUMNS, FIELDS
from policyd.audit.ask.copy import refresh
from policyd.audit.ask.process import Bounds, asked
from policyd.audit.ask.records import record_of
from policyd.audit.journal import Journal, Limits
from policyd.audit.record import Fault
from policyd.audit.segments import list_segments
from policyd.errors import QuestionError
from tests.audit.samples import NOON, WRITER, an_entry, records
from tests.fakes.clock import FakeClock

EVERYTHING = an_entry(
    errors=(Fault("p", 'it\'s "broken"'), Fault("q", "")),
    context={
        "request": {"method": "GET", "host": "reviews", "path": "/ä'\"\\ \u2028", "headers": {"x": "1"}},
        "n": [1],
    },
    masked=("request.headers.y",),
    request_id="r",
    trace_id="0" * 32,
    cached=True,
    detail={"serial": "1f"},
)
ENTRIES = [
    EVERYTHING,
    an_entry(),
    an_entry(kind="change", decision=None, principal="", time=NOON + timedelta(seconds=1)),
]


def rows(files: list[Path], sql: str = "SELECT * FROM records ORDER BY writer, seq") -> list[dict[str, Any]]:
    with asked(files, [Question(sql)], Bounds()) as answers:
        return list(next(answers).values())


def up_to_date(folder: Path, broken: list[str] | None = None) -> list[Path]:
    told = broken if broken is not None else []
    return refresh(folder / "journal", folder / "columns", lambda error: told.append(str(error)), lambda *_: None)


def write(folder: Path, entries: list[Any], writer: str = WRITER, **limits: Any) -> None:
    journal = Journal(folder / "journal", writer, FakeClock(), limits=Limits(**limits) if limits else None)
    for entry in entries:
        journal.append(entry)
    journal.close()


def test_a_record_comes_back_whole_but_for_its_hash(tmp_path: Path) -> None:
    write(tmp_path, ENTRIES)
    found = [record_of({one.name: row[one.name] for one in FIELDS}) for row in rows(up_to_date(tmp_path))]
    assert found == [msgspec.structs.replace(one, prev="") for one in records(tmp_path / "journal")]


def test_what_is_asked_often_has_a_column(tmp_path: Path) -> None:
    write(tmp_path, ENTRIES)
    [first, second, third] = rows(up_to_date(tmp_path), "SELECT method, host, path FROM records ORDER BY seq")
    assert first == {"method": "GET", "host": "reviews", "path": "/ä'\"\\ \u2028"}
    assert second == {"method": "GET", "host": "", "path": "/reviews/0"}
    assert third == second


def test_every_column_says_what_it_holds() -> None:
    assert [one.name for one in COLUMNS if not one.meaning] == []


def test_finished_segments_are_copied_once(tmp_path: Path) -> None:
    write(tmp_path, [an_entry() for _ in range(30)], max_bytes=4096)
    first = up_to_date(tmp_path)
    made = {path: path.stat().st_mtime_ns for path in first}
    write(tmp_path, [an_entry() for _ in range(10)], max_bytes=4096)
    second = up_to_date(tmp_path)

    assert len(first) == len(list_segments(tmp_path / "journal")[WRITER]) - len(set(second) - set(first)) + 1
    kept = set(first) & set(second)
    assert len(kept) == len(first) - 1  # all but the part of the one that was written
    assert {path: path.stat().st_mtime_ns for path in kept} == {path: made[path] for path in kept}
    assert [row["seq"] for row in rows(second)] == list(range(1, 41))
    assert sorted(second) == sorted(second[0].parent.iterdir())


def test_what_the_journal_no_longer_has_the_copy_has_not(tmp_path: Path) -> None:
    write(tmp_path, [an_entry() for _ in range(30)], max_bytes=4096)
    up_to_date(tmp_path)
    oldest = list_segments(tmp_path / "journal")[WRITER][0]
    oldest.path.unlink()
    assert rows(up_to_date(tmp_path))[0]["seq"] == list_segments(tmp_path / "journal")[WRITER][0].first_seq


def test_a_copy_that_is_gone_or_of_another_form_is_made_anew(tmp_path: Path) -> None:
    write(tmp_path, ENTRIES)
    up_to_date(tmp_path)
    (tmp_path / "columns" / "0ld").mkdir()
    shutil.rmtree(tmp_path / "columns" / copies.FORM)
    assert len(rows(up_to_date(tmp_path))) == len(ENTRIES)
    assert not (tmp_path / "columns" / "0ld").exists()


def test_several_writers_and_an_empty_journal(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir(mode=0o700)
    assert rows(up_to_date(tmp_path)) == []
    write(tmp_path, ENTRIES, "a")
    write(tmp_path, ENTRIES, "b")
    assert [(row["writer"], row["seq"]) for row in rows(up_to_date(tmp_path))] == [
        (writer, seq) for writer in "ab" for seq in (1, 2, 3)
    ]


def test_a_line_that_is_no_record_is_told_and_left_out(tmp_path: Path) -> None:
    write(tmp_path, ENTRIES)
    with list_segments(tmp_path / "journal")[WRITER][0].path.open("ab") as file:
        file.write(b'{"time": "rubbish"}\n')
    told: list[str] = []
    assert len(rows(up_to_date(tmp_path, told))) == len(ENTRIES)
    assert len(told) == 1
    assert "no record" in told[0]


def test_large_journals_are_copied_on_all_cores(tmp_path: Path) -> None:
    write(tmp_path, [an_entry() for _ in range(30)], max_bytes=4096)
    told: list[tuple[int, int]] = []
    files = refresh(
        tmp_path / "journal", tmp_path / "columns", print, lambda done, total: told.append((done, total)), many=0
    )
    assert len(rows(files)) == 30
    assert told == [(number, len(files)) for number in range(1, len(files) + 1)]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    write(tmp_path, ENTRIES)
    (tmp_path / "columns").write_text("a file")
    with pytest.raises(QuestionError, match="cannot be made: "):
        up_to_date(tmp_path)


@pytest.mark.parametrize("many", [0, 1 << 30])
def test_interrupted_it_leaves_nothing_half_made_and_the_next_one_goes_on(tmp_path: Path, many: int) -> None:
    """On all cores, and on one."""
    write(tmp_path, [an_entry()] * 12, max_bytes=2000)
    count = len(list_segments(tmp_path / "journal")[WRITER])
    told: list[tuple[int, int]] = []

    def interrupted(done: int, total: int) -> None:
        told.append((done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refresh(tmp_path / "journal", tmp_path / "columns", pytest.fail, interrupted, many)
    assert told == [(1, count)]
    there = [path for path in (tmp_path / "columns").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert there
    assert {path.suffix for path in there} == {".parquet"}
    before = {path: path.stat().st_mtime_ns for path in there}
    files = up_to_date(tmp_path)
    assert len(files) == count
    assert {path: path.stat().st_mtime_ns for path in there} == before
    assert len(rows(files)) == 12
