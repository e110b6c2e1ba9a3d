"""Which applications `policyd up` has started: a file from `up` to its agent, both of the same user.

Law: only a file of mode 0600 that is the agent's own user's is believed; anything else means that nothing was started.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from proxy.caller import Started
from proxy.events import write_private

FILE: Final = "applications.json"  # in the agent's runtime folder
MAX_BYTES: Final = 1 << 20


def write(path: Path, started: Mapping[str, Started]) -> None:
    """Replace the file; raises OSError."""
    found = {name: {"pid": one.pid, "began": one.began} for name, one in sorted(started.items())}
    write_private(path, json.dumps(found).encode())


def read(path: Path) -> dict[str, Started]:
    """The applications by their instance; none where the file is not there, or not to be believed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.geteuid():
                return {}
            found: dict[str, Any] = json.loads(file.read(MAX_BYTES))
        return {name: Started(int(one["pid"]), int(one["began"])) for name, one in found.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
