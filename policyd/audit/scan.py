"""The records of a stretch of time, the oldest first, whole segments passed over where they cannot hold any.

Law: reads and changes nothing. A segment is left out only by what is read of it; clocks that were set back by less than
CLOCK_SLACK hide nothing. Order is by `seq` within a writer, by `time` among several.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from policyd.audit.lines import Broken, open_lines
from policyd.audit.read import Line
from policyd.audit.record import decode
from policyd.audit.segments import Segment, list_segments
from policyd.errors import BrokenRecord

CLOCK_SLACK: Final = timedelta(hours=1)

Passed = Callable[[int], None]  # is told of bytes of lines that were read
TOLD_BYTES: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Span:
    """From `since` on, before `until`; None is no bound."""

    since: datetime | None = None
    until: datetime | None = None

    def holds(self, time: datetime) -> bool:
        """Whether a moment is in it."""
        return (self.since is None or time >= self.since) and (self.until is None or time < self.until)


def _unheard(_: int) -> None:
    return


@dataclass(frozen=True, slots=True)
class Scan:
    """The segments of a journal, by writer, that may hold records of `span`."""

    writers: tuple[tuple[Segment, ...], ...]
    span: Span

    @property
    def size(self) -> int:
        """The bytes of the lines that are to be read."""
        return sum(_size(segment) for segments in self.writers for segment in segments)

    def lines(self, broken: Broken, passed: Passed = _unheard) -> Iterator[Line]:
        """The records; lines that are none go to `broken`."""
        streams = [self._of_writer(segments, broken, passed) for segments in self.writers]
        return heapq.merge(*streams, key=lambda line: line.record.time)

    def _of_writer(self, segments: Sequence[Segment], broken: Broken, passed: Passed) -> Iterator[Line]:
        for segment in segments:
            read = 0
            for line in lines_of(segment, broken):
                read += len(line.raw)
                if read >= TOLD_BYTES:
                    passed(read)
                    read = 0
                if self.span.holds(line.record.time):
                    yield line
            passed(read)


def scan(directory: Path, span: Span) -> Scan:
    """What is to be read for `span`; raises JournalError where the folder cannot be listed."""
    if span.since is None:
        return Scan(tuple(map(tuple, list_segments(directory).values())), span)
    before = span.since - CLOCK_SLACK
    return Scan(tuple(_from(segments, before) for segments in list_segments(directory).values()), span)


def lines_of(segment: Segment, broken: Broken, start: int = 0, end: int | None = None) -> Iterator[Line]:
    """The records of one segment from byte `start` up to `end`; none where retention was faster."""
    try:
        with open_lines(segment, broken) as lines:
            for found in lines.forward(start):
                if end is not None and found.behind > end:
                    return
                try:
                    yield Line(decode(found.raw), found.raw)
                except BrokenRecord as error:
                    broken(BrokenRecord(f"`{segment.path}`, byte {found.offset}: {error.message}"))
    except FileNotFoundError:
        return


def _from(segments: Sequence[Segment], before: datetime) -> tuple[Segment, ...]:
    """Without those in front whose next one begins before then: found by halves, as times grow but for the slack."""
    low, high = 0, len(segments) - 1
    while low < high:
        middle = (low + high + 1) // 2
        begins = _begins(segments[middle])
        if begins is not None and begins < before:
            low = middle
        else:
            high = middle - 1
    return tuple(segments[low:])


def _begins(segment: Segment) -> datetime | None:
    """The time of the first record that is one; None where there is none."""
    first = next(lines_of(segment, _pass_over), None)
    return first.record.time if first else None


def _pass_over(_: BrokenRecord) -> None:
    return


def _size(segment: Segment) -> int:
    try:
        with open_lines(segment, _pass_over) as lines:
            return lines.end()
    except FileNotFoundError:
        return 0
