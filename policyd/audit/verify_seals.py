"""What a journal's seals say: each is genuine and follows the one before, and what they name as pruned was said to be.

Law: reads all and changes nothing. What is wrong is a problem in the result, so that the writers' records are checked
as far as the seals reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from policyd.audit.record import digest
from policyd.audit.seals import MAX_SEAL_BYTES, SEALS_FILE, Head, Part, Seal, Trust, check_seals
from policyd.errors import BrokenRecord, Problem

REMEDY: Final = "compare with a copy; from here on the journal proves nothing"


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest seal: worth noting elsewhere, since it proves that nothing before it was cut off."""

    number: int
    hash: str
    time: datetime


@dataclass(slots=True)
class Sealed:
    """What the seals say."""

    parts: dict[str, Part]
    retired: set[str]
    problems: list[Problem]
    heads: Mapping[str, Head]
    newest: Newest | None = None
    first: int = 0
    pruned: int = 0
    lines: int = 0


def read_seals(directory: Path, trust: Trust | None, noted: tuple[int, str] | None) -> Sealed:
    """What the seals of a journal folder say, checked by `trust`; `noted` is one that must be there."""
    path = directory / SEALS_FILE
    found = Sealed({}, set(), [], {})
    try:
        if trust is None and path.exists():
            raise BrokenRecord("there are seals, and no root certificate to check them with", remedy="name the root")
        if trust is not None:
            for seal, raw in check_seals(_seal_lines(path), trust):
                _take(found, seal, raw)
                _compare(seal, raw, noted)
        _check_end(found, noted)
    except BrokenRecord as error:
        found.problems.append(Problem(error.code, error.message, str(path), found.lines + 1, remedy=error.remedy))
    try:
        _check_beginning(found, noted)
    except BrokenRecord as error:
        found.problems.append(Problem(error.code, error.message, str(path), 1, remedy=error.remedy))
    return found


def _check_end(found: Sealed, noted: tuple[int, str] | None) -> None:
    last = found.newest.number if found.newest else 0
    if noted and last < noted[0]:
        raise BrokenRecord(f"seal {noted[0]} is missing, the last one is {last}", remedy=REMEDY)


def _check_beginning(found: Sealed, noted: tuple[int, str] | None) -> None:
    """What was pruned is said to be, by a seal that was signed before."""
    if found.first > max(1, found.pruned):
        message = f"the seals begin with {found.first}, and none says that those before were pruned"
        raise BrokenRecord(message, remedy=REMEDY)
    if noted and noted[0] < found.first:
        message = f"seal {noted[0]} cannot be compared: seals before {found.first} were pruned"
        raise BrokenRecord(message, remedy="ask for one that was noted later")


def _take(found: Sealed, seal: Seal, raw: bytes) -> None:
    found.parts |= {part.file: part for part in seal.segments}
    found.retired |= set(seal.retired)
    found.heads = seal.heads
    found.first, found.pruned = found.first or seal.number, max(found.pruned, seal.pruned)
    found.lines += 1
    found.newest = Newest(seal.number, digest(raw), seal.time)


def _compare(seal: Seal, raw: bytes, noted: tuple[int, str] | None) -> None:
    if noted and seal.number == noted[0] and digest(raw) != noted[1]:
        raise BrokenRecord(f"seal {seal.number} is not the one that was noted", remedy=REMEDY)


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
