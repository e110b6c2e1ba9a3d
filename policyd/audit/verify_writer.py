"""Whether one writer's records follow one another: the sealed segments first, then the open ones behind them.

Law: reads all and changes nothing. The first record that does not fit is named, and the chain ends before it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from policyd.audit.record import FIRST_SEQ, MAX_LINE_BYTES, Record, decode, digest, genesis
from policyd.audit.room import FILL, whole_end
from policyd.audit.seals import Part
from policyd.audit.segments import Segment, parse_segment
from policyd.audit.verify_seals import REMEDY, Sealed
from policyd.audit.verify_segments import Checked
from policyd.errors import BrokenRecord, Problem


@dataclass(frozen=True, slots=True)
class Chain:
    """One writer's records: `first` to `last` (seq; 0 where there is none) stand unbroken, sealed up to `sealed`.

    `pending` bytes at the very end are no whole line: being written now, or torn; the next start cuts them. Of those
    between, `retired` are gone and said to be: a clock that was ahead has made what came before them stay longer.
    """

    writer: str
    first: int
    last: int
    pending: int = 0
    sealed: int = 0
    retired: int = 0

    @property
    def count(self) -> int:
        """How many records that are."""
        return self.last - self.first + 1 - self.retired if self.last else 0


def check_writer(
    directory: Path, writer: str, checked: Mapping[str, Checked], listed: Sequence[Segment], seals: Sealed
) -> tuple[Chain, Problem | None]:
    """The records of a writer that stand, and the first that does not fit; `listed` are its segments, oldest first."""
    walk = _Walk(writer)
    try:
        for part in (one for one in seals.parts.values() if one.writer == writer):
            walk.file, walk.line = str(directory / part.file), 0
            if part.file in seals.retired:
                walk.pass_over(part)
            else:
                _follow(walk, checked[part.file])
        unsealed = [_unsealed(segment) for segment in listed if segment.path.name not in seals.parts]
        for segment in unsealed:
            if segment.is_sealed and not seals.problems:
                walk.file, walk.line = str(segment.path), 0
                raise BrokenRecord("no seal names this segment", remedy=REMEDY)
        head = seals.heads.get(writer)
        if head and not walk.last:  # all that was sealed is retired
            walk.last, walk.prev = head.seq, head.hash
        _check_leftovers(directory, writer, seals)
        behind = [segment for segment in unsealed if not segment.is_sealed]
        if behind and not walk.last and not seals.problems:
            _check_first(walk, behind[0])
        for segment in behind:
            walk.read(segment, is_last=segment is behind[-1])
    except BrokenRecord as error:
        problem = Problem(error.code, error.message, walk.file, walk.line, remedy=error.remedy or REMEDY)
        return walk.chain, problem
    except OSError as error:
        problem = Problem(BrokenRecord.code, f"it cannot be read: {error.strerror}", walk.file, remedy=REMEDY)
        return walk.chain, problem
    return walk.chain, None


def _unsealed(segment: Segment) -> Segment:
    """The open file, which counts until there is a seal, where both are there."""
    return segment.open if segment.open.path.exists() else segment


def _follow(walk: _Walk, one: Checked) -> None:
    part = one.part
    if one.error:
        walk.stands = walk.stands if one.good < part.first else one.good
        raise BrokenRecord(one.error, remedy=REMEDY)
    if part.missing:
        message = f"records {part.first - part.missing} to {part.first - 1} were missing when this segment was sealed"
        raise BrokenRecord(message, remedy=REMEDY)
    if walk.last and (part.first != walk.last + 1 or one.prev not in ("", walk.prev)):
        raise BrokenRecord(f"record {part.first} follows record {walk.last}", remedy=REMEDY)
    walk.take(part)


def _check_first(walk: _Walk, segment: Segment) -> None:
    """A writer of which nothing was ever sealed begins with its first record."""
    if segment.first_seq > FIRST_SEQ:
        walk.file, walk.line = str(segment.path), 0
        missing = f"records {FIRST_SEQ} to {segment.first_seq - 1} are missing"
        raise BrokenRecord(f"{missing}, and no seal says that they were removed", remedy=REMEDY)


def _check_leftovers(directory: Path, writer: str, seals: Sealed) -> None:
    """An open file beside its sealed form was about to be removed; another's would mislead who looks at it."""
    for part in seals.parts.values():
        segment = parse_segment(directory / part.file)
        if segment is None or part.writer != writer or not segment.open.path.exists():
            continue
        last = deque(_lines(segment.open.path), maxlen=1)
        if not last or digest(last[0]) != part.end:
            raise BrokenRecord(f"`{segment.open.path.name}` differs from what was sealed", remedy=REMEDY)


