"""`policyd log`: what an auditor sees."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from policyd.audit.journal import Journal
from policyd.audit.record import Fault, Shadow
from policyd.audit.segments import segment_name
from policyd.cli.exits import Exit
from tests.audit.samples import NOON, WRITER, an_entry, raw_lines
from tests.cli.conftest import Said
from tests.fakes.clock import FakeClock
from tests.golden import check_text

RATINGS = 'Service::"ratings.shop"'
ENTRIES = [
    an_entry(),
    an_entry(
        time=NOON + timedelta(milliseconds=7),
        decision="deny",
        status=403,
        resource=RATINGS,
        reasons=(),
        context={"request": {"method": "DELETE", "path": "/ratings/0"}},
        cached=True,
        duration_us=90,
    ),
    an_entry(principal='Unauthenticated::"anonymous"', decision="deny", reasons=("no-strangers",), duration_us=0),
    an_entry(decision="error", status=503, reasons=(), errors=(Fault("decision", "no revision is in force"),)),
    an_entry(context={"request": {"path": "/\x1b[31mred\nline"}}),
    an_entry(
        kind="issuance",
        resource="",
        action="",
        context={},
        duration_us=0,
        detail={"serial": "1f", "agent": "node-1"},
    ),
    an_entry(
        kind="change", principal="", resource="", decision=None, reasons=(), duration_us=0, detail={"revision": "77"}
    ),
]
TRIED = [
    Shadow(decision="allow", reasons=("reviews-from-productpage",), revision="77"),
    Shadow(decision="deny", reasons=("no-reads", "no-writes"), revision="77"),
    Shadow(decision="deny", revision="77"),
    Shadow(decision="error", errors=(Fault("shadow_skipped", "no time"),), revision="77"),
]


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    """The journal of the folder, with a record of each sort."""
    opened = Journal(folder / ".policyd" / "journal", WRITER, FakeClock())
    for entry in ENTRIES:
        opened.append(entry)
    yield opened
    opened.close()


Command = Callable[..., Said]


def test_a_record_is_one_readable_line(
    policyd: Command, folder: Path, journal: Journal, request: pytest.FixtureRequest
) -> None:
    said = policyd("log", "tail", "--dir", folder, "--no-follow")
    assert (said.code, said.err, said.out.count("\n")) == (Exit.OK, "", len(ENTRIES))
    check_text("cli/log_tail.txt", said.out, update=request.config.getoption("--update-golden"))


def test_what_the_shadow_policies_would_have_done_is_told_where_it_differs(
    policyd: Command, folder: Path, journal: Journal
) -> None:
    for shadow in TRIED:
        journal.append(an_entry(shadow=shadow))
    said = policyd("log", "tail", "--dir", folder, "--no-follow", "-n", str(len(TRIED)))
    asked = "2026-11-23 12:00:00.000Z  allow  productpage -> reviews  GET /reviews/0  reviews-from-productpage  "
    assert said.out.splitlines() == [
        f"{asked}0.4 ms",
        f"{asked}(shadow: deny by no-reads, no-writes)  0.4 ms",
        f"{asked}(shadow: deny)  0.4 ms",
        f"{asked}(shadow: error by shadow_skipped: no time)  0.4 ms",
    ]


def test_json_gives_the_records_as_they_are(policyd: Command, folder: Path, journal: Journal) -> None:
    said = policyd("log", "tail", "--dir", folder, "--no-follow", "--json", "-n", "2")
    assert said.out.encode() == b"".join(raw_lines(journal.directory)[-2:])


@pytest.mark.parametrize(
    ("options", "seqs"),
    [
        ([], [1, 2, 3, 4, 5, 6, 7]),
        (["-n", "0"], []),
        (["-n", "2"], [6, 7]),
        (["--decision", "deny"], [2, 3]),
        (["--decision", "deny", "-n", "1"], [3]),
        (["--principal", "anonymous"], [3]),
        (["--principal", "spiffe://cluster.local/ns/default/sa/productpage", "--kind", "issuance"], [6]),
        (["--resource", "ratings.shop"], [2]),
        (["--resource", "nothing"], []),
        (["--kind", "change"], [7]),
    ],
)
def test_filters_choose_among_the_past(
    policyd: Command, folder: Path, journal: Journal, options: list[str], seqs: list[int]
) -> None:
    said = policyd("log", "tail", "--dir", folder, "--no-follow", "--json", *options)
    assert [json.loads(line)["seq"] for line in said.out.splitlines()] == seqs


def test_new_records_are_shown_as_they_come_until_ctrl_c(root: Path, folder: Path, journal: Journal) -> None:
    words = ["log", "tail", "--dir", str(folder), "--json", "-n", "1", "--decision", "deny"]
    child = subprocess.Popen(
        [sys.executable, "-m", "policyd.cli.main", *words], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    try:
        seen = [json.loads(child.stdout.readline())["seq"]]
        journal.append(an_entry())
        journal.append(an_entry(decision="deny"))
        seen.append(json.loads(child.stdout.readline())["seq"])
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == Exit.INTERRUPTED
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert seen == [3, 9]


def test_a_broken_line_is_said_on_standard_error(policyd: Command, folder: Path, journal: Journal) -> None:
    with (journal.directory / segment_name(WRITER, 1)).open("ab") as file:
        file.write(b"rubbish\n")
    said = policyd("log", "tail", "--dir", folder, "--no-follow", "--json", "-n", "1")
    assert json.loads(said.out)["seq"] == 7
    assert said.err.startswith(f"warning: `{journal.directory / segment_name(WRITER, 1)}`, byte ")


def test_verify_says_that_the_journal_is_whole(policyd: Command, folder: Path, journal: Journal) -> None:
    said = policyd("log", "verify", "--dir", folder)
    assert (said.code, said.out) == (Exit.OK, f"{WRITER}: 7 records, 1 to 7\nwhole\n")


def test_verify_names_the_first_record_that_does_not_fit(policyd: Command, folder: Path, journal: Journal) -> None:
    path = journal.directory / segment_name(WRITER, 1)
    path.write_bytes(path.read_bytes().replace(b"DELETE", b"GET", 1))
    message = "record 3 does not continue what stands before it: one of the two was changed"
    remedy = "compare with a copy; from here on the journal proves nothing"
    said = policyd("log", "verify", "--dir", folder)
    assert (said.code, said.out) == (
        Exit.ERROR,
        f"{WRITER}: 2 records, 1 to 2\nbroken: {path}:3: {message}; {remedy}\n",
    )
    as_json = policyd("log", "verify", "--dir", folder, "--json")
    assert as_json.code == Exit.ERROR
    assert as_json.value == {
        "whole": False,
        "writers": [{"writer": WRITER, "first": 1, "last": 2, "sealed": 0, "retired": 0, "pending_bytes": 0}],
        "newest_seal": None,
        "root_sha256": "",
        "problems": [{"code": "broken_record", "message": message, "file": str(path), "line": 3, "remedy": remedy}],
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--expect", "4"], "`4` is no seal"),
        (["--expect", f"0:{'a' * 64}"], "` is no seal"),
        (["--root", "{}/nowhere.pem"], "nowhere.pem` is not there"),
        (["--root", "{}/workloads.yaml"], "this is no certificate in PEM"),
    ],
)
def test_verify_refuses_what_it_cannot_check_with(
    policyd: Command, folder: Path, journal: Journal, options: list[str], said: str
) -> None:
    (folder / "workloads.yaml").write_text("workloads: {}\n")
    answer = policyd("log", "verify", "--dir", folder, *(option.format(folder) for option in options))
    assert (answer.code, answer.out) == (Exit.USAGE, "")
    assert said in answer.err


def test_a_seal_that_was_noted_is_missed_where_nothing_is_sealed(
    policyd: Command, folder: Path, journal: Journal
) -> None:
    answer = policyd("log", "verify", "--dir", folder, "--expect", f"4:{'a' * 64}")
    assert answer.code == Exit.ERROR
    assert "seal 4 is missing, the last one is 0" in answer.out


@pytest.mark.parametrize("command", ["tail", "verify"])
def test_a_folder_that_never_ran_has_no_journal(policyd: Command, folder: Path, command: str) -> None:
    said = policyd("log", command, "--dir", folder)
    assert (said.code, said.out) == (Exit.ERROR, "")
    assert said.err == f"error: `{folder}` has no journal\n  start it with `policyd up {folder}`\n"
