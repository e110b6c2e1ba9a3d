"""A disk that becomes full while checks are answered: who is refused, what is kept, and how it goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SMALL = "mount -t tmpfs -o size=256k,mode=700 small $0 && exec $*"
ALONE = ("unshare", "--user", "--map-root-user", "--mount")  # a mount that nobody else sees, and ends with the program


def may_mount(folder: Path) -> bool:
    """Whether this user may have a small file system of its own."""
    if shutil.which(ALONE[0]) is None:
        return False
    tried = subprocess.run([*ALONE, "sh", "-c", SMALL, str(folder), "true"], check=False, capture_output=True)
    return tried.returncode == 0


def answered(root: Path, folder: Path, *words: str) -> dict[str, Any]:
    """What tests.server.full_disk says, on a file system of 256 KiB where there may be one."""
    program = [sys.executable, "-m", "tests.server.full_disk", str(folder), *words]
    command = [*program, "file"]
    if may_mount(folder):
        command = [*ALONE, "sh", "-c", SMALL, str(folder), *program, "disk"]
    done = subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def gaps(said: dict[str, Any], what: str) -> int:
    """How many are missing by what is on record; a note is short, and may have room where a decision has none."""
    assert said["notes"]
    for note in said["notes"]:
        assert note["operation"] == "journal.gap"
        assert "takes no record: " in note["reason"]
    return sum(note[what] for note in said["notes"])


@pytest.mark.parametrize("durability", ["written", "fsync"])
def test_with_deny_a_full_disk_is_503_until_there_is_room_again(root: Path, tmp_path: Path, durability: str) -> None:
    said = answered(root, tmp_path, "deny", durability)
    statuses = {part: {status for status, _ in said[part]} for part in ("before", "while", "after")}
    assert statuses == {"before": {200}, "while": {503}, "after": {200}}
    assert said["kept"] == [one for part in ("before", "after") for _, one in said[part]]
    assert gaps(said, "refused") == len(said["while"])
    assert said["failures"] == len(said["while"])
    assert said["problems"] == []


@pytest.mark.parametrize("durability", ["written", "fsync"])
def test_with_drop_a_full_disk_is_counted_and_the_gap_is_on_record(root: Path, tmp_path: Path, durability: str) -> None:
    said = answered(root, tmp_path, "drop", durability)
    assert {status for part in ("before", "while", "after") for status, _ in said[part]} == {200}
    assert said["kept"] == [one for part in ("before", "after") for _, one in said[part]]
    assert gaps(said, "dropped") == len(said["while"])
    assert said["failures"] == len(said["while"])
    assert said["problems"] == []
