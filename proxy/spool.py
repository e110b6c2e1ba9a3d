"""What an Envoy has told and policyd has not taken yet: frames on disk, numbered from 1 without gaps.

Law: a frame has its number before anybody hears of it, and keeps it after a restart. The spool has a bound: what comes
beyond it is refused, for whoever brings it to say so. It is written, not synced: it outlives the agent, no power cut.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import zlib
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policyd.errors import StateError

MAX_BYTES: Final = 256 << 20  # of an instance; at 20,000 decisions a second some half a minute
SEGMENT_BYTES: Final = 4 << 20
MOST_FRAMES: Final = 4_096  # that are read at once, as policyd bounds them
NAME: Final = "name"
TELLING: Final = "telling"  # there as long as who has told something may tell more
_SUFFIX: Final = ".told"
_NUMBER: Final = re.compile(r"[0-9]{20}")
_LAST: Final = (1 << 63) - 1
_HEAD: Final = 8  # bytes: how long a frame is, and its CRC-32
_OWNER_ONLY: Final = 0o600


@dataclass(frozen=True, slots=True)
class _Frame:
    seq: int
    segment: Path
    at: int
    size: int


class Spool:
    """Opens what is in `folder`, made where there is none (0700); raises StateError.

    `add` returns the number of a frame, or None where the spool is full; `read` gives the oldest ones, `kept` forgets.
    `was_cut` says that whoever had it before was `telling` and did not come to say that this is `over`.
    `spoiled` counts what the disk has not given back. `foreign` are names of files that look like a spool's and are
    none; they are let be.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._frames: deque[_Frame] = deque()
        self._bytes = 0
        self._last = 0
        self._fd = -1
        self.spoiled = 0
        self._is_telling = False
        self._open = folder
        self._at = 0
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.name = self._named()
            self.was_cut = (folder / TELLING).exists()
            found = sorted(folder.glob(f"*{_SUFFIX}"))
            self.foreign = tuple(file.name for file in found if not _is_segment(file))
            for segment in found:
                if segment.name not in self.foreign:
                    self._recover(segment)
        except OSError as error:
            raise StateError(f"`{folder}` cannot be used: {error.strerror}") from error

    def __len__(self) -> int:
        """How many frames wait."""
        return len(self._frames)

    @property
    def fill(self) -> float:
        """How much waits, as a share of what may."""
        return self._bytes / self._max_bytes

    def add(self, body: bytes, *, beyond: bool = False) -> int | None:
        """Keep a frame, `beyond` the bound too; raises OSError where the disk does not."""
        size = _HEAD + len(body)
        if self._bytes + size > self._max_bytes and not beyond:
            return None
        seq = self._last + 1
        if self._fd < 0 or self._at + size > self._segment_bytes:
            self._begin(seq)
        head = len(body).to_bytes(4) + zlib.crc32(body).to_bytes(4)
        try:
            _write(self._fd, head + body)
        except OSError:
            with suppress(OSError):  # what is torn is cut at the next opening, if not now
                os.ftruncate(self._fd, self._at)
            raise
        self._frames.append(_Frame(seq, self._open, self._at, size))
        self._at, self._bytes, self._last = self._at + size, self._bytes + size, seq
        return seq

    def read(self, most: int) -> tuple[int, list[bytes]]:
        """The number of the oldest frame and frames from it on, one at least and about `most` bytes; 0 where none.

        What the disk does not give back as it took it is passed over, and counted as `spoiled`. Raises OSError.
        """
        found: list[bytes] = []
        total = 0
        while self._frames and (first := self._body(self._frames[0])) is None:
            self.spoiled += 1
            if self._frames[0].segment == self._open:
                self.close()  # what comes is written to another file
            self.kept(self._frames[0].seq)
        for frame in itertools.islice(self._frames, MOST_FRAMES):
            follows = frame.seq == self._frames[0].seq + len(found)
            body = self._body(frame) if found else first
            if found and (total + frame.size > most or not follows or body is None):
                break
            found.append(body or b"")
            total += frame.size
        return (self._frames[0].seq if found else 0), found

    def kept(self, seq: int) -> None:
        """All up to `seq` is on record."""
        while self._frames and self._frames[0].seq <= seq:
            frame = self._frames.popleft()
            self._bytes -= frame.size
            done = not self._frames or self._frames[0].segment != frame.segment
            if done and frame.segment != self._open:
                if not self._frames and self._fd < 0:
                    self._begin(self._last + 1)  # its name is what numbers go on from
                frame.segment.unlink(missing_ok=True)
        if not self._frames and self._at >= self._segment_bytes // 2:
            self._begin(self._last + 1)

    def telling(self) -> None:
        """Someone has told something and may tell more; raises OSError."""
        if not self._is_telling:
            (self._folder / TELLING).touch(mode=_OWNER_ONLY)
            self._is_telling = True

    def over(self) -> None:
        """Nobody tells any more, as far as is known."""
        with suppress(OSError):
            (self._folder / TELLING).unlink(missing_ok=True)
        self._is_telling = False

    def close(self) -> None:
        """Let the files be."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _named(self) -> str:
        file = self._folder / NAME
        with suppress(FileNotFoundError):
            name = file.read_text("ascii", "replace")
            if len(name) == 32 and name.isalnum():
                return name
        name = secrets.token_hex(16)
        file.write_text(name, "ascii")
        return name

    def _begin(self, seq: int) -> None:
        old, at = self._open, self._at
        self.close()
        self._open = self._folder / f"{seq:020}{_SUFFIX}"
        self._fd = os.open(self._open, os.O_RDWR | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
        self._at = 0
        if at and old != self._open and not any(frame.segment == old for frame in self._frames):
            old.unlink(missing_ok=True)

    def _body(self, frame: _Frame) -> bytes | None:
        """What it holds; None where that is gone, or is another."""
        try:
            with frame.segment.open("rb") as file:
                data = os.pread(file.fileno(), frame.size, frame.at)
        except FileNotFoundError:
            return None
        body = data[_HEAD:]
        is_whole = len(data) == frame.size and zlib.crc32(body) == int.from_bytes(data[4:_HEAD])
        return body if is_whole else None

    def _recover(self, segment: Path) -> None:
        """Find the frames of a segment; what is torn at its end, or broken, ends it."""
        data = segment.read_bytes()
        at, seq = 0, int(segment.name.removesuffix(_SUFFIX))
        while len(data) - at >= _HEAD:
            size = _HEAD + int.from_bytes(data[at : at + 4])
            body = data[at + _HEAD : at + size]
            if len(body) != size - _HEAD or zlib.crc32(body) != int.from_bytes(data[at + 4 : at + _HEAD]):
                break
            self._frames.append(_Frame(seq, segment, at, size))
            self._bytes += size
            at, seq = at + size, seq + 1
        self._last = max(self._last, seq - 1)


def _is_segment(file: Path) -> bool:
    """Whether a file is one that a spool has written, by its name: that of its first frame."""
    number = file.name.removesuffix(_SUFFIX)
    return _NUMBER.fullmatch(number) is not None and int(number) <= _LAST and file.is_file()


def _write(fd: int, data: bytes) -> None:
    """All of it, at the end."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
