"""A real process that appends under load and is killed, or meets a full disk."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from policyd.audit.journal import Journal
from policyd.audit.segments import list_segments
from policyd.audit.verify import verify
from policyd.errors import StateError
from tests.audit.samples import WRITER, an_entry, records
from tests.fakes.clock import FakeClock


def start(root: Path, directory: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.audit.appends", str(directory), *arguments]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def acknowledged(child: subprocess.Popen[str], kill_after: int) -> dict[int, str]:
    """What a child was told is kept (seq to request id), having killed it after so many lines."""
    told: dict[int, str] = {}
    assert child.stdout is not None
    for number, line in enumerate(child.stdout):
        if number == kill_after:
            child.kill()
        if line.endswith("\n"):
            seq, request_id = line.split()
            told[int(seq)] = request_id
    assert child.wait() == -9
    child.stdout.close()
    return told


def test_nothing_acknowledged_is_missing_after_kill_9_and_the_next_start_goes_on_gaplessly(
    root: Path, tmp_path: Path
) -> None:
    dice = random.Random(7)
    journal, told = tmp_path / "journal", {}
    for _ in range(5):
        told.update(acknowledged(start(root, journal, "written"), kill_after=dice.randrange(0, 3000)))
    kept = records(journal)
    assert [record.seq for record in kept] == list(range(1, len(kept) + 1))
    by_seq = {record.seq: record.request_id for record in kept}
    assert {seq: by_seq.get(seq) for seq in told} == told
    assert len(list_segments(journal)[WRITER]) > 1
    assert verify(journal).problems == ()


def test_a_full_disk_refuses_and_leaves_whole_lines_only(root: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    child = start(root, journal, "written", "20000")
    output, _ = child.communicate()
    assert child.returncode == 0
    lines = output.splitlines()
    refused = [line for line in lines if line.startswith("refused")]
    told = {int(seq): request_id for seq, request_id in (line.split() for line in lines if line not in refused)}
    assert len(refused) == 3
    assert all(line.startswith(f"refused: the journal in `{journal}` takes no record: ") for line in refused)
    assert {record.seq: record.request_id for record in records(journal)} == told
    (segment,) = list_segments(journal)[WRITER]
    assert segment.path.read_bytes().endswith(b"}\n")
    reopened = Journal(journal, WRITER, FakeClock())
    assert reopened.append(an_entry()).seq == len(told) + 1  # type: ignore[union-attr]
    reopened.close()
    assert verify(journal).problems == ()


def test_a_second_process_is_refused_while_the_first_appends(root: Path, tmp_path: Path) -> None:
    child = start(root, tmp_path / "journal", "async")
    assert child.stdout is not None
    child.stdout.readline()
    try:
        with pytest.raises(StateError, match="another process appends to"):
            Journal(tmp_path / "journal", WRITER, FakeClock())
    finally:
        acknowledged(child, kill_after=0)
    Journal(tmp_path / "journal", WRITER, FakeClock()).close()
