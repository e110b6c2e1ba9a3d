"""The journal of one writer: every entry gets its place and is kept before its caller goes on, or is refused.

Law: `append` returns a record that has been handed to the operating system (`fsync`: to the medium; `async`: to a
bounded buffer), or raises JournalError; then nothing of it is visible. A writer's records have no gap in `seq`; what
could not be kept is counted, and said by a record of its own as soon as one can be kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import structlog

from policyd.audit.appender import Appender, Limits
from policyd.audit.buffer import BUFFER_BYTES, Buffer, Sink
from policyd.audit.disk import Disk
from policyd.audit.masking import mask, may_hold_secret
from policyd.audit.record import Entry, Record, digest, encode, place
from policyd.audit.recovery import Found, find_end
from policyd.audit.segments import LOCK_SUFFIX, TORN, check_writer, list_segments
from policyd.errors import JournalError, StateError

Durability = Literal["written", "fsync", "async"]
OnFull = Literal["deny", "drop"]
Clock = Callable[[], datetime]

_log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Who counts; policyd.telemetry.metrics.Metrics is one."""

    def journal_record(self, kind: str) -> None:
        """Count a record that was kept."""

    def journal_failure(self) -> None:
        """Count an entry that was not."""


@dataclass(slots=True)
class _Gap:
    """What could not be kept since the last record: how many, from when until when, and why."""

    count: int
    since: datetime
    until: datetime
    reason: str


def writer_name(directory: Path, role: str, make_id: Callable[[], str], disk: Disk | None = None) -> str:
    """The writer of a process role (`serve`, `decide-1`) in this folder: always the same, and unlike another folder's.

    `make_id` gives a few random hex digits; they are kept in `directory`/id. Raises StateError.
    """
    disk = disk or Disk()
    try:
        disk.make_folder(directory)
        return check_writer(f"{role}-{disk.write_once(directory / 'id', make_id)}")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its `id` is no text"
        raise _unusable(directory, reason) from error


