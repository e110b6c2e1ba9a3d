"""The journal of one writer: every entry gets its place and is kept before its caller goes on, or is refused.

Law: `append` returns a record that has been handed to the operating system (`fsync`: to the medium; `async`: to a
bounded buffer), or raises JournalError; then nothing of it is visible. A writer's records have no gap in `seq`; what
could not be kept is counted, and said by a record of its own as soon as one can be kept. A writer removes nothing:
finished segments are sealed, and later retired, by policyd.audit.sealer.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec
import structlog

from policyd.audit.appender import Appender, Limits
from policyd.audit.buffer import BUFFER_BYTES, Buffer, Sink
from policyd.audit.commits import Commits, Next
from policyd.audit.disk import Disk
from policyd.audit.group import Waiting
from policyd.audit.masking import mask, may_hold_secret
from policyd.audit.record import Entry, Kind, Record, check_length, digest, encode_entry, line_of, place
from policyd.audit.rules import Masker
from policyd.audit.segments import check_writer
from policyd.audit.stencil import Own, Stencil
from policyd.audit.unsaid import OnFull, Unsaid
from policyd.audit.writer import end_of, locked
from policyd.errors import JournalError

Durability = Literal["written", "fsync", "async"]
Clock = Callable[[], datetime]

TOGETHER: Final = 2 << 20  # bytes that are written in one go

_log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Who counts; policyd.telemetry.metrics.Metrics is one."""

    def journal_record(self, kind: str, count: int = 1) -> None:
        """Count records that were kept."""

    def journal_failure(self) -> None:
        """Count an entry that was not."""


class Placed(msgspec.Struct, frozen=True, gc=False):
    """An entry as it was kept, and its place: the `seq`-th of its writer, after `prev`."""

    entry: Entry
    seq: int
    prev: str


