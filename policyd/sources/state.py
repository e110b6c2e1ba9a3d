"""The folders that policyd keeps for itself: state beside the declared files, sockets in a runtime folder.

Law: private to their owner, or not used. A state folder of a newer format, or one that lost its format, is refused.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from policyd.errors import StateError
from policyd.sources.reading import reason
from policyd.state_paths import StatePaths, state_paths

FORMAT: Final = 1
MAX_FORMAT_BYTES: Final = 32


def prepare_state(directory: Path, uid: int) -> StatePaths:
    """Make or check the state folder of `directory` for the user `uid`; raises StateError."""
    paths = state_paths(directory)
    try:
        fresh = private_folder(paths.root, uid)
        if fresh or all(_is_draft(one, paths) for one in paths.root.iterdir()):
            write_private(paths.format, f"{FORMAT}\n".encode())
        else:
            _check_format(paths)
    except OSError as error:
        message = f"`{paths.root}` cannot be used: {reason(error)}"
        raise StateError(message, remedy="check the folder's owner and the disk") from None
    return paths


def _is_draft(path: Path, paths: StatePaths) -> bool:
    """Whether a start that was killed while it wrote the format left it: then there is nothing else."""
    return path.name.startswith(f".{paths.format.name}.")


def prepare_runtime(runtime: Path, uid: int) -> Path:
    """Make or check the runtime folder and the one above it; raises StateError."""
    try:
        runtime.parent.parent.mkdir(parents=True, exist_ok=True)
        private_folder(runtime.parent, uid)
        private_folder(runtime, uid)
    except OSError as error:
        message = f"`{runtime}` cannot be used: {reason(error)}"
        raise StateError(message, remedy="set XDG_RUNTIME_DIR to a folder of your own") from None
    return runtime


def private_folder(path: Path, uid: int) -> bool:
    """Make `path` with mode 0700, or check that it is such a folder of `uid`; tell whether it was made.

    Raises StateError for what others own or may enter, OSError where it cannot be made.
    """
    try:
        path.mkdir(mode=0o700)
        made = True
    except FileExistsError:
        made = False
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise StateError(f"`{path}` is no folder", remedy="move it away")
    if found.st_uid != uid:
        raise StateError(f"`{path}` belongs to the user {found.st_uid}, not to {uid}", remedy="run as its owner")
    if stat.S_IMODE(found.st_mode) & 0o077:
        remedy = f"check what is in it, then run `chmod 700 {path}`"
        raise StateError(f"others may enter `{path}` (mode {stat.S_IMODE(found.st_mode):04o})", remedy=remedy)
    return made


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 so that it is there whole or not at all, also after a crash; raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_format(paths: StatePaths) -> None:
    try:
        with paths.format.open("rb") as file:
            text = file.read(MAX_FORMAT_BYTES + 1)
    except FileNotFoundError:
        text = b""
    version = text.strip()
    if not version.isdigit() or len(text) > MAX_FORMAT_BYTES:
        remedy = "restore it from a backup, or start anew with `--fresh`"
        raise StateError(f"`{paths.root}` is corrupted: `format` has no version", remedy=remedy)
    if int(version) > FORMAT:
        message = f"`{paths.root}` has format {int(version)}, this policyd knows {FORMAT}"
        raise StateError(message, remedy="use the newer policyd that wrote it")
    if int(version) < 1:
        raise StateError(f"`{paths.root}` is corrupted: format {int(version)}", remedy="start anew with `--fresh`")
