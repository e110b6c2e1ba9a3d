"""`python -m policyd.audit.pack FILE`: an open segment's sealed form, beside it; what it holds, as JSON.

Law: a process of its own, that yields to all others, since packing takes seconds of one core. The sealed file appears
whole or not at all, and is on the medium when this ends; the open one stays.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from policyd.audit.block import Start
from policyd.audit.record import MAX_LINE_BYTES, Record, decode
from policyd.audit.sealed import write_sealed
from policyd.audit.seals import Part
from policyd.audit.segments import Segment, parse_segment
from policyd.errors import BrokenRecord, JournalError, PolicydError

NICE: Final = 10
_CHUNK: Final = 1 << 20


class Packed(msgspec.Struct, frozen=True):
    """A segment's sealed file, and the `prev` of its first record."""

    part: Part
    prev: str


def pack(segment: Segment) -> Packed:
    """Write the sealed form of an open segment; raises BrokenRecord where it is not whole, OSError."""
    sealed = segment.sealed.path
    draft = sealed.with_name(f".{sealed.name}.new")
    draft.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with segment.path.open("rb") as source, os.fdopen(os.open(draft, flags, 0o600), "w+b") as file:
            first, last = _ends(source)
            if first.seq != segment.first_seq:
                raise BrokenRecord(f"this is record {first.seq}, by the file's name {segment.first_seq}")
            index = write_sealed(file, _lines(source), Start(segment.writer, first.seq, first.prev))
            file.flush()
            os.fsync(file.fileno())
            digest, size = hash_file(file)
        draft.replace(sealed)
    finally:
        draft.unlink(missing_ok=True)
    part = Part(
        file=sealed.name,
        writer=segment.writer,
        first=index.first,
        last=index.last,
        end=index.end,
        sha256=digest,
        bytes=size,
        latest=max(last.time, _moment(max(place.latest for place in index.places))),
    )
    return Packed(part, index.prev)


def _moment(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def hash_file(file: BinaryIO) -> tuple[str, int]:
    """The SHA-256 of a whole file, and its length."""
    file.seek(0)
    hashed, size = sha256(), 0
    while chunk := file.read(_CHUNK):
        hashed.update(chunk)
        size += len(chunk)
    return hashed.hexdigest(), size


def _ends(source: BinaryIO) -> tuple[Record, Record]:
    """The first and the last record of a file."""
    first = source.readline(MAX_LINE_BYTES + 1)
    size = source.seek(0, os.SEEK_END)
    source.seek(max(0, size - MAX_LINE_BYTES - 1))
    last = source.read().removesuffix(b"\n").rpartition(b"\n")[2]
    source.seek(0)
    return decode(first), decode(last)


def _lines(source: BinaryIO) -> Iterator[bytes]:
    while line := source.readline(MAX_LINE_BYTES + 1):
        if not line.endswith(b"\n"):
            raise BrokenRecord("its last line is no whole record")
        yield line


def main() -> None:
    """Pack the named segment; exit code 1 and the reason on standard error where that fails."""
    segment = parse_segment(Path(sys.argv[1]))
    os.nice(NICE)
    try:
        if segment is None or segment.is_sealed:
            raise JournalError(f"`{sys.argv[1]}` is no open segment")
        sys.stdout.buffer.write(msgspec.json.encode(pack(segment)))
    except PolicydError as error:
        sys.exit(f"broken: {error.message}")
    except OSError as error:
        sys.exit(f"{error.strerror}")


if __name__ == "__main__":
    main()