class Journal:
    """Appends to the segments of `writer` in `directory`; safe for threads. One opener for each writer.

    `limits` bound a segment and its life. With `on_full` "drop" a decision that cannot be kept is counted and
    `append` returns None; with "deny" it raises, as it always does for what is no decision. Under `async` and `fsync`,
    `buffer_bytes` may wait for the disk; under `fsync`, callers wait as `waiting` says. Raises StateError where the
    folder is unusable, open to others or in use, JournalError where its files do not say where to go on. `masker` is
    applied to every entry before it is anywhere.
    """

    def __init__(
        self,
        directory: Path,
        writer: str,
        clock: Clock,
        *,
        limits: Limits | None = None,
        durability: Durability = "written",
        on_full: OnFull = "deny",
        buffer_bytes: int = BUFFER_BYTES,
        waiting: Waiting | None = None,
        disk: Disk | None = None,
        observer: Observer | None = None,
        masker: Masker | None = None,
    ) -> None:
        self.directory = directory
        self.writer = check_writer(writer)
        self._clock = clock
        self._on_full = on_full
        self._disk = disk or Disk()
        self._observer = observer
        self._masker = masker
        self._mutex = threading.Lock()
        self._closed = False
        self._unsaid = Unsaid()
        self._lock_fd = locked(self._disk, directory, writer)
        try:
            found, torn = end_of(self._disk, directory, writer)
            if torn is not None:
                self._unsaid.note("journal.recovered", torn, clock())
            self._next = Next(found.seq, found.prev)
            sync = durability == "fsync"
            files = self._files = Appender(self._disk, directory, writer, clock, limits or Limits(), found, sync=sync)
        except BaseException:
            self._disk.close(self._lock_fd)
            raise
        self._commits: Commits | None = None
        self._sink: Sink = files
        if durability == "fsync":
            self._commits = Commits(self._disk, files, self._mutex, self._next, waiting or Waiting(), buffer_bytes)
            self._sink = self._commits
        elif durability == "async":
            self._sink = Buffer(files, buffer_bytes)
        with self._mutex:
            self._settle()

    def append(self, entry: Entry) -> Record | None:
        """As `keep`, for who wants the record that was made of `entry`."""
        placed = self.keep(entry)
        return None if placed is None else place(placed.entry, self.writer, placed.seq, placed.prev)

    def keep(self, entry: Entry) -> Placed | None:
        """Keep `entry`, without credentials; None if it was dropped, as `on_full` allows for decisions.

        Raises JournalError.
        """
        try:
            ready, body = self._ready(entry)
            with self._mutex:
                if self._closed or self._unsaid.notes or self._unsaid.gap is not None:
                    self._check_open()
                placed = self._put(ready, body)
                epoch = self._commits.epoch if self._commits else None
            if self._commits is not None and epoch is not None:
                self._commits.wait(epoch, placed.seq)
        except JournalError as error:
            with self._mutex:
                if self._closed:
                    raise
                self._miss(entry.kind, error)
            if self._may_drop(entry.kind):
                return None
            raise
        if self._observer is not None:
            self._observer.journal_record(entry.kind)
        return placed

    def keep_all(self, entries: Sequence[Entry]) -> list[JournalError | None]:
        """Keep entries that come together, without credentials: in one write, and under `fsync` one commit, which who
        calls makes. Of each, what `keep` would raise; None where it would return.
        """
        outcomes: list[JournalError | None] = [None] * len(entries)
        places, ready, bodies = list[int](), list[Entry](), list[bytes]()
        for at, entry in enumerate(entries):
            try:
                masked, body = self._ready(entry)
                check_length(body)  # one that is too long spoils no other
            except JournalError as error:
                outcomes[at] = error
            else:
                places.append(at)
                ready.append(masked)
                bodies.append(body)
        kept, failure = self._keep_ready(ready, bodies) if bodies else (0, None)
        for at in places[kept:]:
            outcomes[at] = failure
        self._count(entry.kind for entry in ready[:kept])
        return self._told([entry.kind for entry in entries], outcomes) if any(outcomes) else outcomes

    def _keep_ready(self, entries: Sequence[Entry], bodies: Sequence[bytes]) -> tuple[int, JournalError | None]:
        """How many of them are kept, the first ones, and why the others are not."""
        failure: JournalError | None = None
        with self._mutex:
            try:
                self._check_open()
            except JournalError as error:  # what could be said before that is none of these
                return 0, error
            if not self._files.is_of(entries[0].time):
                self._sink.turn()
            first = self._next.seq
            try:
                self._put_all(bodies)
            except JournalError as error:
                failure = error
            kept = self._next.seq - first
            epoch = self._commits.epoch if self._commits else None
        if self._commits is not None and epoch is not None and kept:
            try:
                self._commits.sync(epoch, first + kept - 1)
            except JournalError as error:
                failure, kept = error, max(epoch.synced - first + 1, 0)
        return kept, failure

    def _told(self, kinds: Sequence[Kind], outcomes: list[JournalError | None]) -> list[JournalError | None]:
        """What is told where some entries, of these kinds, are not kept."""
        with self._mutex:
            if self._closed:
                return outcomes
            for kind, error in zip(kinds, outcomes, strict=True):
                if error is not None:
                    self._miss(kind, error)
        return [None if self._may_drop(kind) else error for kind, error in zip(kinds, outcomes, strict=True)]

    def stencil(self, entry: Entry) -> Stencil:
        """Of `entry`, without credentials, for `keep_filled`; raises JournalError for what has no line."""
        return Stencil(self._ready(entry)[0])

    def keep_filled(self, filled: Sequence[tuple[Stencil, Own]]) -> None:
        """Keep entries that come together and that somebody else still has: in one write, waiting for the medium once.

        Raises JournalError where they cannot be kept now; whoever has them comes again, so nothing is missed yet.
        """
        bodies = [stencil.filled(own) for stencil, own in filled]
        if not bodies:
            return
        with self._mutex:
            self._check_open()
            if not self._files.is_of(self._clock()):
                self._sink.turn()
            self._put_all(bodies, whole=True)  # a part of them would come twice
            seq = self._next.seq - 1
            epoch = self._commits.epoch if self._commits else None
        if self._commits is not None and epoch is not None:
            self._commits.wait(epoch, seq)
        self._count(stencil.entry.kind for stencil, _ in filled)

    def trouble(self) -> str:
        """Why the next record would not be kept, for people; "" if it would: tries by recording what was missed."""
        with self._mutex:
            if self._closed:
                return "the journal is closed"
            error = self._settle()
            return str(error) if error else self._sink.trouble()

    def turn(self) -> None:
        """End a segment that is too old; call it now and then, for a journal that rests."""
        with self._mutex:
            if not self._closed:
                self._sink.turn()

    def hurry(self) -> bool:
        """Nobody will append now: have those who wait for the medium wait no longer; whether there were some.

        The commit is made by the thread that calls, unless one is under way.
        """
        return self._commits is not None and self._commits.hurry()

    def close(self) -> None:
        """Keep what was taken, and let another opener in. Raises JournalError for records that are lost."""
        try:
            with self._mutex:
                self._rest()
                if not self._closed:
                    self._close()
        finally:
            if self._commits is not None:
                self._commits.end()

    def _close(self) -> None:
        try:
            self._sink.close()
        finally:
            self._closed = True
            self._disk.close(self._lock_fd)

    def _rest(self) -> None:
        """Let a commit that is under way end; others may take the mutex meanwhile."""
        if self._commits is not None:
            self._commits.rest()

    def _settle(self) -> JournalError | None:
        """Record what is still to be said about the journal itself; the error that hinders it."""
        unsaid = self._unsaid
        if not unsaid.notes and unsaid.gap is None:
            return None
        self._rest()
        if self._closed:
            return JournalError("the journal is closed")
        try:
            while unsaid.notes:
                self._say(unsaid.notes[0])
                del unsaid.notes[0]
            if unsaid.gap is not None:
                self._say(unsaid.gap.told(self._clock()))
                _log.warning("journal.goes_on", missed=unsaid.gap.counts.total())
                unsaid.gap = None
        except JournalError as error:
            return error
        return None

    def _say(self, note: Entry) -> None:
        """Keep a note for good, before it is forgotten that it has to be made."""
        self._put(*self._ready(note))
        if self._commits is not None:
            self._commits.now()
        if self._observer is not None:
            self._observer.journal_record(note.kind)

    def _ready(self, entry: Entry) -> tuple[Entry, bytes]:
        """An entry without what it must not tell, and its JSON; raises JournalError for what has no line."""
        if self._masker is not None:
            entry = self._masker(entry)
        body = encode_entry(entry)
        if may_hold_secret(entry):
            entry = mask(entry)
            body = encode_entry(entry)
        return entry, body

    def _count(self, kinds: Iterable[Kind]) -> None:
        if self._observer is not None:
            for kind, count in Counter(kinds).items():
                self._observer.journal_record(kind, count)

    def _check_open(self) -> None:
        """Raise JournalError where nothing can be kept; what is to be said first is said."""
        if self._closed:
            raise JournalError("the journal is closed")
        trouble = self._settle()
        if trouble is not None:
            raise trouble

    def _put(self, entry: Entry, body: bytes) -> Placed:
        """Write what is ready in its place; raises JournalError."""
        if not self._files.is_of(entry.time):
            self._sink.turn()
        place = self._next
        seq, prev = place.seq, place.prev
        line = line_of(body, self.writer, seq, prev)
        self._sink.append(line, seq)
        place.seq, place.prev = seq + 1, digest(line)
        return Placed(entry, seq, prev)

    def _put_all(self, bodies: Sequence[bytes], *, whole: bool = False) -> None:
        """Write them in their places: in one go, unless they are very large and need not all be kept, or none."""
        place = self._next
        seq, prev, lines, size = place.seq, place.prev, list[bytes](), 0
        for body in bodies:
            if size > TOGETHER and not whole:
                self._sink.append(b"".join(lines), place.seq)
                place.seq, place.prev, lines, size = seq, prev, [], 0
            line = line_of(body, self.writer, seq, prev)
            lines.append(line)
            seq, prev, size = seq + 1, digest(line), size + len(line)
        self._sink.append(b"".join(lines), place.seq)
        place.seq, place.prev = seq, prev

    def _may_drop(self, kind: Kind) -> bool:
        """Whether what it is about goes on without a record: never a certificate, a change or an operation."""
        return self._on_full == "drop" and kind == "decision"

    def _miss(self, kind: Kind, error: JournalError) -> None:
        if self._unsaid.miss("dropped" if self._may_drop(kind) else "refused", error.message, self._clock()):
            _log.error("journal.takes_none", reason=error.message)
        if self._observer is not None:
            self._observer.journal_failure()
