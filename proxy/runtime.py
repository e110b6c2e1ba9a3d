"""Where the files and sockets of one instance are, in its agent's runtime folder."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from policyd.errors import StateError
from policyd.state_paths import MAX_SOCKET_PATH

BOOTSTRAP: Final = "bootstrap.json"
_LONGEST_FILE: Final = len("/admin.sock")


def runtime_folder(runtime: Path, instance: str) -> Path:
    """The folder of an instance's sockets: of its own name, or a hash where the path would be too long for a socket.

    Raises StateError when even that is too long.
    """
    for name in (instance, hashlib.sha256(instance.encode()).hexdigest()[:12]):
        folder = runtime / name
        if len(os.fsencode(folder)) + _LONGEST_FILE <= MAX_SOCKET_PATH - 4:
            return folder
    raise StateError(f"the path `{runtime}` is too long for a socket in it", remedy="choose another --runtime")


def afresh(folder: Path) -> None:
    """Make an empty folder for the agent's own user, whatever one that was killed has left there; raises StateError."""
    try:
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise StateError(f"`{folder}` cannot be made: {error.strerror}") from error
