"""Writing several files of a folder together: each whole or not at all, and all of them or none.

Law: what is written beside is put in its place only when all of it is there; where that fails half way, what was there
before is put back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from policyd.errors import StateError


def write_together(directory: Path, texts: Mapping[str, str | None]) -> None:
    """Replace, make and remove (None) files of a folder, by path in it; raises StateError, with nothing changed."""
    beside: dict[Path, Path | None] = {}
    try:
        for path, text in texts.items():
            place = directory / path
            place.parent.mkdir(parents=True, exist_ok=True)
            beside[place] = None if text is None else _beside(place, text)
        _put(beside)
    except OSError as error:
        message = f"`{error.filename or directory}` cannot be written: {(error.strerror or str(error)).lower()}"
        raise StateError(message, remedy="check the disk, and the folder's owner and mode") from None
    finally:
        for new in beside.values():
            if new is not None:
                new.unlink(missing_ok=True)


def _beside(place: Path, text: str) -> Path:
    """Write a file next to its place, under a name that nobody reads, durably."""
    new = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    mode = place.stat().st_mode & 0o777 if place.exists() else 0o644
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return new


def _put(beside: Mapping[Path, Path | None]) -> None:
    """Put all in their places; on the first that fails, put back what was there."""
    before: dict[Path, bytes | None] = {}
    try:
        for place, new in beside.items():
            before[place] = place.read_bytes() if place.exists() else None
            if new is None:
                place.unlink(missing_ok=True)
            else:
                new.replace(place)
    except OSError:
        for place, data in before.items():
            with suppress(OSError):
                place.unlink(missing_ok=True) if data is None else place.write_bytes(data)
        raise
