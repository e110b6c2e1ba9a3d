"""Reading a resolv.conf; what it says is in resolvers.py.

Law: a file that cannot be read names no resolver.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

MAX_CHARACTERS: Final = 1 << 16


def text_of(path: Path) -> str:
    """What it holds, at most MAX_CHARACTERS; "" where it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_CHARACTERS)
    except OSError:
        return ""
