"""The file of a sealed segment: its lines in packed blocks, and an index that finds each of them.

    policyd sealed segment 1⏎ | block | block | … | index | length of the index (8 bytes, big-endian) | `policyd.`

Law: the lines are those of the open segment, byte for byte; `prev` of each is hashed anew while they are unpacked. A
block is read by itself: the index has the number, `prev`, place and times of its first line, so that a reader may begin
anywhere. Offsets count the bytes of the lines, as in the open segment: a reader's position outlives the sealing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final, NamedTuple

import msgspec

from policyd.audit.block import MAX_BYTES, MAX_LINES, Start, pack, unpack
from policyd.audit.columns import parse_time
from policyd.audit.segments import Segment
from policyd.errors import BrokenRecord

HEADER: Final = b"policyd sealed segment 1\n"
_FAMILY: Final = b"policyd sealed segment "
_END: Final = b"policyd."
_LENGTH_BYTES: Final = 8
_MAX_INDEX: Final = 64 << 20
REMEDY: Final = "compare with a copy; what was exported before tells the rest"
_TIME: Final = slice(len(b'{"time":"'), None)


class Place(msgspec.Struct, frozen=True, array_like=True):
    """One block: where it stands in the file, and what it holds.

    `offset` is where its first line begins among the bytes of all lines; `earliest` and `latest` are times of its
    records in microseconds since the epoch (0 where no record has a time in the usual form).
    """

    at: int
    length: int
    seq: int
    count: int
    prev: str
    offset: int
    earliest: int
    latest: int


class Index(msgspec.Struct, frozen=True, array_like=True):
    """What a sealed segment holds: records `first` to `last` of `writer`, after `prev`, up to the hash `end`."""

    writer: str
    first: int
    last: int
    prev: str
    end: str
    line_bytes: int
    places: tuple[Place, ...]


class Unpacked(NamedTuple):
    """The lines of one block, and the hash of the last one."""

    place: Place
    lines: list[bytes]
    end: str


_decoder: Final = msgspec.msgpack.Decoder(Index)


def write_sealed(file: BinaryIO, lines: Iterable[bytes], start: Start) -> Index:
    """Write a sealed segment of whole lines, the first of which is `start`; raises BrokenRecord, OSError."""
    file.write(HEADER)
    at, offset, prev, seq = len(HEADER), 0, start.prev, start.seq
    places: list[Place] = []
    for batch in _batches(lines):
        data, end = pack(batch, Start(start.writer, seq, prev))
        file.write(data)
        times = [time for line in batch if (time := _time_of(line)) is not None]
        places.append(Place(at, len(data), seq, len(batch), prev, offset, min(times, default=0), max(times, default=0)))
        at, offset, prev, seq = at + len(data), offset + sum(map(len, batch)), end, seq + len(batch)
    index = Index(start.writer, start.seq, seq - 1, start.prev, prev, offset, tuple(places))
    data = msgspec.msgpack.encode(index)
    file.write(data + len(data).to_bytes(_LENGTH_BYTES, "big") + _END)
    return index


def read_index(file: BinaryIO, segment: Segment) -> Index:
    """The index of a sealed segment's file; raises BrokenRecord where it is none, or another segment's."""
    index = _read_index(file, segment)
    if (index.writer, index.first) != (segment.writer, segment.first_seq):
        raise _damaged(segment, f"it holds record {index.first} of `{index.writer[:80]}` and what follows")
    seq, offset = index.first, 0
    for place in index.places:
        whole = place.at >= 0 and place.length > 0 and 0 < place.count <= MAX_LINES
        if not whole or (place.seq, place.offset >= offset) != (seq, True):
            raise _damaged(segment, "its index does not hold together")
        seq, offset = seq + place.count, place.offset
    if seq != index.last + 1:
        raise _damaged(segment, "its index does not hold together")
    return index


def _read_index(file: BinaryIO, segment: Segment) -> Index:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    header = file.read(len(HEADER))
    if header != HEADER:
        newer = header.startswith(_FAMILY) and header.endswith(b"\n")
        raise _damaged(segment, "it is of a newer format: use the policyd that wrote it" if newer else "no such file")
    foot = _LENGTH_BYTES + len(_END)
    file.seek(max(0, size - foot))
    end = file.read(foot)
    length = int.from_bytes(end[:_LENGTH_BYTES], "big")
    if end[_LENGTH_BYTES:] != _END or length > min(size - foot - len(HEADER), _MAX_INDEX):
        raise _damaged(segment, "its end is missing or was changed")
    file.seek(size - foot - length)
    try:
        return _decoder.decode(file.read(length))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _damaged(segment, "its index is unreadable") from None


def read_block(file: BinaryIO, index: Index, place: Place) -> Unpacked:
    """The lines of one block; raises BrokenRecord, naming the first record that is not what was sealed."""
    file.seek(place.at)
    start = Start(index.writer, place.seq, place.prev)
    return Unpacked(place, *unpack(file.read(place.length), start, place.count))


def _batches(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == MAX_LINES or size + len(line) > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield batch


def _time_of(line: bytes) -> int | None:
    text = line[_TIME]
    return parse_time(text[: text.find(b'"')])


def _damaged(segment: Segment, why: str) -> BrokenRecord:
    return BrokenRecord(f"`{segment.path}` is no sealed segment of this name: {why}", remedy=REMEDY)
