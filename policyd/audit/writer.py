"""A writer comes into its folder: by the name that it always has there, under a lock, and to where its records end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from policyd.audit.disk import Disk
from policyd.audit.form import set_format
from policyd.audit.recovery import Found, find_end
from policyd.audit.seals_file import read_heads
from policyd.audit.segments import LOCK_SUFFIX, TORN, check_writer, list_segments
from policyd.errors import JournalError, StateError

LOCK_TRIES: Final = 10
LOCK_SECONDS: Final = 0.05

_log = structlog.get_logger(__name__)


def writer_name(directory: Path, role: str, make_id: Callable[[], str], disk: Disk | None = None) -> str:
    """The writer of a process role (`serve`, `decide-1`) in this folder: always the same, and unlike another folder's.

    `make_id` gives a few random hex digits; they are kept in `directory`/id. Raises StateError.
    """
    disk = disk or Disk()
    try:
        disk.make_folder(directory)
        return check_writer(f"{role}-{disk.write_once(directory / 'id', make_id)}")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its `id` is no text"
        raise _unusable(directory, reason) from error


def locked(disk: Disk, directory: Path, writer: str) -> int:
    """Make the folder and lock the writer; the descriptor of the lock. Raises StateError."""
    try:
        disk.make_folder(directory)
        disk.check_private(directory)
        set_format(disk, directory)
        fd = disk.open(directory / (writer + LOCK_SUFFIX))
    except OSError as error:
        raise _unusable(directory, error.strerror) from error
    if not _is_ours(disk, fd):
        disk.close(fd)
        message = f"another process appends to `{directory}` as `{writer}`"
        raise StateError(message, remedy="end it, or leave it running")
    return fd


def end_of(disk: Disk, directory: Path, writer: str) -> tuple[Found, dict[str, Any] | None]:
    """Where to go on, and what is to be noted of a torn end, which is kept aside; raises JournalError."""
    try:
        head = read_heads(disk, directory).get(writer)
        found = find_end(disk, writer, list_segments(directory).get(writer, ()), head)
    except OSError as error:
        raise JournalError(f"the journal in `{directory}` cannot be read: {error.strerror}") from error
    if not found.torn or found.segment is None:
        return found, None
    aside = found.segment.path.with_name(f"{found.segment.path.name}{TORN}{found.seq}")
    note = {"segment": found.segment.path.name, "cut_bytes": len(found.torn), "kept_as": aside.name}
    try:
        _keep_aside(disk, aside, found.torn)
    except OSError as error:
        note["kept_as"] = f"nothing: {error.strerror}"
    _log.warning("journal.torn", **note)
    return found, note


def _is_ours(disk: Disk, fd: int) -> bool:
    """Whether the lock is; who ends a segment that was left holds it for an instant."""
    for _ in range(LOCK_TRIES):
        if disk.lock(fd):
            return True
        time.sleep(LOCK_SECONDS)
    return False


def _keep_aside(disk: Disk, path: Path, torn: bytes) -> None:
    fd = disk.open(path)
    try:
        disk.write(fd, torn)
    finally:
        disk.close(fd)


def _unusable(directory: Path, reason: str | None) -> StateError:
    message = f"the journal folder `{directory}` is unusable: {reason}"
    return StateError(message, remedy="it is a folder of your own, of mode 0700, on a disk with space")
