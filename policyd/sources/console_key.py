"""The key that signs the console's links and sessions, a file in the state folder.

Law: who can read it is the folder's owner; one that others may read is never used.
"""

from __future__ import annotations

import secrets

from policyd import tickets
from policyd.errors import StateError
from policyd.sources.state import write_private
from policyd.state_paths import StatePaths


def key_of(paths: StatePaths) -> bytes:
    """The key of tickets, made where there is none; raises StateError for one that others may read."""
    path = paths.console_key
    try:
        if path.exists():
            if path.stat().st_mode & 0o077:
                raise StateError(f"others may read `{path}`", remedy="delete it; a new one is made")
            key = path.read_bytes()
            if len(key) == tickets.KEY_BYTES:
                return key
        key = secrets.token_bytes(tickets.KEY_BYTES)
        write_private(path, key)
    except OSError as error:
        raise StateError(f"`{path}` cannot be used: {error.strerror}", remedy="check its owner and mode") from None
    return key
