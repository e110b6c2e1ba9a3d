"""The lines of a segment, forward and backward, whichever form its file has.

Law: an offset counts bytes of lines, so that it means the same in an open file and in the sealed one that takes its
place; whoever finds the open file gone looks for the sealed one. Only whole lines are given out; what cannot be read of
a sealed file goes to `broken`, block by block, and the rest is read on.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, NamedTuple, Protocol

from policyd.audit.record import MAX_LINE_BYTES
from policyd.audit.room import whole_end
from policyd.audit.sealed import Index, Place, read_block, read_index
from policyd.audit.segments import Segment
from policyd.errors import BrokenRecord

BLOCK_BYTES: Final = 64 << 10

Broken = Callable[[BrokenRecord], None]


class Found(NamedTuple):
    """One line, newline included, and the offsets of its beginning and of what follows it."""

    offset: int
    raw: bytes
    behind: int


class Lines(Protocol):
    """A segment that is open for reading."""

    def forward(self, start: int) -> Iterator[Found]:
        """The whole lines from `start` on."""

    def backward(self, end: int) -> Iterator[Found]:
        """The lines before `end`, which is behind one of them; the last one first."""

    def end(self) -> int:
        """The offset behind the last whole line."""

    def clamp(self, offset: int) -> int:
        """`offset`, or the end of what is there if that comes first: what lay behind it was cut off by its writer."""


@contextmanager
def open_lines(segment: Segment, broken: Broken) -> Iterator[Lines]:
    """The lines of `segment`, sealed meanwhile or not; raises FileNotFoundError where retention took it."""
    try:
        file = segment.path.open("rb")
    except FileNotFoundError:
        segment = segment.sealed
        file = segment.path.open("rb")
    with file:
        yield _Sealed(file, segment, broken) if segment.is_sealed else _Open(file)


class _Open:
    """Lines as they stand in a file; of one that is too long only a part is given out.

    What its writer adds comes where spaces were, so nothing that was read behind the last whole line is kept.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._fd = file.fileno()

    def forward(self, start: int) -> Iterator[Found]:
        end = self.end()
        offset = min(start, end)
        file = open(self._fd, "rb", closefd=False)  # noqa: SIM115  # with a buffer that has seen no more than `end`
        file.seek(offset)
        while offset < end and (raw := file.readline(MAX_LINE_BYTES + 1)):
            part, behind = raw, offset + len(raw)
            while part and not part.endswith(b"\n"):
                part = file.readline(MAX_LINE_BYTES + 1)
                behind += len(part)
            if not part:
                return  # it was cut off meanwhile
            yield Found(offset, raw, behind)
            offset = behind

    def backward(self, end: int) -> Iterator[Found]:
        rest = b""  # the end of a line whose beginning is in the block before
        while end > 0:
            start = max(0, end - BLOCK_BYTES)
            block = os.pread(self._fd, end - start, start) + rest
            cut = block.find(b"\n") + 1 if start else 0
            behind = start + len(block)
            for line in reversed(block[cut:].split(b"\n")[:-1]):
                offset = behind - len(line) - 1
                yield Found(offset, line + b"\n", behind)
                behind = offset
            rest = block[:cut][-MAX_LINE_BYTES - 1 :]
            end = start

    def end(self) -> int:
        return whole_end(self._fd)

    def clamp(self, offset: int) -> int:
        return min(offset, self.end())


class _Sealed:
    """Lines unpacked block by block; a block that is damaged is said to be, and left out."""

    def __init__(self, file: BinaryIO, segment: Segment, broken: Broken) -> None:
        self._file = file
        self._segment = segment
        self._broken = broken
        self._index = self._read_index()

    def forward(self, start: int) -> Iterator[Found]:
        places = self._index.places
        first = max(0, bisect_right(places, start, key=lambda place: place.offset) - 1)
        for place in places[first:]:
            for found in self._lines(place):
                if found.offset >= start:
                    yield found

    def backward(self, end: int) -> Iterator[Found]:
        for place in reversed(self._index.places):
            if place.offset < end:
                for found in reversed(self._lines(place)):
                    if found.behind <= end:
                        yield found

    def end(self) -> int:
        return self._index.line_bytes

    def clamp(self, offset: int) -> int:
        return min(offset, self._index.line_bytes)

    def _lines(self, place: Place) -> list[Found]:
        try:
            lines = read_block(self._file, self._index, place).lines
        except BrokenRecord as error:
            self._broken(BrokenRecord(f"`{self._segment.path}`: {error.message}", remedy=error.remedy))
            return []
        found, offset = [], place.offset
        for raw in lines:
            found.append(Found(offset, raw, offset + len(raw)))
            offset += len(raw)
        return found

    def _read_index(self) -> Index:
        try:
            return read_index(self._file, self._segment)
        except BrokenRecord as error:
            self._broken(error)
            return Index(self._segment.writer, self._segment.first_seq, 0, "", "", 0, ())
