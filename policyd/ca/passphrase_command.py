"""A passphrase that a program tells, as a keyring or a vault's client: the first line of what it writes.

Law: it is started as it is named, by no shell; what it writes is kept in memory only, and told to nobody.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from policyd.ca.elsewhere import MAX_SAID
from policyd.errors import KeyFileError

SECONDS: Final = 30.0  # somebody may have to confirm it elsewhere
MAX_BYTES: Final = 4096


def told_passphrase(command: tuple[str, ...], directory: Path) -> bytes:
    """What `command`, started in `directory`, tells; raises KeyFileError."""
    name = command[0]
    try:
        done = subprocess.run(
            command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise KeyFileError(f"`{name}` told no passphrase within {SECONDS:g} seconds") from None
    except OSError as error:
        raise KeyFileError(f"`{name}` cannot be started: {error.strerror}") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()[:MAX_SAID]
        raise KeyFileError(f"`{name}` told no passphrase, it ended with {done.returncode}: {said}")
    passphrase = done.stdout.split(b"\n", 1)[0].rstrip(b"\r")
    if not 0 < len(passphrase) <= MAX_BYTES:
        raise KeyFileError(f"`{name}` told no passphrase", remedy="it writes one into the first line of its output")
    return passphrase
