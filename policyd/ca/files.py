"""Secret files: written so that nobody else could read them for an instant, read only if nobody else could.

Law: a file has mode 0600 from its first byte, appears whole or not at all, and survives a power cut once
its writer returned. What group or others may read is not used as a secret.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

from policyd.errors import KeyFileError, StateError

MAX_BYTES: Final = 64 * 1024
ROOM: Final = "look at the disk's free space and the folder's owner"


def write_secret(path: Path, content: bytes) -> None:
    """Create or replace `path` with `content`: temporary file, fsync, rename, fsync of the folder.

    Raises StateError when the system refuses; then the old file, if there was one, stands.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)  # what an interrupted start left; it was never in use
        write_new(temporary, content)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StateError(f"`{path}` cannot be written: {error.strerror}", remedy=ROOM) from error


def write_new(path: Path, content: bytes) -> None:
    """Create `path`, which must not exist, with mode 0600, and bring it to the disk; raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_secret(path: Path) -> bytes:
    """The bytes of a secret file; raises KeyFileError for a missing, too open or too large one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise KeyFileError(f"`{path}` is missing", remedy="restore it from a copy") from error
    except OSError as error:
        raise KeyFileError(f"`{path}` cannot be read: {error.strerror}", remedy="it is a plain file") from error
    with os.fdopen(descriptor, "rb") as file:
        check_private(path, os.fstat(file.fileno()))
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise KeyFileError(f"`{path}` has more than {MAX_BYTES} bytes", remedy="restore it from a copy")
    return content


def read_file(path: Path, most: int) -> bytes:
    """The bytes of a file that is no secret in the open; raises StateError for a missing or too large one."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise StateError(f"`{path}` cannot be read: {error.strerror}") from error
    if len(content) > most:
        raise StateError(f"`{path}` has more than {most} bytes")
    return content


def check_private(path: Path, status: os.stat_result) -> None:
    """Refuse what is no plain file of ours alone; raises KeyFileError."""
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"`{path}` is no plain file", remedy="restore it from a copy")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise KeyFileError(f"`{path}` has mode {mode:04o}, others may use it", remedy=f"`chmod 600 {path}`")
    if status.st_uid not in (os.geteuid(), 0):
        raise KeyFileError(f"`{path}` belongs to another user", remedy=f"`chown {os.geteuid()} {path}`")


def read_passphrase(path: Path) -> bytes:
    """The passphrase that keys are encrypted under: the file's first line, whose mode is checked as a key's.

    Raises KeyFileError for an empty one too.
    """
    passphrase = read_secret(path).split(b"\n", 1)[0].rstrip(b"\r")
    if not passphrase:
        raise KeyFileError(f"`{path}` holds no passphrase", remedy="write one into its first line")
    return passphrase
