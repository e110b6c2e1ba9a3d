"""Seals what is finished, removes what is to be kept no longer: the work of the one process that has the sealing key.

Law: what is removed was sealed, exported where an export is configured, and said to be removed, in this order, each on
the medium before the next. A segment is finished when its writer has begun another; that of a writer that is gone is
finished by us. What is not whole is not sealed, and said. Killed at any point, the next turn goes on.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import structlog

from policyd.audit.disk import Disk
from policyd.audit.pack import Packed
from policyd.audit.retention import Keep, exported, too_much, too_old
from policyd.audit.seals import Head, Part, Seal, Signer
from policyd.audit.seals_file import SealsFile
from policyd.audit.segments import TORN, Segment, list_segments, parse_segment
from policyd.errors import BrokenRecord, JournalError, PolicydError

AT_ONCE: Final = 16  # segments under one seal
PACK_SECONDS: Final = 600.0

_log = structlog.get_logger(__name__)

Pack = Callable[[Segment], Packed]


def pack_apart(segment: Segment) -> Packed:
    """Pack in a process of its own; raises BrokenRecord where the segment is not whole, JournalError else."""
    command = [sys.executable, "-m", "policyd.audit.pack", str(segment.path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PACK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JournalError(f"`{segment.path.name}` cannot be packed: {error}") from error
    if done.returncode == 0:
        return msgspec.json.decode(done.stdout, type=Packed)
    reason = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    if reason.startswith("broken: "):
        raise BrokenRecord(reason.removeprefix("broken: "))
    raise JournalError(f"`{segment.path.name}` cannot be packed: {reason}", remedy="make space")


class Sealer:
    """Looks after the files of a journal folder; not thread-safe.

    `signer` gives a key that is valid now. `finish` ends the segment of a writer that is gone, and raises StateError
    where the writer is there. `taken` tells up to which `seq` each writer is exported, None: there is no export.
    """

    def __init__(
        self,
        directory: Path,
        clock: Callable[[], datetime],
        *,
        signer: Callable[[], Signer],
        finish: Callable[[str], object],
        keep: Keep,
        max_age: float,
        taken: Callable[[], Mapping[str, int] | None] = lambda: None,
        pack: Pack = pack_apart,
        disk: Disk | None = None,
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._signer = signer
        self._finish = finish
        self._keep = keep
        self._max_age = max_age
        self._taken = taken
        self._pack = pack
        self._disk = disk or Disk()
        self._seals: SealsFile | None = None
        self._said: set[str] = set()
        self.trouble = ""

    def turn(self) -> int:
        """Do what is due; how many segments were sealed. What fails is in `trouble` and is tried at the next turn."""
        self.trouble, sealed = "", 0
        with self._said_if_failing():
            seals = self._seals = self._seals or SealsFile(self._directory, self._disk)
            with self._said_if_failing():  # what is to go goes even so: it may be what makes space
                self._finish_abandoned()
                sealed = self._seal(seals)
            self._retire(seals)
            seals.prune(self._clock(), self._signer)
        return sealed

    @contextlib.contextmanager
    def _said_if_failing(self) -> Iterator[None]:
        try:
            yield
        except PolicydError as error:
            self._say(str(error))
        except OSError as error:
            self._say(f"the journal in `{self._directory}` cannot be sealed: {error.strerror or error}")

    # ---- sealing

    def _finish_abandoned(self) -> None:
        """Whose newest segment is old and has no writer any more gets it ended."""
        due = self._clock().timestamp() - self._max_age
        for writer, segments in list_segments(self._directory).items():
            newest = segments[-1]
            with contextlib.suppress(FileNotFoundError):
                if self._disk.read_end(newest.path, 1)[0] and self._disk.modified(newest.path) < due:
                    with contextlib.suppress(PolicydError):  # it writes, or its files are broken: then verify says why
                        self._finish(writer)

    def _seal(self, seals: SealsFile) -> int:
        parts: list[Part] = []
        heads = dict(seals.end.heads)
        for segment in self._finished(seals):
            if len(parts) == AT_ONCE:
                break
            try:
                part = _follow(self._pack(segment), heads.get(segment.writer))
            except BrokenRecord as error:
                self._say(f"`{segment.path}` is not sealed: {error.message}")
                continue
            parts.append(part)
            heads[part.writer] = Head(part.last, part.end)
        if parts:
            self._disk.sync_folder(self._directory)
            seals.add(_new_seal(self._clock(), parts), self._signer())
            _log.info("journal.sealed", segments=len(parts), records=sum(p.last - p.first + 1 for p in parts))
        self._remove_packed(seals)
        return len(parts)

    def _finished(self, seals: SealsFile) -> list[Segment]:
        """Open segments behind which their writer began another, and that are not sealed yet."""
        open_ones: dict[str, list[Segment]] = {}
        for segment in sorted(filter(None, map(parse_segment, self._directory.iterdir()))):
            if not segment.is_sealed:
                open_ones.setdefault(segment.writer, []).append(segment)
        finished = [segment for segments in open_ones.values() for segment in segments[:-1]]
        return [segment for segment in finished if segment.sealed.path.name not in seals.parts]

    def _remove_packed(self, seals: SealsFile) -> None:
        """Remove the open files whose sealed form is under a seal."""
        for path in list(self._directory.iterdir()):
            segment = parse_segment(path)
            if segment is not None and not segment.is_sealed and segment.sealed.path.name in seals.parts:
                self._disk.remove(path)

    # ---- retention

    def _retire(self, seals: SealsFile) -> None:
        parts = exported(seals.parts.values(), self._taken())
        now = self._clock()
        old = too_old(parts, self._keep, now)
        self._retire_some(seals, old, now, "age")
        self._remove_retired(seals, now)  # before it is counted what the rest takes
        rest = [part for part in parts if part not in old]
        self._retire_some(seals, too_much(rest, self._keep, self._size()), now, "size")
        self._remove_retired(seals, now)

    def _remove_retired(self, seals: SealsFile, now: datetime) -> None:
        gone, oldest = seals.retired, now.timestamp() - self._keep.retain
        for path in list(self._directory.iterdir()):
            if path.name in gone or (TORN in path.name and self._disk.modified(path) < oldest):
                self._disk.remove(path)

    def _retire_some(self, seals: SealsFile, parts: list[Part], now: datetime, why: str) -> None:
        if parts:
            names = tuple(part.file for part in parts)
            seal = Seal(number=0, time=now, kind="retired", prev="", key="", retired=names, why=why)
            seals.add(seal, self._signer())
            _log.info("journal.retired", segments=len(parts), why=why)

    def _size(self) -> int:
        total = 0
        for path in self._directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def _say(self, trouble: str) -> None:
        self.trouble = self.trouble or trouble
        if trouble not in self._said:
            self._said.add(trouble)
            _log.error("journal.not_sealed", reason=trouble)


def _new_seal(now: datetime, parts: list[Part]) -> Seal:
    return Seal(number=0, time=now, kind="seal", prev="", key="", segments=tuple(parts))


def _follow(packed: Packed, head: Head | None) -> Part:
    """The part, in its place behind what was sealed of its writer; raises BrokenRecord where it does not follow."""
    part = packed.part
    expected = head.seq + 1 if head else 1
    if part.first < expected:
        raise BrokenRecord(f"it begins with record {part.first}, and {expected - 1} was sealed before")
    if head and part.first == expected and packed.prev != head.hash:
        raise BrokenRecord(f"record {part.first} does not continue what was sealed before it")
    return msgspec.structs.replace(part, missing=part.first - expected)
