"""The journal streamed to a target: at least once, from where it stopped, however long the target is away.

Law: the journal is the buffer. What was read is held until the target has it, and nothing more is read meanwhile; how
far the target is, is written only after that. A record that the target refuses for good is passed over and said, so
that one does not keep all others back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from threading import Event
from typing import Final, Literal, NamedTuple, Protocol

import structlog

from policyd.audit.exported import Taken, read_taken, write_taken
from policyd.audit.read import Follower, Line
from policyd.audit.segments import list_segments
from policyd.errors import BrokenRecord, JournalError

BATCH_RECORDS: Final = 512
BATCH_BYTES: Final = 1 << 20
READ_BYTES: Final = 1 << 20  # of a writer at a time
IDLE_SECONDS: Final = 0.5
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0

_log = structlog.get_logger("policyd.audit.stream")


class Sent(NamedTuple):
    """What became of a batch. `refused`: it will never be taken as it is; `wait` is what the target asks for, if longer
    than what we would wait by ourselves.
    """

    outcome: Literal["taken", "later", "refused"]
    why: str = ""
    wait: float = 0.0


class Observer(Protocol):
    """What is counted."""

    def exported(self, count: int) -> None:
        """So many records were taken."""

    def export_failed(self) -> None:
        """A batch was not taken."""

    def export_behind(self, seconds: float) -> None:
        """So old is the oldest record that is not taken yet."""


@dataclass(slots=True)
class Health:
    """Why the target takes nothing now, and since when; "" if it does."""

    trouble: str = ""
    since: datetime | None = None


class Stream:
    """Reads `journal` and hands batches to `send`; `stop` ends it between two tries."""

    def __init__(
        self,
        journal: Path,
        target: str,
        send: Callable[[Sequence[Line]], Sent],
        *,
        clock: Callable[[], datetime],
        random: Random,
        stop: Event,
        observer: Observer,
    ) -> None:
        self.health = Health()
        self._journal = journal
        self._target = target
        self._send = send
        self._clock = clock
        self._random = random
        self._stop = stop
        self._observer = observer
        self._taken = read_taken(journal, target)
        positions = {writer: one.position for writer, one in self._taken.items()}
        self._follower = Follower(journal, positions, _say_broken, READ_BYTES)

    def run(self) -> None:
        """Go on until `stop` is set."""
        while not self._stop.is_set():
            try:
                idle = not self.step()
            except JournalError as error:
                _log.error("export.journal_unreadable", reason=error.message)
                idle = True
            if idle:
                self._stop.wait(IDLE_SECONDS)

    def step(self) -> bool:
        """Read on and deliver what was read; whether there was any. Raises JournalError."""
        lines = self._follower.poll()
        for batch in batches(lines):
            self._observer.export_behind((self._clock() - batch[0].record.time).total_seconds())
            if not self._deliver(batch):
                return False
        if not lines:
            self._observer.export_behind(0.0)
            return False
        self._keep(lines)
        return True

    def _keep(self, lines: Sequence[Line]) -> None:
        """Write how far it is; of writers whose segments are all gone there is nothing to say."""
        last: dict[str, int] = {}
        for line in lines:
            last[line.record.writer] = max(line.record.seq, last.get(line.record.writer, 0))
        for writer, seq in last.items():
            position = self._follower.positions[writer]
            self._taken[writer] = Taken(position.first_seq, position.offset, seq)
        there = list_segments(self._journal)
        self._taken = {writer: one for writer, one in self._taken.items() if writer in there}
        write_taken(self._journal, self._target, self._taken)

    def _deliver(self, batch: Sequence[Line]) -> bool:
        """Try until it is taken, or known never to be; False where we are stopped before."""
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            sent = self._send(batch)
            if sent.outcome == "taken":
                self._observer.exported(len(batch))
                self._recovered()
                return True
            self._observer.export_failed()
            if sent.outcome == "refused":
                return self._refused(batch, sent)
            self._failed(sent.why)
            self._stop.wait(max(sent.wait, pause * self._random.uniform(0.8, 1.2)))
            pause = min(LONGEST_PAUSE, pause * 2)
            self._observer.export_behind((self._clock() - batch[0].record.time).total_seconds())
        return False

    def _refused(self, batch: Sequence[Line], sent: Sent) -> bool:
        """Find the record that is refused by halves, and pass over it."""
        if len(batch) > 1:
            middle = len(batch) // 2
            return self._deliver(batch[:middle]) and self._deliver(batch[middle:])
        record = batch[0].record
        _log.error("export.record_refused", writer=record.writer, seq=record.seq, reason=sent.why)
        return True

    def _failed(self, why: str) -> None:
        if why != self.health.trouble:
            _log.warning("export.waits", target=self._target, reason=why)
        self.health = Health(why, self.health.since or self._clock())

    def _recovered(self) -> None:
        if self.health.trouble:
            _log.info("export.goes_on", target=self._target)
            self.health = Health()


def batches(lines: Sequence[Line]) -> Iterator[Sequence[Line]]:
    """Lines in batches of BATCH_RECORDS and BATCH_BYTES at most, a single larger line by itself."""
    batch: list[Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == BATCH_RECORDS or size + len(line.raw) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.raw)
    if batch:
        yield batch


def _say_broken(error: BrokenRecord) -> None:
    _log.error("export.broken_record", reason=error.message)
