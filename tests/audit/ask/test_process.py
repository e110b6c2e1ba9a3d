"""What answers questions: one SELECT over the copy, and nothing else, whatever is asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policyd.audit.ask.child import Question
from policyd.audit.ask.copy import refresh
from policyd.audit.ask.process import Bounds, asked
from policyd.audit.journal import Journal
from policyd.errors import QuestionError
from tests.audit.samples import WRITER, an_entry
from tests.fakes.clock import FakeClock

SMALL = Bounds(memory=256 << 20, seconds=60)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """The copy of a journal with three records."""
    folder = tmp_path_factory.mktemp("asked")
    journal = Journal(folder / "journal", WRITER, FakeClock())
    for number in range(3):
        journal.append(an_entry(duration_us=number))
    yield refresh(folder / "journal", folder / "columns", broken=print, progress=lambda *_: None)
    journal.close()


def answer(copy: list[Path], sql: str, bounds: Bounds = SMALL) -> list[tuple[Any, ...]]:
    with asked(copy, [Question(sql)], bounds) as answers:
        return list(next(answers).rows)


def test_a_select_is_answered(copy: list[Path]) -> None:
    sql = "SELECT principal, count(*), max(time), first(path), list(duration_us ORDER BY seq) FROM records GROUP BY ALL"
    principal = 'Workload::"spiffe://cluster.local/ns/default/sa/productpage"'
    assert answer(copy, sql) == [(principal, 3, "2026-11-23T12:00:00Z", "/reviews/0", [0, 1, 2])]


def test_several_questions_are_answered_in_their_order(copy: list[Path]) -> None:
    questions = [Question("SELECT 1 AS a"), Question("SELECT seq FROM records WHERE seq > ? ORDER BY 1", (1,))]
    with asked(copy, questions, SMALL) as answers:
        assert [(one.columns, list(one.rows)) for one in answers] == [(("a",), [(1,)]), (("seq",), [(2,), (3,)])]


def test_rows_that_nobody_reads_are_passed_over(copy: list[Path]) -> None:
    with asked(copy, [Question("SELECT * FROM range(5000)"), Question("SELECT 2 AS b")], SMALL) as answers:
        assert [one.columns for one in answers] == [("range",), ("b",)]


REFUSED = "file system operations are disabled by configuration"


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("", "no statements; ask one question at a time"),
        ("SELECT 1; SELECT 2", "2 statements; ask one question at a time"),
        ("SELECT 1; COPY records TO '{folder}/x'", "2 statements; ask one question at a time"),
        ("COPY records TO '{folder}/x.parquet'", "a statement that is COPY; only SELECT is answered"),
        ("COPY records TO '{copy}'", "a statement that is COPY; only SELECT is answered"),
        ("CREATE TABLE t AS SELECT 1", "a statement that is CREATE; only SELECT is answered"),
        ("INSERT INTO records VALUES (1)", "a statement that is INSERT; only SELECT is answered"),
        ("DROP VIEW records", "a statement that is DROP; only SELECT is answered"),
        ("ATTACH '{folder}/x.db'", "a statement that is ATTACH; only SELECT is answered"),
        ("INSTALL httpfs", "a statement that is LOAD; only SELECT is answered"),
        ("LOAD httpfs", "a statement that is LOAD; only SELECT is answered"),
        ("PRAGMA database_list", "a statement that is PRAGMA; only SELECT is answered"),
        ("SET memory_limit = '64GB'", "a statement that is SET; only SELECT is answered"),
        ("EXPORT DATABASE '{folder}/x'", "a statement that is EXPORT; only SELECT is answered"),
        ("EXPLAIN ANALYZE SELECT 1", "a statement that is EXPLAIN; only SELECT is answered"),
        ("SELECT * FROM read_text('/etc/passwd')", REFUSED),
        ("SELECT * FROM read_blob('/proc/self/environ')", REFUSED),
        ("SELECT * FROM read_csv('/etc/passwd')", REFUSED),
        ("SELECT * FROM glob('/etc/*')", REFUSED),
        ("SELECT * FROM '/etc/passwd'", "does not exist"),
        ("SELECT * FROM read_json('http://127.0.0.1:9/')", REFUSED),
        ("SELECT * FROM duckdb_secrets()", REFUSED),
        ("SELECT * FROM query('COPY records TO ''{copy}''')", "Expected a single SELECT statement"),
        ("SELECT getenv('HOME')", "does not exist"),
        ("SELECT * FROM task", "does not exist"),  # a variable of the process that answers
        ("SELECT nonsense", "nonsense"),
    ],
)
def test_anything_else_is_refused(copy: list[Path], tmp_path: Path, sql: str, message: str) -> None:
    before = copy[0].read_bytes()
    with pytest.raises(QuestionError) as raised:
        answer(copy, sql.format(folder=tmp_path, copy=copy[0]))
    assert message in raised.value.message
    assert (copy[0].read_bytes(), list(tmp_path.iterdir())) == (before, [])


def test_an_answer_has_a_bound_on_memory(copy: list[Path]) -> None:
    with pytest.raises(QuestionError, match="Out of Memory"):
        answer(copy, "SELECT * FROM range(10000000000) t(a) ORDER BY hash(a)")


def test_an_answer_has_a_bound_on_time(copy: list[Path]) -> None:
    with pytest.raises(QuestionError) as raised:
        answer(copy, "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a, b) = 1", Bounds(1 << 30, 2))
    assert raised.value.message == "the answer takes more than 2 seconds"


def test_the_process_that_answers_is_gone_when_nobody_reads_on(copy: list[Path]) -> None:
    with asked(copy, [Question("SELECT * FROM range(100000000)")], SMALL) as answers:
        next(next(answers).rows)
    assert answering() == []


def answering() -> list[int]:
    """The processes that answer and were started here."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(one) for one in children if b"policyd.audit.ask.child" in Path(f"/proc/{one}/cmdline").read_bytes()]


def test_a_folder_that_says_what_is_imported_is_not_listened_to(
    copy: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "duckdb.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert answer(copy, "SELECT 1") == [(1,)]
