"""Lines that wait in memory for the next group: one write and one fdatasync for all of them. Durability `fsync`.

Law: what was promised is on the medium, and what was not is nowhere: after a failure the files are cut back to what is
on it, and the next record takes up from there. One sync at a time, so that none can report another's failure.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from policyd.audit.appender import Appender, Mark
from policyd.audit.disk import Disk
from policyd.audit.group import Epoch, Group, Waiting
from policyd.errors import JournalError

WAITING_BYTES: Final = 8 << 20


@dataclass(slots=True)
class Next:
    """The place of the next record of a writer."""

    seq: int
    prev: str


@dataclass(frozen=True, slots=True)
class _State:
    """The place of a record, and where the lines before it end."""

    seq: int
    prev: str
    mark: Mark


class Commits:
    """Goes on in `files`, at `place`, which a failure sets back; at most `max_bytes` wait for the medium.

    Who calls holds `mutex`, but for `wait`, `sync`, `hurry` and `end`.
    """

    def __init__(
        self,
        disk: Disk,
        files: Appender,
        mutex: threading.Lock,
        place: Next,
        waiting: Waiting,
        max_bytes: int = WAITING_BYTES,
    ) -> None:
        self._disk = disk
        self._files = files
        self._mutex = mutex
        self._place = place
        self._max_bytes = max_bytes
        self._group = Group(self._commit, waiting)
        self._at_rest = threading.Condition(mutex)
        self._syncing = False
        self._closed = False
        self._lines: list[bytes] = []
        self._bytes = 0
        self._first = Next(place.seq, place.prev)  # of the lines that wait
        self._safe = self._state()
        self._epoch = Epoch(place.seq - 1)

    def append(self, lines: bytes, first_seq: int) -> None:
        """Take a line, which belongs to `epoch`; raises JournalError if too many wait."""
        if self._bytes + len(lines) > self._max_bytes:
            raise JournalError(f"{self._bytes} bytes wait for the disk, which is slower than what is recorded")
        if not self._lines:
            self._first = Next(first_seq, self._place.prev)
        self._lines.append(lines)
        self._bytes += len(lines)

    @property
    def epoch(self) -> Epoch:
        """To which what was taken last belongs."""
        return self._epoch

    def wait(self, epoch: Epoch, seq: int) -> None:
        """Return when record `seq` of `epoch` is on the medium; raises JournalError if it never will be."""
        self._group.wait(epoch, seq)

    def sync(self, epoch: Epoch, seq: int) -> None:
        """As `wait`, but who calls commits at once, unless a commit is under way."""
        self._group.now(epoch, seq)

    def hurry(self) -> bool:
        """Commit at once, if somebody waits for it; whether somebody did."""
        return self._group.hurry()

    def rest(self) -> None:
        """Wait until no commit is under way; the mutex is free meanwhile, and held again afterwards."""
        self._at_rest.wait_for(lambda: not self._syncing)

    def now(self) -> None:
        """Bring all that was taken to the medium, while no commit is under way. Raises JournalError: it is nowhere."""
        if self._nothing_new():
            return
        try:
            fd, state = self._write()
        except JournalError as failure:
            self._take_back(failure)
            raise
        error = self._sync(fd)
        if error is not None:
            raise self._take_back(self._files.refused(error)) from error
        self._reached(state)

    def trouble(self) -> str:
        """Why the last lines were not taken; "" if they were. A file that is being synced is not closed."""
        return "" if self._syncing else self._files.trouble()

    def turn(self) -> None:
        """End a segment that is too old; if a commit is under way, the next time."""
        if not self._syncing:
            self._files.turn()
            self._notice_rotation(self._first if self._lines else self._place)

    def close(self) -> None:
        """Bring what was taken to the medium and let go of the files; raises JournalError for what is lost."""
        try:
            self.now()
        finally:
            self._closed = True
            self._files.close()

    def end(self) -> None:
        """After closing, and without the mutex: tell those who still wait."""
        self._group.close()

    def _commit(self) -> None:
        """Bring what was taken to the medium, while others go on being taken; the epoch tells what came of it."""
        with self._mutex:
            if self._closed or self._nothing_new():
                return
            try:
                fd, state = self._write()
            except JournalError as failure:
                self._take_back(failure)
                return
            self._syncing = True
        error = self._sync(fd)
        with self._mutex:
            self._syncing = False
            self._at_rest.notify_all()
            if error is None:
                self._reached(state)
            else:
                self._take_back(self._files.refused(error))

    def _sync(self, fd: int) -> OSError | None:
        try:
            self._disk.sync(fd)
        except OSError as error:
            return error
        return None

    def _nothing_new(self) -> bool:
        return self._place.seq == self._safe.seq

    def _write(self) -> tuple[int, _State]:
        """Hand what waits to the system: a descriptor to be synced, and where its lines end. Raises JournalError."""
        if self._lines:
            first = self._first
            self._files.append(b"".join(self._lines), first.seq)
            self._lines.clear()
            self._bytes = 0
            self._notice_rotation(first)
        return self._files.descriptor(), self._state()

    def _notice_rotation(self, first: Next) -> None:
        """The segment before is on the medium; what was written into a new one may have to be taken back."""
        mark = self._files.mark()
        if mark.segment != self._safe.mark.segment:
            self._reached(_State(first.seq, first.prev, Mark(mark.segment, 0)))

    def _reached(self, state: _State) -> None:
        self._safe = state
        self._epoch.synced = state.seq - 1

    def _state(self) -> _State:
        return _State(self._place.seq, self._place.prev, self._files.mark())

    def _take_back(self, failure: JournalError) -> JournalError:
        """Cut off what is not on the medium, and tell those who wrote it why."""
        safe = self._safe
        self._files.take_back(safe.mark, safe.seq)
        self._epoch.synced, self._epoch.error = safe.seq - 1, failure
        self._epoch = Epoch(safe.seq - 1)
        self._place.seq, self._place.prev = safe.seq, safe.prev
        self._lines.clear()
        self._bytes = 0
        return failure
