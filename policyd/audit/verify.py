"""Whether a journal is whole: every seal is genuine, every segment is what was sealed, every record follows.

Law: reads all and changes nothing. What is sealed is proven by the signatures; what is not sealed yet by its hashes
alone, which whoever may write the files could make anew. What it cannot see is a journal whose newest seals were cut
off together with what they sealed, so a seal that was noted elsewhere can be asked for.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from policyd.audit.record import FIRST_SEQ, MAX_LINE_BYTES, Record, decode, digest, genesis
from policyd.audit.room import FILL, whole_end
from policyd.audit.seals import MAX_SEAL_BYTES, SEALS_FILE, Head, Part, Seal, Trust, check_seals
from policyd.audit.segments import Segment, list_segments, parse_segment
from policyd.audit.verify_sealed import Checked, Task, check_all
from policyd.errors import BrokenRecord, Problem

TRIES: Final = 5

Progress = Callable[[int], None]  # is told of records that were checked


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


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest seal: worth noting elsewhere, since it proves that nothing before it was cut off."""

    number: int
    hash: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found: a Chain for each writer, and for each broken one its first record that does not fit."""

    chains: tuple[Chain, ...] = ()
    problems: tuple[Problem, ...] = ()
    newest: Newest | None = None
    sealed_bytes: int = 0


@dataclass(frozen=True, slots=True)
class How:
    """How to verify: `trust` checks who sealed (None: nobody is known to, so seals are an error).

    With `seals_only` sealed segments are compared with their seals and not unpacked. `noted` is a seal that must be
    there, by number and hash. `jobs` processes share the work.
    """

    trust: Trust | None = None
    seals_only: bool = False
    noted: tuple[int, str] | None = None
    jobs: int = 1


_REMEDY = "compare with a copy; from here on the journal proves nothing"


def verify(directory: Path, how: How | None = None, progress: Progress = lambda _: None) -> Verdict:
    """Check all writers of a journal folder; raises JournalError where it cannot be listed."""
    how = how or How()
    for _ in range(TRIES):
        before = _size(directory / SEALS_FILE)
        verdict = _verify(directory, how, progress)
        if not verdict.problems or _size(directory / SEALS_FILE) == before:
            break  # else what was looked for has been sealed or retired since
    return verdict


def _verify(directory: Path, how: How, progress: Progress) -> Verdict:
    listed = list_segments(directory)
    sealed = _read_seals(directory, how)
    problems = [*sealed.problems]
    parts = [part for part in sealed.parts.values() if part.file not in sealed.retired]
    tasks = [Task(str(directory / part.file), part) for part in parts]
    checked = check_all(tasks, unpack=not how.seals_only, jobs=how.jobs, progress=progress)
    chains = []
    for writer in sorted({*listed, *(part.writer for part in parts)}):
        own = {one.part.file: one for one in checked if one.part.writer == writer}
        chain, problem = _check_writer(directory, writer, own, listed.get(writer, ()), sealed)
        chains.append(chain)
        problems += [problem] if problem else []
    bytes_checked = sum(one.size for one in checked)
    return Verdict(tuple(chains), tuple(problems), sealed.newest, bytes_checked)


# ---- seals


@dataclass(slots=True)
class _Sealed:
    """What the seals say."""

    parts: dict[str, Part]
    retired: set[str]
    problems: list[Problem]
    heads: Mapping[str, Head]
    newest: Newest | None = None
    first: int = 0
    pruned: int = 0
    lines: int = 0


def _read_seals(directory: Path, how: How) -> _Sealed:
    path = directory / SEALS_FILE
    found = _Sealed({}, set(), [], {})
    try:
        if how.trust is None and path.exists():
            raise BrokenRecord("there are seals, and no root certificate to check them with", remedy="name the root")
        if how.trust is not None:
            for seal, raw in check_seals(_seal_lines(path), how.trust):
                _take(found, seal, raw)
                _compare(seal, raw, how.noted)
        _check_end(found, how.noted)
    except BrokenRecord as error:
        found.problems.append(Problem(error.code, error.message, str(path), found.lines + 1, remedy=error.remedy))
    try:
        _check_beginning(found, how.noted)
    except BrokenRecord as error:
        found.problems.append(Problem(error.code, error.message, str(path), 1, remedy=error.remedy))
    return found


def _check_end(found: _Sealed, noted: tuple[int, str] | None) -> None:
    last = found.newest.number if found.newest else 0
    if noted and last < noted[0]:
        raise BrokenRecord(f"seal {noted[0]} is missing, the last one is {last}", remedy=_REMEDY)


def _check_beginning(found: _Sealed, noted: tuple[int, str] | None) -> None:
    """What was pruned is said to be, by a seal that was signed before."""
    if found.first > max(1, found.pruned):
        message = f"the seals begin with {found.first}, and none says that those before were pruned"
        raise BrokenRecord(message, remedy=_REMEDY)
    if noted and noted[0] < found.first:
        message = f"seal {noted[0]} cannot be compared: seals before {found.first} were pruned"
        raise BrokenRecord(message, remedy="ask for one that was noted later")


def _take(found: _Sealed, seal: Seal, raw: bytes) -> None:
    found.parts |= {part.file: part for part in seal.segments}
    found.retired |= set(seal.retired)
    found.heads = seal.heads
    found.first, found.pruned = found.first or seal.number, max(found.pruned, seal.pruned)
    found.lines += 1
    found.newest = Newest(seal.number, digest(raw), seal.time)


def _compare(seal: Seal, raw: bytes, noted: tuple[int, str] | None) -> None:
    if noted and seal.number == noted[0] and digest(raw) != noted[1]:
        raise BrokenRecord(f"seal {seal.number} is not the one that was noted", remedy=_REMEDY)


def _seal_lines(path: Path) -> Iterator[bytes]:
    """The lines of the seals' file; one that is torn at the very end was never acted upon."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        while line := file.readline(MAX_SEAL_BYTES + 1):
            if line.endswith(b"\n") or len(line) > MAX_SEAL_BYTES:
                yield line


