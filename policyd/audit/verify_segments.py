"""Whether sealed segments are what their seals say, many at a time.

Law: pure but for reading. A file is compared with its seal by its hash; unpacked, its chain is hashed anew, so that the
first record that is not the sealed one is named. Segments are checked in processes of their own, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO, Final

from policyd.audit.pack import hash_file
from policyd.audit.sealed import read_block, read_index
from policyd.audit.seals import Part
from policyd.audit.segments import parse_segment
from policyd.errors import BrokenRecord

ALONE_BYTES: Final = 8 << 20  # less than so much is not worth starting processes for


@dataclass(frozen=True, slots=True)
class Task:
    """A sealed file and what its seal says of it."""

    path: str
    part: Part


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of it: the last record that is `good`, `prev` of the first ("" if it was not looked for)."""

    part: Part
    good: int = 0
    prev: str = ""
    error: str = ""
    size: int = 0


def check_all(
    tasks: Sequence[Task],
    *,
    unpack: bool,
    jobs: int,
    progress: Callable[[int], None],
    alone_bytes: int = ALONE_BYTES,
) -> list[Checked]:
    """Check them all, in the order given, in `jobs` processes from `alone_bytes` on; `progress` is told of records."""
    checked = []
    for one in _results(tasks, unpack, jobs if sum(task.part.bytes for task in tasks) >= alone_bytes else 1):
        progress(one.part.last - one.part.first + 1)
        checked.append(one)
    return checked


def _results(tasks: Sequence[Task], unpack: bool, jobs: int) -> Iterator[Checked]:
    check = check_chain if unpack else check_hash
    if jobs < 2 or len(tasks) < 2:
        yield from map(check, tasks)
        return
    with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(check, tasks)


def check_hash(task: Task) -> Checked:
    """Compare the file with its seal; what does not fit is unpacked to find where."""
    try:
        with Path(task.path).open("rb") as file:
            digest, size = hash_file(file)
            if digest == task.part.sha256:
                return Checked(task.part, task.part.last, size=size)
    except OSError as error:
        return _missing(task, error)
    return check_chain(task)


def check_chain(task: Task) -> Checked:
    """Unpack all records, hash their chain anew, and compare both with the seal."""
    part, good = task.part, task.part.first - 1
    try:
        with Path(task.path).open("rb") as file:
            digest, size = hash_file(file)
            prev = ""
            for first_prev, last, end in _walk(file, task):
                prev = prev or first_prev
                good, reached = last, end
            if (good, reached) != (part.last, part.end):
                raise BrokenRecord(f"these are not the records {part.first} to {part.last} that were sealed")
            if digest != part.sha256:
                raise BrokenRecord("its records are those that were sealed, its file is not")
            return Checked(part, good, prev, size=size)
    except OSError as error:
        return _missing(task, error)
    except BrokenRecord as error:
        return Checked(part, good, error=error.message)


def _walk(file: BinaryIO, task: Task) -> Iterator[tuple[str, int, str]]:
    """Of each block: `prev` of its first record, its last record, and the hash of that."""
    segment = parse_segment(Path(task.path))
    if segment is None:
        raise BrokenRecord("its name is no segment's")
    index = read_index(file, segment)
    prev = index.prev
    for place in index.places:
        if place.prev != prev:
            raise BrokenRecord(f"record {place.seq} does not continue what stands before it")
        prev = read_block(file, index, place).end
        yield place.prev, place.seq + place.count - 1, prev


def _missing(task: Task, error: OSError) -> Checked:
    part = task.part
    why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
    return Checked(part, part.first - 1, error=f"records {part.first} to {part.last} were sealed, their file {why}")
