"""The file of the seals: read whole at the start, then appended to by the one who seals.

Law: a line is on the medium before what it says is acted upon. What is torn at its end was never acted upon and is cut.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from policyd.audit.disk import Disk
from policyd.audit.seals import (
    MAX_SEAL_BYTES,
    SEALS_FILE,
    End,
    Head,
    Part,
    Seal,
    Signer,
    encoded_chain,
    end_of,
    key_id,
    read_seal,
    sign_line,
)
from policyd.errors import BrokenRecord, JournalError

PRUNE_LINES: Final = 4096


class SealsFile:
    """The seals of a journal folder; raises JournalError where there are some that cannot be read.

    Fewer than `prune_lines` old ones are left where they are.
    """

    def __init__(self, directory: Path, disk: Disk, prune_lines: int = PRUNE_LINES) -> None:
        self._prune_lines = prune_lines
        self._path = directory / SEALS_FILE
        self._disk = disk
        self._lines: list[bytes] = []
        self._seals: list[Seal] = []
        self._whole = 0  # bytes of the file that are lines
        self.end = End()
        self.parts: dict[str, Part] = {}
        self._read()

    @property
    def retired(self) -> set[str]:
        """The files that were said to be removed."""
        return {name for seal in self._seals for name in seal.retired}

    def add(self, seal: Seal, signer: Signer) -> None:
        """Sign a seal, its place filled in, and bring it to the medium; introduces the key first if it is new."""
        key = key_id(signer.chain)
        if key != self.end.key:
            self._add(
                Seal(number=0, time=seal.time, kind="key", prev="", key=key, chain=encoded_chain(signer.chain)), signer
            )
        self._add(seal, signer)

    def _add(self, seal: Seal, signer: Signer) -> None:
        heads = dict(self.end.heads)
        heads |= {part.writer: Head(part.last, part.end) for part in seal.segments}
        placed = Seal(
            number=self.end.number + 1,
            time=seal.time,
            kind=seal.kind,
            prev=self.end.hash,
            key=key_id(signer.chain),
            chain=seal.chain,
            segments=seal.segments,
            retired=seal.retired,
            why=seal.why,
            heads=heads,
            pruned=seal.pruned,
        )
        line = sign_line(placed, signer)
        fd = self._disk.open(self._path)
        try:
            if self._disk.size(fd) > self._whole:  # what could not be cut off when it was written in part
                self._disk.truncate(fd, self._whole)
            try:
                if self._disk.write(fd, line) < len(line):
                    raise OSError("no space")
                self._disk.sync(fd)
            except OSError:
                self._disk.truncate(fd, self._whole)
                raise
            self._disk.sync_folder(self._path.parent)
        finally:
            self._disk.close(fd)
        self._take(placed, line)

    @property
    def first(self) -> int:
        """The number of the first seal in the file; 0 where there is none."""
        return self._seals[0].number if self._seals else 0

    def prune(self, now: datetime, signer: Callable[[], Signer]) -> None:
        """Leave out the seals in front of which nothing is left, if they are many, and have a seal say so before.

        Raises OSError, and what `signer` raises.
        """
        present = set(self.parts)
        cut = 0
        for number, seal in enumerate(self._seals):
            if any(part.file in present for part in seal.segments):
                break
            if seal.kind == "key":
                cut = number
        if cut < self._prune_lines:
            return
        first = self._seals[cut].number
        if all(seal.pruned < first for seal in self._seals):  # unless it was said and could not be done
            self.add(Seal(number=0, time=now, kind="retired", prev="", key="", pruned=first), signer())
        self._disk.replace(self._path, b"".join(self._lines[cut:]))
        del self._lines[:cut], self._seals[:cut]
        self._whole = sum(map(len, self._lines))

    def _take(self, seal: Seal, line: bytes) -> None:
        self._lines.append(line)
        self._whole += len(line)
        self._seals.append(seal)
        self.end = end_of(seal, line)
        self.parts |= {part.file: part for part in seal.segments}
        for name in seal.retired:
            self.parts.pop(name, None)

    def _read(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise JournalError(f"`{self._path}` cannot be read: {error.strerror}") from error
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(keepends=True), 1):
            try:
                self._take(read_seal(line), line)
            except BrokenRecord as error:
                raise JournalError(f"`{self._path}`, line {number}: {error.message}", remedy=error.remedy) from error
        if whole < len(data):
            self._cut(whole)

    def _cut(self, size: int) -> None:
        fd = self._disk.open(self._path)
        try:
            self._disk.truncate(fd, size)
        finally:
            self._disk.close(fd)


def read_heads(disk: Disk, directory: Path) -> dict[str, Head]:
    """Up to where each writer is sealed, by the last whole line; none where no seal is."""
    try:
        _, end = disk.read_end(directory / SEALS_FILE, MAX_SEAL_BYTES)
    except FileNotFoundError:
        return {}
    lines = end.splitlines(keepends=True)
    for line in reversed(lines):
        try:
            return read_seal(line).heads
        except BrokenRecord:
            continue
    return {}
