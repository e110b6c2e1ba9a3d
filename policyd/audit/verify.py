"""Whether a journal is whole: every seal is genuine, every segment is what was sealed, every record follows.

Law: reads all and changes nothing. What is sealed is proven by the signatures; what is not sealed yet by its hashes
alone, which whoever may write the files could make anew. What it cannot see is a journal whose newest seals were cut
off together with what they sealed, so a seal that was noted elsewhere can be asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policyd.audit.seals import SEALS_FILE, Trust
from policyd.audit.segments import list_segments
from policyd.audit.verify_seals import Newest, read_seals
from policyd.audit.verify_segments import Task, check_all
from policyd.audit.verify_writer import Chain, check_writer
from policyd.errors import Problem

TRIES: Final = 5

Progress = Callable[[int], None]  # is told of records that were checked


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
    sealed = read_seals(directory, how.trust, how.noted)
    problems = [*sealed.problems]
    parts = [part for part in sealed.parts.values() if part.file not in sealed.retired]
    tasks = [Task(str(directory / part.file), part) for part in parts]
    checked = check_all(tasks, unpack=not how.seals_only, jobs=how.jobs, progress=progress)
    chains = []
    for writer in sorted({*listed, *(part.writer for part in parts)}):
        own = {one.part.file: one for one in checked if one.part.writer == writer}
        chain, problem = check_writer(directory, writer, own, listed.get(writer, ()), sealed)
        chains.append(chain)
        problems += [problem] if problem else []
    bytes_checked = sum(one.size for one in checked)
    return Verdict(tuple(chains), tuple(problems), sealed.newest, bytes_checked)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
