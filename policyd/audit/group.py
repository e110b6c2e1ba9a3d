"""Many appends, one fdatasync: durability `fsync`.

Law: a caller goes on when what it wrote is on the medium, and never before; it shares the wait with all who came before
the group began. Where the medium refuses, everyone whose records are not on it is told so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog

from policyd.errors import JournalError

_log = structlog.get_logger(__name__)

Wake = Callable[[], None]
Pause = Callable[[Callable[[Wake], None]], None]


def sleep(begin: Callable[[Wake], None]) -> None:
    """Call `begin` and wait until what it was given is called: this thread sleeps meanwhile."""
    asleep = threading.Lock()
    asleep.acquire()
    begin(asleep.release)
    asleep.acquire()


@dataclass(frozen=True, slots=True)
class Waiting:
    """How callers wait: by `pause`, and `linger` seconds at most for others to join, unless told to hurry."""

    pause: Pause = sleep
    linger: float = 0.0


@dataclass(slots=True)
class Epoch:
    """A stretch without failure: records up to `synced` are on the medium; after `error` no more will be."""

    synced: int = 0
    error: JournalError | None = None

    def settled(self, seq: int) -> bool:
        """Whether it is known what became of record `seq`."""
        return seq <= self.synced or self.error is not None


class _Member(msgspec.Struct, frozen=True, eq=False, gc=False):
    epoch: Epoch
    seq: int
    wake: Wake


class Group:
    """Those who wait for the medium, and the thread that serves them where nobody else does.

    `commit` brings all that was written before its call to the medium, and says in its epoch what came of it; it is
    called by one thread at a time.
    """

    def __init__(self, commit: Callable[[], None], waiting: Waiting) -> None:
        self._commit = commit
        self._how = waiting
        self._mutex = threading.Lock()
        self._changed = threading.Condition(self._mutex)
        self._members: list[_Member] = []
        self._due = 0.0  # when the first of them has waited long enough
        self._watched = False  # the thread looks by itself when that is
        self._committing = False
        self._closing = False
        self._ended = False
        self._thread: threading.Thread | None = None

    def wait(self, epoch: Epoch, seq: int) -> None:
        """Return when record `seq`, written in `epoch`, is on the medium; raises JournalError if it never will be."""
        if not epoch.settled(seq):
            self._how.pause(partial(self._join, epoch, seq))
        if seq > epoch.synced:
            raise epoch.error or JournalError("nothing brings records to the medium any more", remedy="restart")

    def now(self, epoch: Epoch, seq: int) -> None:
        """As `wait`, but who calls commits at once, for all who wait, unless a commit is under way already."""
        with self._mutex:
            mine = not (self._committing or self._ended)
            members = self._take() if mine else []
            self._committing |= mine
        if mine:
            self._serve_or_end(members)
        self.wait(epoch, seq)

    def hurry(self) -> bool:
        """Nobody else will join now: commit for those who wait, without waiting for more; whether there were some.

        Where a commit is under way, the next one follows it at once.
        """
        with self._changed:
            self._due = 0.0 if self._members else self._due
            if not self._members or self._committing or self._ended:
                return False
            members = self._take()
        self._serve_or_end(members)
        return True

    def close(self) -> None:
        """Let go who still waits, once it is known what became of everything, and end the thread."""
        with self._changed:
            self._closing = True
            self._ended = self._ended or self._thread is None
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _join(self, epoch: Epoch, seq: int, wake: Wake) -> None:
        with self._mutex:  # of the condition, which costs more to enter
            if not self._ended:
                if not self._members:
                    self._due = time.monotonic() + self._how.linger
                if not self._watched:
                    self._watch()  # raises where no thread can begin: then nobody has joined
                self._members.append(_Member(epoch, seq, wake))
                return
        wake()

    def _watch(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="policyd-commit", daemon=True)
            thread.start()
            self._thread = thread
        else:
            self._changed.notify()
        self._watched = True

    def _run(self) -> None:
        members: list[_Member] = []
        try:
            while members := self._gathered():
                self._serve(members)
                members = []
        finally:  # also after a fault of ours: nobody is left waiting
            self._end(members)

    def _gathered(self) -> list[_Member]:
        """Those who wait, once there are some and it is time; none: there will be no more."""
        with self._changed:
            while not self._ended:
                left = self._due - time.monotonic()
                if self._committing or not (self._members or self._closing):
                    self._watched = False  # whoever joins, or has committed, says so
                    self._changed.wait()
                elif self._closing or left <= 0:
                    return self._take()
                else:
                    self._changed.wait(left)
            return []

    def _take(self) -> list[_Member]:
        members, self._members = self._members, []
        self._committing = bool(members)
        return members

    def _serve(self, members: list[_Member]) -> None:
        try:
            self._commit()
        finally:
            with self._changed:
                self._committing = False
                settled = [member for member in self._members if member.epoch.settled(member.seq)]
                if settled:  # they joined meanwhile, having written before
                    self._members = [member for member in self._members if member not in settled]
                if self._members or self._closing:
                    self._watched = True
                    self._changed.notify()
        for member in members + settled:
            member.wake()

    def _serve_or_end(self, members: list[_Member]) -> None:
        try:
            self._serve(members)
        except Exception:  # noqa: BLE001  # a fault of ours is told to whoever waits
            _log.exception("journal.fault")
            self._end(members)

    def _end(self, members: list[_Member]) -> None:
        """Nothing is committed any more: nobody is left waiting."""
        with self._changed:
            self._ended = True
            members, self._members = members + self._members, []
            self._changed.notify()
        for member in members:
            member.wake()
