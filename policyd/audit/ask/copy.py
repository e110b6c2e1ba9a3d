"""The columnar copy: a Parquet file for each segment of the journal.

Law: derived. A file is named for its segment, so that what is there tells what is missing: finished segments are copied
once, of one that is still written the part up to its end, again when it has grown. What the journal no longer has, the
copy has not either. A file is whole or not there; a line that is no record goes to `broken`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from shutil import rmtree
from signal import SIG_IGN, SIGINT, signal
from typing import Final, NamedTuple

import duckdb

from policyd.audit.ask.columns import FORM, lines_sql, quoted
from policyd.audit.lines import open_lines
from policyd.audit.scan import lines_of
from policyd.audit.segments import Segment, list_segments
from policyd.errors import BrokenRecord, QuestionError

ROW_GROUP: Final = 122_880
MANY_BYTES: Final = 32 << 20  # of segments: from here on it is worth starting processes
_BUILDING: Final = "building.lock"
_READING: Final = "reading.lock"

Progress = Callable[[int, int], None]  # files that are made, of so many


class Part(NamedTuple):
    """A segment, or of one that is written the lines up to byte `end`, and the file that holds them."""

    segment: Segment
    end: int | None
    file: Path


def refresh(
    journal: Path, folder: Path, broken: Callable[[BrokenRecord], None], progress: Progress, many: int = MANY_BYTES
) -> list[Path]:
    """Bring the copy in `folder` up to date and return its files, the newest first, since most questions are about
    what was last; raises QuestionError and JournalError.

    From `many` bytes of new segments on, all cores work.
    """
    home = folder / FORM
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(folder / _BUILDING, fcntl.LOCK_EX):
            parts = list(_parts(journal, home))
            _remove_others(folder, home, {part.file for part in parts})
            _build([part for part in parts if not part.file.exists()], broken, progress, many)
            there = [part for part in parts if part.file.exists()]
            return [part.file for part in sorted(there, key=_last_written, reverse=True)]
    except OSError as error:
        message = f"the copy of the journal in `{folder}` cannot be made: {error.strerror}"
        raise QuestionError(message, remedy="it needs about a quarter of the room that the records take") from error


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Keep the files of the copy from being removed while they are read."""
    with _locked(folder / _READING, fcntl.LOCK_SH):
        yield


def _last_written(part: Part) -> float:
    try:
        return part.segment.path.stat().st_mtime
    except FileNotFoundError:  # sealed meanwhile
        return part.file.stat().st_mtime


def _parts(journal: Path, home: Path) -> Iterator[Part]:
    for segments in list_segments(journal).values():
        for segment in segments:
            name = f"{segment.writer}-{segment.first_seq:020d}"
            if segment.is_sealed or segment is not segments[-1]:
                yield Part(segment, None, home / f"{name}.parquet")
                continue
            with suppress(FileNotFoundError), open_lines(segment, _pass_over) as lines:
                if end := lines.end():
                    yield Part(segment, end, home / f"{name}.{end}.parquet")


def _remove_others(folder: Path, home: Path, wanted: set[Path]) -> None:
    """Unless somebody reads: then the next one does."""
    with suppress(BlockingIOError), _locked(folder / _READING, fcntl.LOCK_EX | fcntl.LOCK_NB):
        for path in folder.iterdir():
            if path.is_dir() and path != home:
                rmtree(path)
        for path in home.iterdir():
            if path not in wanted:
                path.unlink()


def _build(parts: list[Part], broken: Callable[[BrokenRecord], None], progress: Progress, many: int) -> None:
    size = sum(part.segment.path.stat().st_size for part in parts if part.segment.path.exists())
    cores = len(os.sched_getaffinity(0))
    if size < many or len(parts) < 2 or cores < 2:
        for number, part in enumerate(parts, 1):
            _tell(build(part), broken)
            progress(number, len(parts))
        return
    spawn = get_context("spawn")
    with ProcessPoolExecutor(cores, mp_context=spawn, initializer=signal, initargs=(SIGINT, SIG_IGN)) as pool:
        try:
            for number, made in enumerate(as_completed([pool.submit(build, part) for part in parts]), 1):
                _tell(made.result(), broken)
                progress(number, len(parts))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # the files that are begun are ended while nobody else may build them
            raise


def build(part: Part) -> list[str]:
    """Make one file, and return what was wrong with lines that are not in it."""
    problems: list[str] = []
    lines, made = part.file.with_suffix(".jsonl"), part.file.with_suffix(".new")
    count = 0
    try:
        with lines.open("wb") as file:
            for line in lines_of(part.segment, lambda error: problems.append(error.message), end=part.end):
                file.write(line.raw)
                count += 1
        if count:
            write_columns(lines, made)
            made.rename(part.file)
    finally:
        lines.unlink(missing_ok=True)
        made.unlink(missing_ok=True)
    return problems


def write_columns(lines: Path, made: Path) -> None:
    """Make a Parquet file of a file of lines."""
    options = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP}"
    with duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "512MiB"}) as connection:
        connection.execute(f"COPY ({lines_sql(str(lines))}) TO {quoted(str(made))} ({options})")


def _tell(problems: list[str], broken: Callable[[BrokenRecord], None]) -> None:
    for problem in problems:
        broken(BrokenRecord(problem))


def _pass_over(_: BrokenRecord) -> None:
    """It is told when the part is built."""


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
