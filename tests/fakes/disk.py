"""The real file system, which can be told to fail."""

from __future__ import annotations

import errno
import os
import threading

from policyd.audit.disk import Disk


class FailingDisk(Disk):
    """While `space` is set, only so many bytes are taken; names in `broken` are methods that fail with EIO."""

    def __init__(self) -> None:
        self.space: int | None = None
        self.broken: set[str] = set()
        self.synced = 0
        self.ahead = 0  # bytes that `write_at` took of the space

    def write(self, fd: int, data: bytes) -> int:
        """Take what there is space for, then fail."""
        self._check("write")
        if self.space is None:
            return super().write(fd, data)
        if self.space == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = super().write(fd, data[: self.space])
        self.space -= taken
        return taken

    def write_at(self, fd: int, data: bytes, offset: int) -> int:
        """Take what there is space for beyond the end of the file, then fail."""
        self._check("write")
        more = max(0, offset + len(data) - self.size(fd))
        if self.space is None or not more:
            return super().write_at(fd, data, offset)
        if self.space == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = super().write_at(fd, data[: len(data) - max(0, more - self.space)], offset)
        self.ahead += min(self.space, more)
        self.space -= min(self.space, more)
        return taken

    def truncate(self, fd: int, size: int) -> None:
        """Cut, unless broken; of what `write_at` took the rest is free again."""
        self._check("truncate")
        if self.space is not None:
            self.space += min(self.ahead, max(0, self.size(fd) - size))
        self.ahead = 0
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        """Count."""
        self._check("sync")
        self.synced += 1

    def sync_folder(self, path: object) -> None:
        """Nothing is to be done."""

    def _check(self, name: str) -> None:
        if name in self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class FlakyDisk(FailingDisk):
    """A medium of which one sync in three fails, until it is `well`."""

    def __init__(self) -> None:
        super().__init__()
        self.well = False
        self._asked = 0

    def sync(self, fd: int) -> None:
        """Count, and fail in turn."""
        self._asked += 1
        self.broken = set() if self.well or self._asked % 3 else {"sync"}
        super().sync(fd)


class SlowDisk(FailingDisk):
    """A medium that takes what is written when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)

    def sync(self, fd: int) -> None:
        """Say that it is asked, and wait until it is allowed."""
        self.waiting.release()
        self.allowed.acquire()
        super().sync(fd)
