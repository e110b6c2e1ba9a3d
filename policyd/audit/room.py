"""Room in a segment, there before it is needed: a line then costs no search for blocks, or no system call at all.

Law: room is spaces, written into the file before it is used, so that its blocks are the file's and any tool of text
still reads it; whoever reads a live segment passes them over, and none are left in a finished one. A line comes into a
mapped file with its newline last, and is there after a kill as one that was written is. Only mapped on file systems
that keep a page that was written writable, and only pages that stay in memory: to touch one never fails.
"""

from __future__ import annotations

import errno
import os
from mmap import mmap
from pathlib import Path
from typing import Final

from policyd.audit.disk import Disk

FILL: Final = b" "
_NEWLINE: Final = ord("\n")


class Room:
    """What `disk` gives for `start` to `end` of the segment at `path`; raises OSError where there is no space.

    With `mapped` lines are copied into memory, else each `put` is one write.
    """

    def __init__(self, disk: Disk, path: Path, start: int, end: int, *, mapped: bool) -> None:
        self.end = end
        self._disk = disk
        self._map: mmap | None = None
        self._fd = disk.open_inside(path)
        try:
            disk.fill(self._fd, FILL, start, end)
            if mapped:
                self._begin, self._map = disk.map(self._fd, start, end)
        except BaseException:
            disk.close(self._fd)
            raise

    def put(self, lines: bytes, at: int) -> None:
        """Whole lines, at byte `at` of the file, behind which there is room for them; raises OSError."""
        if self._map is None:
            taken = self._disk.write_at(self._fd, lines, at)
            if taken < len(lines):
                raise OSError(errno.EIO, f"only {taken} of {len(lines)} bytes were taken")
            return
        place = at - self._begin
        # nobody may see a newline before what it ends
        self._map[place : place + len(lines)] = lines.replace(b"\n", FILL)
        newline = lines.find(b"\n")
        while newline >= 0:
            self._map[place + newline] = _NEWLINE
            newline = lines.find(b"\n", newline + 1)

    def leave(self) -> None:
        """Let go of it; before the file is cut."""
        if self._map is not None:
            self._map.close()
        self._disk.close(self._fd)


def whole_end(fd: int, block: int = 64 << 10) -> int:
    """The offset behind the last whole line of an open file: all before it stays as it is, unless it is cut off."""
    end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - block)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
