"""Folders of our own: private, of our format, or refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from policyd.errors import StateError
from policyd.sources.state import prepare_runtime, prepare_state, write_private

UID = os.geteuid()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_state_is_made_private_and_kept(tmp_path: Path) -> None:
    paths = prepare_state(tmp_path, UID)
    assert (mode(paths.root), mode(paths.format), paths.format.read_text()) == (0o700, 0o600, "1\n")
    paths.tokens.write_bytes(b"kept")
    assert prepare_state(tmp_path, UID).tokens.read_bytes() == b"kept"


def test_a_crash_between_folder_and_format_is_made_good(tmp_path: Path) -> None:
    (tmp_path / ".policyd").mkdir(mode=0o700)
    assert prepare_state(tmp_path, UID).format.read_text() == "1\n"


def test_a_crash_while_the_format_was_written_is_made_good(tmp_path: Path) -> None:
    (tmp_path / ".policyd").mkdir(mode=0o700)
    (tmp_path / ".policyd/.format.4711.tmp").touch()
    assert prepare_state(tmp_path, UID).format.read_text() == "1\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("2\n", "has format 2, this policyd knows 1; use the newer policyd that wrote it"),
        ("", "is corrupted: `format` has no version; restore it from a backup, or start anew with `--fresh`"),
        ("one", "is corrupted: `format` has no version; restore it from a backup, or start anew with `--fresh`"),
        ("1" * 1000, "is corrupted: `format` has no version; restore it from a backup, or start anew with `--fresh`"),
        ("0", "is corrupted: format 0; start anew with `--fresh`"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    paths = prepare_state(tmp_path, UID)
    paths.format.write_text(text)
    with pytest.raises(StateError) as error:
        prepare_state(tmp_path, UID)
    assert str(error.value) == f"`{paths.root}` {problem}"


def test_state_without_its_format_is_refused(tmp_path: Path) -> None:
    paths = prepare_state(tmp_path, UID)
    paths.ca.mkdir()
    paths.format.unlink()
    with pytest.raises(StateError, match="`format` has no version"):
        prepare_state(tmp_path, UID)


def test_state_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    paths = prepare_state(tmp_path, UID)
    paths.root.chmod(0o750)
    with pytest.raises(StateError, match=r"others may enter .* \(mode 0750\); .*chmod 700"):
        prepare_state(tmp_path, UID)


def test_state_of_another_user_is_refused(tmp_path: Path) -> None:
    prepare_state(tmp_path, UID)
    with pytest.raises(StateError, match=f"belongs to the user {UID}, not to {UID + 1}; run as its owner"):
        prepare_state(tmp_path, UID + 1)


def test_a_link_or_a_file_instead_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / ".policyd").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="is no folder; move it away"):
        prepare_state(tmp_path, UID)


def test_a_missing_folder_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be used: no such file or directory"):
        prepare_state(tmp_path / "nowhere", UID)


def test_the_runtime_folder_is_private_on_both_levels(tmp_path: Path) -> None:
    runtime = prepare_runtime(tmp_path / "policyd-0" / "abc", UID)
    assert (mode(runtime), mode(runtime.parent)) == (0o700, 0o700)
    assert prepare_runtime(runtime, UID) == runtime
    runtime.parent.chmod(0o777)
    with pytest.raises(StateError, match="others may enter"):
        prepare_runtime(runtime, UID)


def test_a_private_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert (path.read_bytes(), mode(path), list(tmp_path.iterdir())) == (b"new", 0o600, [path])
