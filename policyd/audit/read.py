"""Reading a journal while it is written: the newest records first, then what comes, across segments.

Law: only whole lines are records; a line is read up to MAX_LINE_BYTES and no further. Reading changes nothing and
needs no lock. Writers are independent: order is by `seq` within one, by `time` among several.
"""

from __future__ import annotations

import heapq
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from policyd.audit.record import MAX_LINE_BYTES, Record, decode
from policyd.audit.segments import Segment, list_segments
from policyd.errors import BrokenRecord

BLOCK_BYTES: Final = 64 << 10
BUDGET_BYTES: Final = 8 << 20

Broken = Callable[[BrokenRecord], None]


class Line(NamedTuple):
    """A record and the bytes it stands in, newline included."""

    record: Record
    raw: bytes


class Position(NamedTuple):
    """How far a writer's records have been read: up to byte `offset` of the segment that begins at `first_seq`."""

    first_seq: int
    offset: int


def newest(directory: Path, positions: Mapping[str, Position], broken: Broken) -> Iterator[Line]:
    """Every record before `positions`, the newest first; lines that are no records go to `broken`."""
    writers = list_segments(directory)
    sources = [
        _backward([s for s in writers.get(writer, ()) if s.first_seq <= position.first_seq], position, broken)
        for writer, position in positions.items()
    ]
    return heapq.merge(*sources, key=lambda line: line.record.time, reverse=True)


def ends(directory: Path) -> dict[str, Position]:
    """Where each writer's records end now."""
    found: dict[str, Position] = {}
    for writer, segments in list_segments(directory).items():
        with segments[-1].path.open("rb") as file:
            found[writer] = Position(segments[-1].first_seq, _last_end(file))
    return found


@dataclass(slots=True)
class Follower:
    """Reads on from `positions`; a writer that is not there yet is read from its beginning.

    One look takes about `budget` bytes of a writer, so that a reader far behind stays small.
    """

    directory: Path
    positions: dict[str, Position]
    broken: Broken
    budget: int = BUDGET_BYTES

    def poll(self) -> list[Line]:
        """What has come since; nothing twice, nothing left out, across rotation."""
        found: list[Line] = []
        for writer, segments in list_segments(self.directory).items():
            found += self._read_writer(writer, segments)
        found.sort(key=lambda line: line.record.time)  # stable: a writer's own order stays where times are equal
        return found

    def _read_writer(self, writer: str, segments: list[Segment]) -> list[Line]:
        """Read on; `segments` was listed before, so all but the last of them are finished."""
        position = self.positions.get(writer, Position(0, 0))
        lines: list[Line] = []
        budget = self.budget
        for segment in segments:
            if segment.first_seq < position.first_seq:
                continue
            start = position.offset if segment.first_seq == position.first_seq else 0
            try:
                with segment.path.open("rb") as file:
                    offset = _forward(file, start, segment, lines, self.broken, budget)
            except FileNotFoundError:
                continue  # retention was faster
            position = Position(segment.first_seq, offset)
            budget -= offset - start
            if budget <= 0:
                break
        self.positions[writer] = position
        return lines


def _forward(file: BinaryIO, start: int, segment: Segment, lines: list[Line], broken: Broken, budget: int) -> int:
    """Add the whole lines from `start` on, `budget` bytes of them; the offset behind the last one."""
    # what lies behind the file's end was cut off by its writer
    offset = file.seek(min(start, os.fstat(file.fileno()).st_size))
    while offset - start < budget and (raw := _whole_line(file)):
        _add(raw, segment, offset, lines.append, broken)
        offset = file.tell()
    return offset


def _whole_line(file: BinaryIO) -> bytes:
    """The next whole line; of one that is too long its beginning, having passed it; empty at the end."""
    raw = line = file.readline(MAX_LINE_BYTES + 1)
    while line and not line.endswith(b"\n"):
        line = file.readline(MAX_LINE_BYTES + 1)
    return raw if line else b""


def _add(raw: bytes, segment: Segment, offset: int, add: Callable[[Line], None], broken: Broken) -> None:
    try:
        add(Line(decode(raw), raw))
    except BrokenRecord as error:
        broken(BrokenRecord(f"`{segment.path}`, byte {offset}: {error.message}"))


def _backward(segments: list[Segment], position: Position, broken: Broken) -> Iterator[Line]:
    for segment in reversed(segments):
        try:
            file = segment.path.open("rb")
        except FileNotFoundError:
            continue
        with file:
            end = position.offset if segment.first_seq == position.first_seq else _last_end(file)
            for offset, raw in _lines_backward(file, end):
                found: list[Line] = []
                _add(raw, segment, offset, found.append, broken)
                yield from found


def _lines_backward(file: BinaryIO, end: int) -> Iterator[tuple[int, bytes]]:
    """The lines before `end`, which is behind a newline, last one first; of one that is too long a part."""
    rest = b""  # the end of a line whose beginning is in the block before
    while end > 0:
        start = max(0, end - BLOCK_BYTES)
        file.seek(start)
        block = file.read(end - start) + rest
        cut = block.find(b"\n") + 1 if start else 0
        behind = start + len(block)
        for line in reversed(block[cut:].split(b"\n")[:-1]):
            behind -= len(line) + 1
            yield behind, line + b"\n"
        rest = block[:cut][-MAX_LINE_BYTES - 1 :]
        end = start


def _last_end(file: BinaryIO) -> int:
    """The offset behind the last newline."""
    end = file.seek(0, io.SEEK_END)
    while end > 0:
        start = max(0, end - BLOCK_BYTES)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
