"""`policyd log query`, `stats` and `sql`: what an auditor asks, and what is answered."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from policyd.audit.journal import Journal
from policyd.audit.moments import moment, span
from policyd.cli.exits import Exit
from policyd.errors import UsageError
from tests.audit.samples import NOON, WRITER, an_entry
from tests.cli.conftest import Said
from tests.cli.test_log import ENTRIES
from tests.e2e.terminal import wait_until
from tests.fakes.clock import FakeClock

Command = Callable[..., Said]
LATER = an_entry(
    time=NOON + timedelta(days=1), decision="deny", resource='Service::"details.default"', duration_us=9000, reasons=()
)


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    """A record of each sort, and one a day later."""
    opened = Journal(folder / ".policyd" / "journal", WRITER, FakeClock())
    for entry in (*ENTRIES, LATER):
        opened.append(entry)
    yield opened
    opened.close()


def ask(policyd: Command, folder: Path, *words: str) -> Said:
    return policyd("log", *words, "--dir", folder)


def test_the_newest_records_are_shown_as_tail_shows_them(policyd: Command, folder: Path, journal: Journal) -> None:
    shown = policyd("log", "tail", "--no-follow", "--dir", folder).out
    found = ask(policyd, folder, "query")
    assert (found.code, found.err) == (Exit.OK, "")
    assert sorted(found.out.splitlines()) == sorted(shown.splitlines())
    assert found.out.splitlines()[-1] == shown.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "seqs"),
    [
        ([], [1, 2, 3, 4, 5, 6, 7, 8]),
        (["-n", "2"], [2, 8]),  # by time
        (["--decision", "deny"], [2, 3, 8]),
        (["--decision", "deny", "--since", "2026-11-24T00:00:00Z"], [8]),
        (["--until", "2026-11-23T12:00:00.007Z", "--decision", "deny"], [3]),
        (["--principal", "anonymous"], [3]),
        (["--resource", "ratings.shop"], [2]),
        (["--path", "/ratings/*", "--method", "DELETE"], [2]),
        (["--policy", "no-strangers"], [3]),
        (["--errors"], [4]),
        (["--kind", "issuance"], [6]),
        (["--slowest", "-n", "1"], [8]),
        (["--status", "503"], [4]),
    ],
)
def test_flags_choose(policyd: Command, folder: Path, journal: Journal, words: list[str], seqs: list[int]) -> None:
    found = ask(policyd, folder, "query", "--json", *words)
    assert sorted(json.loads(line)["seq"] for line in found.out.splitlines()) == seqs


def test_records_are_counted_by_what_one_asks(policyd: Command, folder: Path, journal: Journal) -> None:
    found = ask(policyd, folder, "query", "--kind", "decision", "--by", "decision,resource", "--json").value
    counts = [(one["decision"], one["resource"].split('"')[1], one["count"]) for one in found]
    assert counts == [
        ("allow", "reviews.default", 2),
        ("deny", "details.default", 1),
        ("deny", "ratings.shop", 1),
        ("deny", "reviews.default", 1),
        ("error", "reviews.default", 1),
    ]
    table = ask(policyd, folder, "query", "--decision", "deny", "--by", "day,principal").out.splitlines()
    assert [" ".join(line.split()) for line in table] == [
        "DAY PRINCIPAL COUNT FIRST SEEN LAST SEEN",
        "2026-11-23 00:00:00Z anonymous 1 2026-11-23 12:00:00Z 2026-11-23 12:00:00Z",
        "2026-11-23 00:00:00Z productpage 1 2026-11-23 12:00:00Z 2026-11-23 12:00:00Z",
        "2026-11-24 00:00:00Z productpage 1 2026-11-24 12:00:00Z 2026-11-24 12:00:00Z",
    ]


def test_pairs_that_were_never_seen_before(policyd: Command, folder: Path, journal: Journal) -> None:
    found = ask(policyd, folder, "query", "--first-seen", "--since", "2026-11-24", "--json").value
    assert [(one["resource"], one["first_seen"], one["count"], one["decision"]) for one in found] == [
        ('Service::"details.default"', "2026-11-24T12:00:00Z", 1, "deny")
    ]


def test_stats_tell_how_much_there_is(policyd: Command, folder: Path, journal: Journal) -> None:
    value = ask(policyd, folder, "stats", "--json").value
    assert (value["records"], value["writers"], value["principals"], value["decisions"]["max_us"]) == (8, 1, 2, 9000)
    assert {"kind": "decision", "decision": "deny", "count": 3} in value["by_kind"]
    assert "8 of 1 writers" in ask(policyd, folder, "stats").out
    assert ask(policyd, folder, "stats", "--principal", "nobody").out == "no record matches\n"


def test_sql_answers_with_a_table_or_with_json(policyd: Command, folder: Path, journal: Journal) -> None:
    statement = "SELECT kind, count(*) AS n, max(time) AS last FROM records GROUP BY ALL ORDER BY n DESC, kind"
    found = ask(policyd, folder, "sql", statement)
    assert [" ".join(line.split()) for line in found.out.splitlines()] == [
        "kind n last",
        "decision 6 2026-11-24T12:00:00Z",
        "change 1 2026-11-23T12:00:00Z",
        "issuance 1 2026-11-23T12:00:00Z",
    ]
    as_json = ask(policyd, folder, "sql", statement, "--json").out
    assert json.loads(as_json.splitlines()[0]) == {
        "kind": "decision",
        "n": 6,
        "last": "2026-11-24T12:00:00Z",
    }


def test_sql_tells_its_columns(policyd: Command, folder: Path) -> None:
    assert ["time", "TIMESTAMP", "when,"] in [
        line.split()[:3] for line in policyd("log", "sql", "--columns").out.splitlines()
    ]
    assert {"name": "seq", "type": "BIGINT", "meaning": "its number among the writer's"} in policyd(
        "log", "sql", "--columns", "--json"
    ).value


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["sql"], Exit.USAGE, "there is no statement"),
        (["sql", "COPY records TO 'x'"], Exit.ERROR, "a statement that is COPY; only SELECT is answered"),
        (["sql", "SELECT 1", "--memory", "lots"], Exit.USAGE, "`lots` is no size"),
        (["sql", "SELECT 1", "--timeout", "soon"], Exit.USAGE, "`soon` is no duration"),
        (["query", "--by", "colour"], Exit.USAGE, "records are not counted by `colour`"),
        (["query", "--by", ""], Exit.USAGE, "records are not counted by ``"),
        (["query", "--by", "kind", "--slowest"], Exit.USAGE, "three questions"),
        (["query", "--since", "tomorrow"], Exit.USAGE, "`tomorrow` is no time"),
        (["query", "--since", "today", "--until", "yesterday"], Exit.USAGE, "nothing lies between"),
    ],
)
def test_bad_questions_are_refused(
    policyd: Command, folder: Path, journal: Journal, words: list[str], code: int, message: str
) -> None:
    said = ask(policyd, folder, *words)
    assert (said.code, said.out) == (code, "")
    assert message in said.err


@pytest.mark.parametrize("words", [["query"], ["stats"], ["sql", "SELECT 1"]])
def test_without_a_journal_there_is_no_answer(policyd: Command, folder: Path, words: list[str]) -> None:
    said = ask(policyd, folder, *words)
    assert (said.code, said.err.splitlines()[0]) == (Exit.ERROR, f"error: `{folder}` has no journal")


BERLIN = timezone(timedelta(hours=1))
NOW = datetime(2026, 11, 23, 23, 30, tzinfo=UTC)  # half past midnight, the day after, there


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("now", NOW),
        ("1h", NOW - timedelta(hours=1)),
        ("1h30m ago", NOW - timedelta(minutes=90)),
        ("7d", NOW - timedelta(days=7)),
        ("today", datetime(2026, 11, 23, 23, tzinfo=UTC)),
        ("Yesterday", datetime(2026, 11, 22, 23, tzinfo=UTC)),
        ("2026-11-20", datetime(2026, 11, 19, 23, tzinfo=UTC)),
        ("2026-11-20 10:00", datetime(2026, 11, 20, 9, tzinfo=UTC)),
        ("2026-11-20T10:00:00Z", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20T10:00:00.5+02:00", datetime(2026, 11, 20, 8, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_times_are_understood_as_people_write_them(text: str, meant: datetime) -> None:
    assert moment(text, NOW, BERLIN) == meant


@pytest.mark.parametrize(
    "text", ["", "1", "1 fortnight", "2026-13-01", "2026-11-20T25:00:00Z", "0001-01-01T00:00:00+23:59"]
)
def test_what_is_no_time_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        moment(text, NOW, BERLIN)


def test_a_span_is_from_one_time_to_another() -> None:
    found = span("1h", "now", NOW, BERLIN)
    assert [found.holds(NOW - timedelta(minutes=minutes)) for minutes in (61, 60, 1, 0)] == [False, True, True, False]


def test_ctrl_c_ends_a_long_answer_and_who_answers(root: Path, folder: Path, journal: Journal) -> None:
    endless = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a, b) = 1"
    words = [sys.executable, "-m", "policyd.cli.main", "log", "sql", endless, "--dir", str(folder)]
    with subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        wait_until(lambda: bool(children.read_text().split()), 30)
        answering = Path("/proc") / children.read_text().split()[0]
        wait_until(lambda: b"policyd.audit.ask.child" in (answering / "cmdline").read_bytes(), 30)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    assert (child.returncode, out, err) == (Exit.INTERRUPTED, "", "")
    wait_until(lambda: not answering.exists(), 30)


@pytest.mark.parametrize("shape", [[], ["--by", "principal"], ["--slowest"], ["--first-seen"]])
def test_nothing_found_is_said_and_for_a_name_how_to_see_those_there_are(
    policyd: Command, folder: Path, journal: Journal, shape: list[str]
) -> None:
    """Somebody who misspells a service must not report that nobody called it."""
    none = ask(policyd, folder, "query", "--since", "2099-01-01", *shape)
    misspelt = ask(policyd, folder, "query", "--resource", "detials", *shape)

    assert (none.code, none.out) == (Exit.OK, "no record matches\n")
    assert (misspelt.code, misspelt.out) == (
        Exit.OK,
        "no record matches; `policyd log query --by resource` lists the names\n",
    )
