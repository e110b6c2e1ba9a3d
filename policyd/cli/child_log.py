"""What a program prints: into a bounded file, line by line to whoever listens, the last lines kept for an error.

Law: two files at most a program, each at most `limit` bytes; a program that prints without end fills no disk, and
one that prints no newline fills no memory.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

LIMIT: Final = 4 << 20  # bytes a file
MAX_LINE: Final = 16 << 10  # bytes; longer lines are cut in pieces
KEPT: Final = 200  # lines


def _nothing(line: str) -> None:
    """Listen to nothing."""


class ChildLog:
    """The log of one program; the file before this start, and what overflows, is `<name>.log.1`."""

    def __init__(self, path: Path, listen: Callable[[str], None] = _nothing, *, limit: int = LIMIT) -> None:
        self.path = path
        self._listen = listen
        self._limit = limit
        self._partial = b""
        self._lines: deque[str] = deque(maxlen=KEPT)
        self._file, self._size = self._open()

    def write(self, data: bytes) -> None:
        """Take what was printed; a full disk loses the text, never the program."""
        try:
            if self._size + len(data) > self._limit:
                self._file.close()
                self._file, self._size = self._open()
            self._file.write(data)
            self._size += len(data)
        except (OSError, ValueError):
            self._size = 0
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._take(line)
        while len(self._partial) > MAX_LINE:
            self._take(self._partial[:MAX_LINE])
            self._partial = self._partial[MAX_LINE:]

    def note(self, text: str) -> None:
        """Add a line of our own."""
        self.write(f"-- {text}\n".encode())

    def last(self, count: int) -> Sequence[str]:
        """Return the last lines that are not empty."""
        return [line for line in self._lines if line.strip()][-count:]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _take(self, line: bytes) -> None:
        text = line[:MAX_LINE].decode("utf-8", "replace").rstrip("\r")
        self._lines.append(text)
        self._listen(text)

    def _open(self) -> tuple[BinaryIO, int]:
        if self.path.exists():
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(self.path, flags, 0o600), "wb", buffering=0), 0