@dataclass(slots=True)
class _Walk:
    """Goes through one writer's lines and remembers where it is."""

    writer: str
    first: int = 0
    last: int = 0
    stands: int = 0  # the last record that is there; what was passed over may come behind it
    prev: str = ""
    pending: int = 0
    sealed: int = 0
    file: str = ""
    line: int = 0
    passed: int = 0  # records, since the last that stands
    retired: int = 0

    @property
    def chain(self) -> Chain:
        """What stands unbroken so far."""
        return Chain(self.writer, self.first, self.stands if self.first else 0, self.pending, self.sealed, self.retired)

    def take(self, part: Part) -> None:
        """Go on behind a sealed segment that is as it should be."""
        self.stand(part.first, part.last, part.end)
        self.sealed = part.last

    def pass_over(self, part: Part) -> None:
        """Go on behind a sealed segment that is said to be removed."""
        self.last, self.prev = part.last, part.end
        self.passed += part.last - part.first + 1

    def stand(self, first: int, last: int, end: str) -> None:
        """These records are there, and follow."""
        self.retired += self.passed if self.first else 0
        self.passed = 0
        self.first = self.first or first
        self.last = self.stands = last
        self.prev = end

    def read(self, segment: Segment, *, is_last: bool) -> None:
        """Follow one segment; raises BrokenRecord at the first line that does not follow."""
        self.file, self.line = str(segment.path), 0
        for line in _lines(segment.path):
            self.line += 1
            if not line.endswith(b"\n") and is_last and len(line) <= MAX_LINE_BYTES:
                self.pending = len(line)
                return
            if not line.endswith(b"\n"):
                raise BrokenRecord("this line is no whole record", remedy=REMEDY)
            record = decode(line)
            self._check(record, segment)
            self.stand(record.seq, record.seq, digest(line))

    def _check(self, record: Record, segment: Segment) -> None:
        if record.writer != self.writer:
            raise BrokenRecord(f"this record is of writer `{record.writer[:80]}`", remedy=REMEDY)
        if self.line == 1 and record.seq != segment.first_seq:
            raise BrokenRecord(f"this is record {record.seq}, by the file's name {segment.first_seq}", remedy=REMEDY)
        if self.last and record.seq != self.last + 1:
            raise BrokenRecord(f"record {record.seq} follows record {self.last}", remedy=REMEDY)
        expected = genesis(self.writer) if record.seq == FIRST_SEQ else self.prev
        if expected and record.prev != expected:
            raise BrokenRecord(
                f"record {record.seq} does not continue what stands before it: one of the two was changed",
                remedy=REMEDY,
            )


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, and what stands behind them without newline; one that is too long ends the reading.

    Spaces at the end are room for lines that come; of what came since they were looked at nothing is read.
    """
    with path.open("rb") as file:
        left = whole_end(file.fileno())
        rest = os.pread(file.fileno(), MAX_LINE_BYTES + 1, left)
        while left > 0 and (line := file.readline(MAX_LINE_BYTES + 1)):
            left -= len(line)
            yield line
        if b"\n" not in rest and (torn := rest.rstrip(FILL)):
            yield torn