# ---- writers


def _check_writer(
    directory: Path, writer: str, checked: Mapping[str, Checked], listed: Sequence[Segment], seals: _Sealed
) -> tuple[Chain, Problem | None]:
    """Sealed segments one after the other, then the open ones behind them."""
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
                raise BrokenRecord("no seal names this segment", remedy=_REMEDY)
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
        problem = Problem(error.code, error.message, walk.file, walk.line, remedy=error.remedy or _REMEDY)
        return walk.chain, problem
    except OSError as error:
        problem = Problem(BrokenRecord.code, f"it cannot be read: {error.strerror}", walk.file, remedy=_REMEDY)
        return walk.chain, problem
    return walk.chain, None


def _unsealed(segment: Segment) -> Segment:
    """The open file, which counts until there is a seal, where both are there."""
    return segment.open if segment.open.path.exists() else segment


def _follow(walk: _Walk, one: Checked) -> None:
    part = one.part
    if one.error:
        walk.stands = walk.stands if one.good < part.first else one.good
        raise BrokenRecord(one.error, remedy=_REMEDY)
    if part.missing:
        message = f"records {part.first - part.missing} to {part.first - 1} were missing when this segment was sealed"
        raise BrokenRecord(message, remedy=_REMEDY)
    if walk.last and (part.first != walk.last + 1 or one.prev not in ("", walk.prev)):
        raise BrokenRecord(f"record {part.first} follows record {walk.last}", remedy=_REMEDY)
    walk.take(part)


def _check_first(walk: _Walk, segment: Segment) -> None:
    """A writer of which nothing was ever sealed begins with its first record."""
    if segment.first_seq > FIRST_SEQ:
        walk.file, walk.line = str(segment.path), 0
        missing = f"records {FIRST_SEQ} to {segment.first_seq - 1} are missing"
        raise BrokenRecord(f"{missing}, and no seal says that they were removed", remedy=_REMEDY)


def _check_leftovers(directory: Path, writer: str, seals: _Sealed) -> None:
    """An open file beside its sealed form was about to be removed; another's would mislead who looks at it."""
    for part in seals.parts.values():
        segment = parse_segment(directory / part.file)
        if segment is None or part.writer != writer or not segment.open.path.exists():
            continue
        last = deque(_lines(segment.open.path), maxlen=1)
        if not last or digest(last[0]) != part.end:
            raise BrokenRecord(f"`{segment.open.path.name}` differs from what was sealed", remedy=_REMEDY)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


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
                raise BrokenRecord("this line is no whole record", remedy=_REMEDY)
            record = decode(line)
            self._check(record, segment)
            self.stand(record.seq, record.seq, digest(line))

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
