"""Moments, lengths of time and hashes as people read them, and the text of others without what could steer a screen.

Law: pure; what is cut or taken out is marked.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: str, limit: int = 2000) -> str:
    """Return `text` without control and direction characters, at most `limit` characters long."""
    text = _CONTROL.sub("�", text.replace("\t", " "))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def moment(seconds: int) -> str:
    """Write seconds since the epoch as UTC, `-` for 0."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else "-"


def since(seconds: int, now: int) -> str:
    """Write how long ago a moment was, in its largest unit, `-` for 0."""
    return span(now - seconds) if seconds else "-"


def span(seconds: int) -> str:
    """Write a length of time in its largest unit: `3 d`, `2 h`, `5 min`, `8 s`."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"


def short(digest: str) -> str:
    """Write the first characters of a hash, as people compare them."""
    return digest[:12] or "-"
