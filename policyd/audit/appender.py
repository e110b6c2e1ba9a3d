"""The end of a writer's files: lines go on, whole or not at all, into segments of bounded size and age.

Law: after a failure nothing half-written stays visible. Where even cutting it off fails, the file is closed and
nothing is taken until it has been cut. Not thread-safe; the journal holds the lock.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from policyd.audit.disk import Disk
from policyd.audit.recovery import Found
from policyd.audit.room import Room
from policyd.audit.segments import Segment, segment_name
from policyd.errors import JournalError

_log = structlog.get_logger(__name__)


_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # there may be space later
BACKWARD: Final = timedelta(seconds=60)  # a clock that was set back by more than this begins a segment anew


@dataclass(frozen=True, slots=True)
class Limits:
    """When a segment is full: bytes, seconds. Its age is looked at when its file is opened, and at each `turn`.

    One of more than `ahead` bytes gets room of so many at a time, before they are needed; 0: never.
    """

    max_bytes: int = 64 << 20
    max_age: float = 3600.0
    ahead: int = 256 << 10


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to where a writer's files are on the medium: `size` bytes of `segment`."""

    segment: Segment | None
    size: int


class Appender:
    """Goes on after `found` in `directory`; with `sync`, a finished segment is on the medium before the next begins."""

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        writer: str,
        clock: Callable[[], datetime],
        limits: Limits,
        found: Found,
        *,
        sync: bool = False,
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._writer = writer
        self._clock = clock
        self._limits = limits
        self._sync = sync
        self._segment = found.segment
        self._size = found.size
        self._next_seq = found.seq
        self._date(found.started or clock())
        self._fd: int | None = None
        self._room: Room | None = None  # behind the last line of that file
        self._ahead = limits.ahead  # from which size on more room is asked for
        self._has_room = sync or disk.can_map(directory)  # else it would be worth nothing
        self._trouble = ""

    def append(self, lines: bytes, first_seq: int) -> None:
        """Write whole lines, the first of which is record `first_seq`; raises JournalError and keeps none."""
        length, room = len(lines), self._room
        try:
            if room is not None and self._size + length <= room.end:
                room.put(lines, self._size)
            else:
                self._extend(lines, length, first_seq)
        except OSError as error:
            self._undo()
            raise self.refused(error) from error
        self._trouble = ""
        self._size += length
        self._next_seq = first_seq + lines.count(b"\n")

    def is_of(self, time: datetime) -> bool:
        """Whether a record of that time belongs into the segment in use; if not, it is time for a `turn`."""
        return self._not_before <= time < self._until

    def mark(self) -> Mark:
        """Where the lines that were taken end now."""
        return Mark(self._segment, self._size)

    def descriptor(self) -> int:
        """The file that was written to last; raises JournalError."""
        try:
            return self._current()
        except OSError as error:
            raise self.refused(error) from error

    def take_back(self, mark: Mark, seq: int) -> None:
        """Cut off what came after `mark`, so that record `seq` comes next."""
        self._size = mark.size if mark.segment == self._segment else 0
        self._undo()
        self._release()  # what a failed sync left in the system's cache is not trusted
        self._next_seq = seq

    def refused(self, error: OSError) -> JournalError:
        """What to tell those whose lines are not taken."""
        self._trouble = f"the journal in `{self._directory}` takes no record: {error.strerror}"
        return JournalError(self._trouble, remedy="make space, or have the folder writable")

    def trouble(self) -> str:
        """Why the last lines were not taken; "" if they were, and the file is still there."""
        if self._fd is not None and not self._disk.linked(self._fd):
            _log.error("journal.segment_removed", segment=str(self._segment and self._segment.path))
            self._close_segment()
        return self._trouble

    def turn(self) -> None:
        """End a segment that is too old, by beginning the next: whoever seals finds it finished."""
        # what cannot be done now is tried again at the next turn
        with contextlib.suppress(OSError):
            if self._is_over(0):
                self._open(0, self._next_seq)

    def close(self) -> None:
        """Close the file."""
        self._release()

    def _extend(self, lines: bytes, length: int, first_seq: int) -> None:
        """Write lines for which the file has no room."""
        self._leave_room()
        fd = self._fd
        if fd is None or self._size + length > self._limits.max_bytes:
            fd = self._open(length, first_seq)
        room = self._make_room(fd, length)
        if room is not None:
            room.put(lines, self._size)
            return
        taken = self._disk.write(fd, lines)
        if taken < length:
            raise OSError(errno.ENOSPC, f"only {taken} of {length} bytes were taken")

    def _make_room(self, fd: int, length: int) -> Room | None:
        """Room for lines of that length and more; None where it is not time for it, or there is no space."""
        limits, size, segment = self._limits, self._size, self._segment
        end = min(size + limits.ahead, limits.max_bytes)
        if not self._has_room or not 0 < limits.ahead <= size or size < self._ahead or size + length > end:
            return None
        assert segment is not None, "its file is open"
        try:
            self._room = Room(self._disk, segment.path, size, end, mapped=not self._sync)
        except OSError as error:
            _log.warning("journal.no_room", segment=segment.path.name, reason=error.strerror)
            self._ahead = size + limits.ahead  # until then line by line, as far as the space goes
            self._has_room = error.errno in _FULL
            self._disk.truncate(fd, size)
        return self._room

    def _leave_room(self) -> None:
        """Have the file end with its last whole line."""
        if self._room is not None:
            self._drop_room()
            assert self._fd is not None, "room is in an open file"
            self._disk.truncate(self._fd, self._size)

    def _drop_room(self) -> None:
        if self._room is not None:
            room, self._room = self._room, None
            room.leave()

    def _open(self, more: int, first_seq: int) -> int:
        """The descriptor that `more` bytes go to: of the segment in use, or of a new one if it is full or old."""
        if self._segment is None:
            self._begin(first_seq)
        elif self._is_over(more):
            fd = self._current()  # opened to be cut, so that nothing torn stays in a finished segment
            self._leave_room()
            if self._sync:
                self._disk.sync(fd)
            self._close_segment()
            self._begin(first_seq)
        return self._current()

    def _current(self) -> int:
        """The descriptor of the segment in use, which ends with its last whole line."""
        if self._fd is None:
            assert self._segment is not None, "a segment was begun"
            fd = self._disk.open(self._segment.path)
            try:
                # what stands behind the last whole line was refused, or torn by a crash
                if self._disk.size(fd) > self._size:
                    self._disk.truncate(fd, self._size)
                if self._sync:
                    self._disk.sync_folder(self._directory)
            except OSError:
                self._disk.close(fd)
                raise
            self._fd = fd
        return self._fd

    def _is_over(self, more: int) -> bool:
        """Whether the segment in use is too old, or `more` is too much for it; one without a line never."""
        if not self._size:
            return False
        return self._size + more > self._limits.max_bytes or not self.is_of(self._clock())

    def _begin(self, first_seq: int) -> None:
        path = self._directory / segment_name(self._writer, first_seq)
        self._segment = Segment(self._writer, first_seq, path)
        self._size = 0
        self._ahead = self._limits.ahead
        self._date(self._clock())

    def _date(self, started: datetime) -> None:
        """Between which times a segment that was begun at `started` is gone on with."""
        self._not_before = started - BACKWARD
        self._until = started + timedelta(seconds=self._limits.max_age)

    def _undo(self) -> None:
        """Cut the file back to its last whole line; if that fails, close it, so that the next opening cuts it."""
        if self._fd is None:
            return
        self._drop_room()
        try:
            self._disk.truncate(self._fd, self._size)
        except OSError:
            self._release()

    def _close_segment(self) -> None:
        self._release()
        self._segment = None

    def _release(self) -> None:
        if self._fd is not None:
            with contextlib.suppress(OSError):  # what is not cut now is cut when the file is opened again
                self._leave_room()
            with contextlib.suppress(OSError):
                self._disk.close(self._fd)
            self._fd = None
