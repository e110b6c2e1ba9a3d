"""A real process that appends under load and is killed, or meets a full disk."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from policyd.audit.journal import Journal
from policyd.audit.read import ends, newest
from policyd.audit.record import decode
from policyd.audit.segments import list_segments
from policyd.audit.verify import verify
from policyd.errors import StateError
from tests.audit.samples import WRITER, an_entry, records
from tests.audit.sealing import AUTHORITY, Sealed, signing_key
from tests.fakes.clock import FakeClock


def start(root: Path, directory: Path, *arguments: str, program: str = "tests.audit.appends") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", program, str(directory), *arguments]
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


@pytest.mark.parametrize(
    ("durability", "rounds", "most"), [("written", 5, 3000), ("fsync", 4, 250), ("async", 3, 3000)]
)
def test_after_kill_9_the_journal_holds_what_clients_were_told_and_the_next_start_goes_on_gaplessly(
    root: Path, tmp_path: Path, durability: str, rounds: int, most: int
) -> None:
    """Killed again and again at random points, and sealed in between; of `async` the last may be lost, and no other."""
    dice = random.Random(7)
    sealed = Sealed(tmp_path / "journal", FakeClock())
    for _ in range(rounds):
        before = len(lines_of(sealed.folder))
        told = acknowledged(start(root, sealed.folder, durability), kill_after=dice.randrange(0, most))
        kept = [decode(line) for line in lines_of(sealed.folder)]
        assert [record.seq for record in kept] == list(range(1, len(kept) + 1))
        by_seq = {record.seq: record.request_id for record in kept}
        held = {seq: name for seq, name in told.items() if by_seq.get(seq) == name}
        assert (held == told) or (
            durability == "async" and held == {seq: told[seq] for seq in told if seq <= len(kept)}
        )
        assert len(kept) >= before
        sealed.sealer.turn()
        assert sealed.sealer.trouble == ""
        assert sealed.verify().problems == ()
    assert list(sealed.folder.glob("*.sealed"))


@pytest.mark.parametrize("durability", ["written", "fsync"])
def test_of_turns_that_a_kill_9_ends_every_entry_that_was_told_is_kept(
    root: Path, tmp_path: Path, durability: str
) -> None:
    dice, journal = random.Random(11), tmp_path / "journal"
    told: list[str] = []
    for run in "abc":
        child = start(root, journal, durability, run, program="tests.audit.together")
        assert child.stdout is not None
        end = dice.randrange(0, 1500)
        for number, line in enumerate(child.stdout):
            if number == end:
                child.kill()
            told += [line.rstrip()] if line.endswith("\n") else []
        assert child.wait() == -9
        child.stdout.close()
        kept = [decode(line) for line in lines_of(journal)]
        assert [record.seq for record in kept] == list(range(1, len(kept) + 1))
        assert set(told) <= {record.request_id for record in kept}
        assert verify(journal).problems == ()


def lines_of(folder: Path) -> list[bytes]:
    """All whole lines, sealed or not, in order."""
    if not folder.exists():
        return []
    found = [line.raw for line in newest(folder, ends(folder), lambda error: pytest.fail(str(error)))]
    return sorted(found, key=lambda line: decode(line).seq)


def test_a_sealer_that_is_killed_again_and_again_leaves_a_whole_journal(root: Path, tmp_path: Path) -> None:
    dice = random.Random(3)
    sealed = Sealed(tmp_path / "journal", FakeClock())
    (tmp_path / "root.pem").write_bytes(AUTHORITY.root.public_bytes(Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(signing_key())
    written = 0
    for _ in range(6):
        sealed.write(9)
        written += 9
        command = [sys.executable, "-m", "tests.audit.seals", str(tmp_path)]
        child = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(dice.random() / 8)  # for luck indeed: wherever it is, it is killed
        child.kill()
        child.wait()
        child.stdout.close()
        assert len(lines_of(sealed.folder)) == written
        assert sealed.verify().problems == ()
    while sealed.sealer.turn():
        pass
    assert sealed.sealer.trouble == ""
    assert sealed.verify().chains[0].sealed > written - 4
    assert sealed.verify().problems == ()


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
