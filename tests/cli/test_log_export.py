"""`policyd log export`: every record once, across interruptions, in files that are whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from policyd.audit.journal import Journal, Limits
from policyd.cli.exits import Exit
from policyd.cli.log_export import CHUNK_RECORDS, State
from tests.audit.samples import NOON, an_entry, raw_lines
from tests.cli.conftest import Said
from tests.fakes.clock import FakeClock

Command = Callable[..., Said]


def write(folder: Path, hours: list[int], writer: str = "w") -> Path:
    journal = Journal(folder / ".policyd" / "journal", writer, FakeClock(), limits=Limits(max_bytes=2048))
    for hour in hours:
        journal.append(an_entry(time=NOON + timedelta(hours=hour)))
    journal.close()
    return journal.directory


def seqs(target: Path) -> list[int]:
    lines = [line for path in sorted(target.glob("records-*.jsonl")) for line in path.read_bytes().splitlines()]
    return [json.loads(line)["seq"] for line in lines]


@pytest.mark.parametrize(
    ("target", "why"),
    [("{file}", "file exists"), ("{file}/below", "not a directory")],
)
def test_a_folder_that_cannot_be_is_told(policyd: Command, folder: Path, target: str, why: str) -> None:
    write(folder, [0])
    file = folder / "file"
    file.touch()
    named = target.format(file=file)
    told = f"error: `{named}` is no folder and cannot be made one: {why}\n  name another one\n"
    assert policyd("log", "export", named, "--dir", folder) == Said(Exit.USAGE, "", told)


def test_lines_are_printed_as_they_are(policyd: Command, folder: Path) -> None:
    journal = write(folder, [0, 1, 2])
    assert policyd("log", "export", "--dir", folder).out.encode() == b"".join(raw_lines(journal))
    narrowed = policyd("log", "export", "--dir", folder, "--since", "2026-11-23T13:00:00Z").out.encode()
    assert narrowed == b"".join(raw_lines(journal)[1:])


def test_an_export_goes_on_where_it_stopped(policyd: Command, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    journal = write(folder, list(range(20)))
    first = policyd("log", "export", target, "--dir", folder)
    assert (first.code, first.out) == (Exit.OK, f"20 records in 1 file; `{target}` has 20\n")
    assert policyd("log", "export", target, "--dir", folder).out == f"0 records in 0 files; `{target}` has 20\n"
    write(folder, list(range(20, 25)))
    again = policyd("log", "export", target, "--dir", folder, "--json")
    assert again.value == {"files": 1, "records": 5, "folder": str(target)}
    assert seqs(target) == list(range(1, 26))
    assert b"".join(path.read_bytes() for path in sorted(target.glob("*.jsonl"))) == b"".join(raw_lines(journal))
    assert {oct(path.stat().st_mode)[-3:] for path in target.iterdir()} == {"600"}


def test_a_file_that_was_not_finished_is_made_again(policyd: Command, folder: Path, tmp_path: Path) -> None:
    """Killed between the file and the note of it: the same file is written again, and no record is in two."""
    target = tmp_path / "out"
    write(folder, list(range(5)))
    policyd("log", "export", target, "--dir", folder)
    state = (target / "export.json").read_bytes()
    write(folder, [5, 6])
    policyd("log", "export", target, "--dir", folder)
    (target / "export.json").write_bytes(state)
    (target / ".records-000002.jsonl.part").write_bytes(b"half a li")
    policyd("log", "export", target, "--dir", folder)
    assert seqs(target) == [1, 2, 3, 4, 5, 6, 7]
    assert sorted(path.name for path in target.iterdir()) == [
        "export.json",
        "records-000001.jsonl",
        "records-000002.jsonl",
    ]


def test_columns_are_those_of_sql(policyd: Command, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    write(folder, [0, 1, 2])
    assert policyd("log", "export", target, "--format", "parquet", "--dir", folder).code == Exit.OK
    names = [path.name for path in target.glob("records-*")]
    assert names == ["records-000001.parquet"]
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT seq, path, principal <> '' FROM '{target / names[0]}' ORDER BY seq")
        assert found.fetchall() == [(seq, "/reviews/0", True) for seq in (1, 2, 3)]


def test_a_time_range_is_remembered(policyd: Command, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    write(folder, list(range(10)))
    since = ("--since", "2026-11-23T14:00:00Z", "--until", "2026-11-23T20:00:00Z")
    policyd("log", "export", target, "--dir", folder, *since)
    write(folder, [7, 30])
    policyd("log", "export", target, "--dir", folder)
    assert seqs(target) == [3, 4, 5, 6, 7, 8, 11]
    other = policyd("log", "export", target, "--dir", folder, "--since", "2026-11-23T00:00:00Z")
    assert (other.code, "another form or time range" in other.err) == (Exit.USAGE, True)


def test_a_bad_target_is_refused(policyd: Command, folder: Path, tmp_path: Path) -> None:
    write(folder, [0])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "export.json").write_text("{")
    for target, message in (("full", "has files that are no export"), ("broken", "cannot be read")):
        said = policyd("log", "export", tmp_path / target, "--dir", folder)
        assert (said.code, bool(re.search(message, said.err))) == (Exit.USAGE, True)
    said = policyd("log", "export", "--format", "parquet", "--dir", folder)
    assert (said.code, "only JSON lines are printed" in said.err) == (Exit.USAGE, True)


@pytest.mark.parametrize("text", ["{}", '{"form": "xml"}', "[]"])
def test_a_state_that_is_none_is_refused(text: str) -> None:
    import msgspec

    with pytest.raises(msgspec.MsgspecError):
        msgspec.json.decode(text, type=State)
    assert CHUNK_RECORDS >= 1000