class Journal:
    """Appends to the segments of `writer` in `directory`; safe for threads. One opener for each writer.

    `limits` bound a segment and its life. With `on_full` "drop" an entry that cannot be kept is counted and
    `append` returns None; with "deny" it raises. Under `async`, `buffer_bytes` may wait for the disk. Raises
    StateError where the folder is unusable, open to others or in use, JournalError where its files do not say
    where to go on.
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
        disk: Disk | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.directory = directory
        self.writer = check_writer(writer)
        self._clock = clock
        self._on_full = on_full
        self._disk = disk or Disk()
        self._observer = observer
        self._mutex = threading.Lock()
        self._closed = False
        self._gap: _Gap | None = None
        self._notes: list[Entry] = []
        self._lock_fd = self._take()
        try:
            found = self._recover()
            self._seq, self._prev = found.seq, found.prev
            sync = durability == "fsync"
            files = Appender(self._disk, directory, writer, clock, limits or Limits(), found, sync=sync)
            files.expire()
            self._sink: Sink = Buffer(files, buffer_bytes) if durability == "async" else files
        except BaseException:
            self._disk.close(self._lock_fd)
            raise
        with self._mutex:
            self._settle()

    def append(self, entry: Entry) -> Record | None:
        """Keep `entry`, without credentials; None if it was dropped, as `on_full` allows. Raises JournalError."""
        with self._mutex:
            if self._closed:
                raise JournalError("the journal is closed")
            try:
                trouble = self._settle()
                if trouble is not None:
                    raise trouble
                return self._put(entry)
            except JournalError as error:
                self._miss(error)
                if self._on_full == "drop":
                    return None
                raise

    def writable(self) -> bool:
        """Whether the next record would be kept; after a failure, tries by recording what was missed."""
        return not self.trouble()

    def trouble(self) -> str:
        """Why records are not kept now, for people; "" if they are."""
        with self._mutex:
            if self._closed:
                return "the journal is closed"
            error = self._settle()
            return str(error) if error else self._sink.trouble()

    def expire(self) -> None:
        """Remove segments that are older than is to be retained; call it now and then, for a journal that rests."""
        with self._mutex:
            if not self._closed:
                self._sink.expire()

    def close(self) -> None:
        """Keep what was taken, and let another opener in. Raises JournalError for records of `async` that are lost."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            try:
                self._sink.close()
            finally:
                self._disk.close(self._lock_fd)

    def _take(self) -> int:
        """Make the folder and lock the writer; the descriptor of the lock."""
        try:
            self._disk.make_folder(self.directory)
            self._disk.check_private(self.directory)
            fd = self._disk.open(self.directory / (self.writer + LOCK_SUFFIX))
        except OSError as error:
            raise _unusable(self.directory, error.strerror) from error
        if not self._disk.lock(fd):
            self._disk.close(fd)
            message = f"another process appends to `{self.directory}` as `{self.writer}`"
            raise StateError(message, remedy="end it, or leave it running")
        return fd

    def _recover(self) -> Found:
        """Find where to go on; what is torn is kept aside, said, and noted as the next record."""
        try:
            found = find_end(self._disk, self.writer, list_segments(self.directory).get(self.writer, ()))
        except OSError as error:
            raise JournalError(f"the journal in `{self.directory}` cannot be read: {error.strerror}") from error
        if found.torn and found.segment is not None:
            aside = found.segment.path.with_name(f"{found.segment.path.name}{TORN}{found.seq}")
            note = {"segment": found.segment.path.name, "cut_bytes": len(found.torn), "kept_as": aside.name}
            try:
                self._keep_aside(aside, found.torn)
            except OSError as error:
                note["kept_as"] = f"nothing: {error.strerror}"
            _log.warning("journal ended in the middle of a record", **note)
            self._notes.append(self._note("journal.recovered", note))
        return found

    def _keep_aside(self, path: Path, torn: bytes) -> None:
        fd = self._disk.open(path)
        try:
            self._disk.write(fd, torn)
        finally:
            self._disk.close(fd)

    def _settle(self) -> JournalError | None:
        """Record what is still to be said about the journal itself; the error that hinders it."""
        try:
            while self._notes:
                self._put(self._notes[0])
                del self._notes[0]
            if self._gap is not None:
                self._put(self._gap_note(self._gap))
                _log.warning("journal goes on", missed=self._gap.count)
                self._gap = None
        except JournalError as error:
            return error
        return None

    def _put(self, entry: Entry) -> Record:
        record = place(entry, self.writer, self._seq, self._prev)
        line = encode(record)
        if may_hold_secret(entry):
            record = place(mask(entry), self.writer, self._seq, self._prev)
            line = encode(record)
        self._sink.append(line, self._seq)
        self._seq += 1
        self._prev = digest(line)
        if self._observer is not None:
            self._observer.journal_record(entry.kind)
        return record

    def _miss(self, error: JournalError) -> None:
        now = self._clock()
        if self._gap is None:
            _log.error("journal takes no record", reason=error.message)
            self._gap = _Gap(0, now, now, error.message)
        self._gap.count += 1
        self._gap.until = now
        if self._observer is not None:
            self._observer.journal_failure()

    def _gap_note(self, gap: _Gap) -> Entry:
        what = "dropped" if self._on_full == "drop" else "refused"
        detail = {what: gap.count, "since": gap.since, "until": gap.until, "reason": gap.reason}
        return self._note("journal.gap", detail)

    def _note(self, operation: str, detail: dict[str, Any]) -> Entry:
        return Entry(time=self._clock(), kind="operation", decision="error", detail={"operation": operation, **detail})


def _unusable(directory: Path, reason: str | None) -> StateError:
    message = f"the journal folder `{directory}` is unusable: {reason}"
    return StateError(message, remedy="it is a folder of your own, of mode 0700, on a disk with space")
