"""Whether a journal is whole: every record follows the one before it, in number and in hash.

Law: reads all and changes nothing. What it cannot see is a journal cut off at its end, or at its beginning: retention
does that too, so the first record that is there is taken as given unless it is the writer's very first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from policyd.audit.record import FIRST_SEQ, MAX_LINE_BYTES, Record, decode, digest, genesis
from policyd.audit.segments import Segment, list_segments
from policyd.errors import BrokenRecord, Problem


@dataclass(frozen=True, slots=True)
class Chain:
    """One writer's records: `first` to `last` (seq; 0 where there is none) stand unbroken.

    `pending` bytes at the very end are no whole line: being written now, or torn; the next start cuts them.
    """

    writer: str
    first: int
    last: int
    pending: int = 0

    @property
    def count(self) -> int:
        """How many records that are."""
        return self.last - self.first + 1 if self.last else 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found: a Chain for each writer, and for each broken one its first record that does not fit."""

    chains: tuple[Chain, ...] = ()
    problems: tuple[Problem, ...] = ()


def verify(directory: Path) -> Verdict:
    """Check all writers of a journal folder; raises JournalError where it cannot be listed."""
    return verify_segments(list_segments(directory))


def verify_segments(writers: Mapping[str, Sequence[Segment]]) -> Verdict:
    """Check the segments of each writer, which are in order."""
    chains: list[Chain] = []
    problems: list[Problem] = []
    for writer, segments in writers.items():
        walk = _Walk(writer)
        try:
            for segment in segments:
                walk.read(segment, is_last=segment is segments[-1])
        except BrokenRecord as error:
            problems.append(Problem(error.code, error.message, walk.file, walk.line, remedy=error.remedy))
        chains.append(Chain(writer, walk.first, walk.last, walk.pending))
    return Verdict(tuple(chains), tuple(problems))


@dataclass(slots=True)
class _Walk:
    """Goes through one writer's lines and remembers where it is."""

    writer: str
    first: int = 0
    last: int = 0
    prev: str = ""
    pending: int = 0
    file: str = ""
    line: int = 0

    def read(self, segment: Segment, *, is_last: bool) -> None:
        """Follow one segment; raises BrokenRecord at the first line that does not follow."""
        self.file, self.line = str(segment.path), 0
        for line in _lines(segment.path):
            self.line += 1
            if not line.endswith(b"\n") and is_last and len(line) <= MAX_LINE_BYTES:
                self.pending = len(line)
                return
            if not line.endswith(b"\n"):
                raise BrokenRecord("this line is no whole record", remedy=_REMEDY)
            record = decode(line)
            self._check(record, segment)
            self.first = self.first or record.seq
            self.last, self.prev = record.seq, digest(line)

    def _check(self, record: Record, segment: Segment) -> None:
        if record.writer != self.writer:
            raise BrokenRecord(f"this record is of writer `{record.writer[:80]}`", remedy=_REMEDY)
        if self.line == 1 and record.seq != segment.first_seq:
            raise BrokenRecord(f"this is record {record.seq}, by the file's name {segment.first_seq}", remedy=_REMEDY)
        if self.last and record.seq != self.last + 1:
            raise BrokenRecord(f"record {record.seq} follows record {self.last}", remedy=_REMEDY)
        expected = genesis(self.writer) if record.seq == FIRST_SEQ else self.prev
        if expected and record.prev != expected:
            raise BrokenRecord(
                f"record {record.seq} does not continue what stands before it: one of the two was changed",
                remedy=_REMEDY,
            )


_REMEDY = "compare with a copy; from here on the journal proves nothing"


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, the last one maybe without newline; one that is too long ends the reading."""
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            yield line
