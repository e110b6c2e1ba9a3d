"""Reading a journal while it is written: the newest records first, then what comes, across segments.

Law: only whole lines are records; a line is read up to MAX_LINE_BYTES and no further. Reading changes nothing and
needs no lock. Writers are independent: order is by `seq` within one, by `time` among several.

Open and sealed segments read alike (policyd.audit.lines), and a Position holds while a segment is sealed: offsets count
the bytes of the lines. Who scans sealed segments in bulk takes their blocks one by one instead: `read_index` of
policyd.audit.sealed tells each block's records and times without unpacking it, `read_block` gives its lines.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from policyd.audit.lines import Broken, Found, Lines, open_lines
from policyd.audit.record import Record, decode, digest
from policyd.audit.segments import Segment, list_segments
from policyd.errors import BrokenRecord

BUDGET_BYTES: Final = 8 << 20
TAIL: Final = 8_192  # lines that a reader remembers; a commit has seldom so many

Tail = deque[tuple[int, str]]  # of each line, where what follows it begins, and its hash


class Line(NamedTuple):
    """A record and the bytes it stands in, newline included."""

    record: Record
    raw: bytes


class Position(NamedTuple):
    """How far a writer's records have been read: up to byte `offset` of the segment that begins at `first_seq`."""

    first_seq: int
    offset: int


BEGINNING: Final = Position(0, 0)


def newest(
    directory: Path,
    positions: Mapping[str, Position],
    broken: Broken,
    since: Mapping[str, Position] = MappingProxyType({}),
) -> Iterator[Line]:
    """Every record before `positions` that is not before `since`, the newest first.

    Lines that are no records go to `broken`. A writer that is not in `since` is read back to its beginning.
    """
    writers = list_segments(directory)
    sources = []
    for writer, position in positions.items():
        begin = since.get(writer, BEGINNING)
        between = [s for s in writers.get(writer, ()) if begin.first_seq <= s.first_seq <= position.first_seq]
        sources.append(_backward(between, begin, position, broken))
    return heapq.merge(*sources, key=lambda line: line.record.time, reverse=True)


def ends(directory: Path) -> dict[str, Position]:
    """Where each writer's records end now."""
    found: dict[str, Position] = {}
    for writer, segments in list_segments(directory).items():
        with open_lines(segments[-1], _ignore) as lines:
            found[writer] = Position(segments[-1].first_seq, lines.end())
    return found


@dataclass(slots=True)
class Follower:
    """Reads on from `positions`; a writer that is not there yet is read from its beginning.

    One look takes about `budget` bytes of a writer, so that a reader far behind stays small. Where the medium refused
    what was read already, and its writer cut it off, what came in its place is read.
    """

    directory: Path
    positions: dict[str, Position]
    broken: Broken
    budget: int = BUDGET_BYTES
    _tails: dict[str, Tail] = field(default_factory=dict, repr=False)  # of the segment that each was read in last

    def poll(self) -> list[Line]:
        """What has come since; nothing twice, nothing left out, across rotation."""
        found: list[Line] = []
        for writer, segments in list_segments(self.directory).items():
            found += self._read_writer(writer, segments)
        found.sort(key=lambda line: line.record.time)  # stable: a writer's own order stays where times are equal
        return found

    def _read_writer(self, writer: str, segments: list[Segment]) -> list[Line]:
        """Read on; `segments` was listed before, so all but the last of them are finished."""
        position = self.positions.get(writer, BEGINNING)
        found: list[Line] = []
        budget = self.budget
        for segment in segments:
            if segment.first_seq < position.first_seq:
                continue
            is_same = segment.first_seq == position.first_seq
            start = position.offset if is_same else 0
            tail = self._tails.get(writer, Tail(maxlen=TAIL)) if is_same else Tail(maxlen=TAIL)
            try:
                with open_lines(segment, self.broken) as lines:
                    start = start if segment.is_sealed else _unchanged(lines, start, tail)
                    offset = _forward(lines, start, segment, found, self.broken, budget, tail)
            except FileNotFoundError:
                continue  # retention was faster
            position = Position(segment.first_seq, offset)
            self._tails[writer] = tail
            budget -= offset - start
            if budget <= 0:
                break
        self.positions[writer] = position
        return found


def _unchanged(lines: Lines, start: int, tail: Tail) -> int:
    """Up to where the lines before `start` are those that were read; `tail` is cut to that."""
    if not tail or lines.end() == start or _is(next(lines.backward(start), None), tail[-1]):
        return start
    read = dict(tail)
    same = next(
        (line.behind for line in lines.backward(lines.end()) if _is(line, (line.behind, read.get(line.behind)))), None
    )
    if same is None:
        return start
    while tail[-1][0] > same:
        tail.pop()
    return same


def _is(line: Found | None, read: tuple[int, str | None]) -> bool:
    return line is not None and (line.behind, digest(line.raw)) == read


def _forward(
    lines: Lines, start: int, segment: Segment, found: list[Line], broken: Broken, budget: int, tail: Tail
) -> int:
    """Add the whole lines from `start` on, `budget` bytes of them; the offset behind the last one."""
    offset = lines.clamp(start)
    for line in lines.forward(offset):
        _add(line, segment, found.append, broken)
        tail.append((line.behind, digest(line.raw)))
        offset = line.behind
        if offset - start >= budget:
            break
    return offset


def _add(line: Found, segment: Segment, add: Callable[[Line], None], broken: Broken) -> None:
    try:
        add(Line(decode(line.raw), line.raw))
    except BrokenRecord as error:
        broken(BrokenRecord(f"`{segment.path}`, byte {line.offset}: {error.message}"))


def _backward(segments: list[Segment], begin: Position, position: Position, broken: Broken) -> Iterator[Line]:
    for segment in reversed(segments):
        first = begin.offset if segment.first_seq == begin.first_seq else 0
        try:
            with open_lines(segment, broken) as lines:
                end = position.offset if segment.first_seq == position.first_seq else lines.end()
                for line in lines.backward(end):
                    if line.offset < first:
                        return
                    found: list[Line] = []
                    _add(line, segment, found.append, broken)
                    yield from found
        except FileNotFoundError:
            continue


def _ignore(error: BrokenRecord) -> None:
    """Who reads on is told."""
