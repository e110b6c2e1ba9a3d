"""The shell of a replay: records in, questions to all cores, each different one once, answers into a tally.

Law: memory is bounded by the number of different questions that are remembered, never by the length of the journal.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal
from typing import TYPE_CHECKING, Final

from policyd.audit.record import Record
from policyd.errors import DecisionError
from policyd.policy.replay import Answer, Lacking, Projector, decide
from policyd.policy.replay_tally import Same, Seen, Tally

if TYPE_CHECKING:
    from datetime import datetime

    from policyd.authz.ruling import Ruling
    from policyd.sources.files import Folder

BATCH: Final = 500  # questions that a process is given at a time
FEW: Final = 20_000  # questions that are not worth starting processes for: a second on one core
MAX_KNOWN: Final = 1_000_000  # answers that are remembered

Ask = Callable[[list[bytes]], "Future[list[Answer]]"]


@contextmanager
def deciders(folder: Folder, ruling: Ruling, few: int = FEW) -> Iterator[Ask]:
    """Decide under `ruling`, which is what `folder` comes to: the first `few` here, then on all cores."""
    cores = len(os.sched_getaffinity(0))
    pool: ProcessPoolExecutor | None = None
    asked = 0

    def ask(questions: list[bytes]) -> Future[list[Answer]]:
        nonlocal pool, asked
        asked += len(questions)
        if asked <= few or cores == 1:
            done: Future[list[Answer]] = Future()
            done.set_result([decide(one, ruling) for one in questions])
            return done
        if pool is None:
            given = (str(folder.directory), dict(folder.texts), folder.digest, ruling.revision)
            pool = ProcessPoolExecutor(cores, mp_context=get_context("spawn"), initializer=_begin, initargs=given)
        return pool.submit(_decide, questions)

    try:
        yield ask
    finally:
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


_ruling: Ruling | None = None


def _begin(directory: str, texts: dict[str, str], digest: str, revision: str) -> None:
    """What a process does first: load what it decides under."""
    global _ruling
    from policyd.offline.loaded import load_texts
    from policyd.reload.live import shipped_schemas
    from policyd.sources.files import Folder

    signal(SIGINT, SIG_IGN)  # Ctrl-C is for the one that started us
    _ruling = load_texts(Folder(Path(directory), texts, digest), shipped_schemas()).ruling
    assert _ruling.revision == revision


def _decide(questions: list[bytes]) -> list[Answer]:
    assert _ruling is not None
    return [decide(one, _ruling) for one in questions]


def replay(records: Iterable[Record], projector: Projector, ask: Ask) -> Tally:
    """Decide all of it again; raises DecisionError where a process that decides is lost."""
    work = _Replay(projector, ask)
    for record in records:
        work.take(record)
    return work.end()


class _Replay:
    """Questions on their way: `known` are answered, `waiting` are asked, by their hashes; `batch` is not asked yet."""

    def __init__(self, projector: Projector, ask: Ask) -> None:
        self._projector = projector
        self._ask = ask
        self._tally = Tally()
        self._known: dict[bytes, Answer] = {}
        self._waiting: dict[bytes, dict[Same, Seen]] = {}
        self._batch: dict[bytes, bytes] = {}
        self._out: deque[tuple[list[bytes], Future[list[Answer]]]] = deque()

    def take(self, record: Record) -> None:
        """Count a record, now or when its question is answered."""
        if self._tally.pass_over(record):
            return
        question = self._projector.question(record)
        if isinstance(question, Lacking):
            self._tally.cannot(record, question)
            return
        key = blake2b(question, digest_size=16).digest()
        answer = self._known.get(key)
        if answer is not None:
            seen = Seen()
            seen.add(record)
            self._tally.add(Same.of(record), seen, answer)
            return
        if key not in self._waiting:
            self._waiting[key] = {}
            self._batch[key] = question
        self._waiting[key].setdefault(Same.of(record), Seen()).add(record)
        if len(self._batch) >= BATCH:
            self._send()

    def end(self) -> Tally:
        """Wait for what is still out."""
        if self._batch:
            self._send()
        self._collect(0)
        return self._tally

    def _send(self) -> None:
        self._tally.asked += len(self._batch)
        self._out.append((list(self._batch), self._ask(list(self._batch.values()))))
        self._batch.clear()
        self._collect(_most_out())
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()

    def _collect(self, most: int) -> None:
        """Take answers, and wait for some while more than `most` batches are out."""
        while self._out and (len(self._out) > most or self._out[0][1].done()):
            keys, future = self._out.popleft()
            try:
                answers = future.result()
            except BrokenProcessPool as error:
                message = "a process that decides was ended, perhaps for want of memory"
                raise DecisionError(message, remedy="narrow it with `--since`") from error
            for key, answer in zip(keys, answers, strict=True):
                self._known[key] = answer
                for same, seen in self._waiting.pop(key).items():
                    self._tally.add(same, seen, answer)


def _most_out() -> int:
    """Batches that may be under way, so that no core waits and memory stays."""
    return 4 * len(os.sched_getaffinity(0))


def before_of(directory: Path, now: Ruling | None = None) -> Callable[[str, datetime], Ruling | None]:
    """What was in force under a revision: what is kept of the folder, or the folder as it is now, if it is the same."""

    def find(revision: str, at: datetime) -> Ruling | None:
        from policyd.errors import PolicydError
        from policyd.offline.revisions import load_revision

        try:
            found = load_revision(directory, revision, at)[1].ruling
        except PolicydError:
            found = None
        if found is not None and found.revision == revision:
            return found
        return now if now is not None and now.revision == revision else None

    return find
