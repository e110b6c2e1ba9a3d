"""How far a journal has been exported: one small file for each target, in the journal's folder.

    exported-<target>.json    {"format": 1, "writers": {"<writer>": {"first_seq": …, "offset": …, "seq": …}}}

Law: written after the target has taken the records and never before, so that whoever goes on from it loses none and may
send some twice. Retention asks `taken`: nothing goes that a configured target has not taken. What cannot be read counts
as nothing taken.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from policyd.audit.read import Position
from policyd.errors import JournalError

FORMAT: Final = 1
MAX_BYTES: Final = 1 << 20
_TARGET: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


class Taken(msgspec.Struct, frozen=True):
    """Of one writer: up to byte `offset` of the segment that begins at `first_seq`; `seq` is the last record."""

    first_seq: int
    offset: int
    seq: int

    @property
    def position(self) -> Position:
        """Where a reader goes on."""
        return Position(self.first_seq, self.offset)


class _File(msgspec.Struct, frozen=True):
    format: int
    writers: dict[str, Taken]


def path_of(journal: Path, target: str) -> Path:
    """Return the file of a target."""
    if not _TARGET.fullmatch(target):
        raise ValueError(f"`{target}` is no name of a target")
    return journal / f"exported-{target}.json"


def read_taken(journal: Path, target: str) -> dict[str, Taken]:
    """Return what a target has taken, by writer; nothing where that is not known."""
    try:
        with path_of(journal, target).open("rb") as file:
            found = msgspec.json.decode(file.read(MAX_BYTES), type=_File)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return found.writers if found.format == FORMAT else {}


def write_taken(journal: Path, target: str, writers: Mapping[str, Taken]) -> None:
    """Keep what a target has taken, whole or not at all; raises JournalError."""
    path = path_of(journal, target)
    made = path.with_suffix(".new")
    data = msgspec.json.encode(_File(FORMAT, dict(writers)), order="sorted")
    try:
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        made.replace(path)
    except OSError as error:
        raise JournalError(f"`{path}` cannot be written: {error.strerror}", remedy="make space") from error


def taken(journal: Path, targets: Iterable[str]) -> dict[str, int] | None:
    """Up to which `seq` every one of the configured targets has each writer's records; None without targets."""
    found = [read_taken(journal, target) for target in targets]
    if not found:
        return None
    writers = set.intersection(*(set(one) for one in found))
    return {writer: min(one[writer].seq for one in found) for writer in writers}
