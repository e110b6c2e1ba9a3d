"""Where a writer stopped, read from its files.

Law: nothing whole is given up. What follows the last whole record was never acknowledged, or is damage; the opener
cuts it off, keeps it aside and says so. Spaces behind it are room that was not used: they are cut off, and nothing is
to be said of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from policyd.audit.disk import Disk
from policyd.audit.record import FIRST_SEQ, MAX_LINE_BYTES, Record, decode, digest, genesis
from policyd.audit.room import FILL
from policyd.audit.sealed import read_index
from policyd.audit.seals import Head
from policyd.audit.segments import Segment
from policyd.errors import BrokenRecord, JournalError

WINDOW_BYTES: Final = 4 * MAX_LINE_BYTES  # how far back from the end a whole record is looked for


@dataclass(frozen=True, slots=True)
class Found:
    """Where to go on: the `seq` and `prev` of the next record, in `segment` (None: a new one).

    Of the segment, `size` bytes are whole lines and `torn` is what follows them; `started` is the time of its first
    record, None if it has none.
    """

    seq: int
    prev: str
    segment: Segment | None = None
    size: int = 0
    torn: bytes = b""
    started: datetime | None = None


def find_end(disk: Disk, writer: str, segments: Sequence[Segment], head: Head | None = None) -> Found:
    """Find where `writer` stopped; `segments` are its own, in order, and `head` what was sealed last of it.

    Raises JournalError where the files do not tell, OSError where they cannot be read.
    """
    if not segments:
        return Found(head.seq + 1, head.hash) if head else Found(FIRST_SEQ, genesis(writer))
    newest, *older = reversed(segments)
    found = _end_of(disk, newest)
    if found is not None:
        return found
    torn = disk.read_end(newest.path, WINDOW_BYTES)[1].rstrip(FILL)
    if not older:
        if head and newest.first_seq == head.seq + 1:
            return Found(newest.first_seq, head.hash, newest, 0, torn)
        if newest.first_seq != FIRST_SEQ:
            raise _lost(newest)
        return Found(FIRST_SEQ, genesis(writer), newest, 0, torn)
    before = _end_of(disk, older[0])
    if before is None or before.torn or before.seq != newest.first_seq:
        raise _lost(newest)
    return Found(before.seq, before.prev, newest, 0, torn)


def _end_of(disk: Disk, segment: Segment) -> Found | None:
    """The end of one segment; None if it has no whole record. What follows a sealed one needs a new one."""
    if segment.is_sealed:
        return _end_of_sealed(segment)
    size, end = disk.read_end(segment.path, WINDOW_BYTES)
    stop = end.rfind(b"\n") + 1
    while stop:
        start = end.rfind(b"\n", 0, stop - 1) + 1
        if start == 0 and size > len(end):
            break  # the window begins inside this line
        record = _read(end[start:stop], segment)
        if record is not None:
            whole = size - len(end) + stop
            line = digest(end[start:stop])
            return Found(record.seq + 1, line, segment, whole, end[stop:].rstrip(FILL), _started(disk, segment))
        stop = start
    if size > len(end):
        remedy = "find out with `policyd log verify`, then move the file out of the journal"
        raise JournalError(f"the last {len(end)} bytes of `{segment.path}` hold no whole record", remedy=remedy)
    return None


def _end_of_sealed(segment: Segment) -> Found:
    try:
        with segment.path.open("rb") as file:
            index = read_index(file, segment)
    except BrokenRecord as error:
        raise JournalError(error.message, remedy=error.remedy) from error
    return Found(index.last + 1, index.end)


def _read(line: bytes, segment: Segment) -> Record | None:
    try:
        record = decode(line)
    except BrokenRecord:
        return None
    return record if record.writer == segment.writer and record.seq >= segment.first_seq else None


def _started(disk: Disk, segment: Segment) -> datetime | None:
    first = _read(disk.read_start(segment.path, MAX_LINE_BYTES).partition(b"\n")[0], segment)
    return first.time if first else None


def _lost(segment: Segment) -> JournalError:
    return JournalError(
        f"`{segment.path}` has no whole record, and what came before it does not lead to {segment.first_seq}",
        remedy="find out with `policyd log verify`, then move the file out of the journal",
    )
