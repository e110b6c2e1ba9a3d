"""The workloads whose sidecars decided otherwise than policyd: under that revision `auto` is central for them.

Law: kept in a file, so that a restart forgets none; another revision is another chance. Who is distrusted falls back
even where no file can hold it: that is said, and tried again when there is something to add.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

import structlog

from policyd.errors import SpiffeIdError, StateError
from policyd.sources.state import write_private
from policyd.spiffe import SpiffeId

MAX_KEPT: Final = 1_000

_log = structlog.get_logger("policyd.server")


class Distrust:
    """What is in `file`; safe for threads. A file that cannot be read distrusts nobody: it is said at the start."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = Lock()
        self._found: list[tuple[str, SpiffeId]] = []
        self._kept = True  # all of it, in the file
        with suppress(FileNotFoundError):
            self._found = _read(file)

    def of(self, revision: str) -> frozenset[SpiffeId]:
        """Who is distrusted under a revision."""
        return frozenset(workload for under, workload in self._found if under == revision)

    def add(self, workload: SpiffeId, revision: str) -> bool:
        """Distrust a workload; False where it is already."""
        with self._lock:
            is_news = (revision, workload) not in self._found
            if is_news:
                self._found = [*self._found, (revision, workload)][-MAX_KEPT:]
            if is_news or not self._kept:
                self._kept = self._written()
        return is_news

    def _written(self) -> bool:
        data = json.dumps([[under, str(one)] for under, one in self._found]).encode()
        try:
            write_private(self._file, data)
        except OSError as error:
            _log.error("distrust.not_kept", file=str(self._file), reason=error.strerror)
            return False
        return True


def _read(file: Path) -> list[tuple[str, SpiffeId]]:
    try:
        return [(str(under), SpiffeId.parse(one)) for under, one in json.loads(file.read_bytes())]
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, SpiffeIdError) as error:
        raise StateError(f"`{file}` is broken", remedy="remove it: then nobody is distrusted") from error
