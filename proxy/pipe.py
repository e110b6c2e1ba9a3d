"""The pipe into which one Envoy writes of its decisions, read as it comes and cut at the ends of lines.

Law: no request waits for who reads here, and nobody but the agent's own user writes here.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from policyd.decision_line import END
from proxy.decided import Decided

PIPE_BYTES: Final = 1 << 20  # what a pipe holds, and what is read at once
MAX_LINE: Final = 1 << 20
MUCH, LITTLE = 0.5, 0.125  # of a spool: from there on it is read as policyd takes it, and here that is over
CATCH_UP: Final = 60.0  # seconds for which it is; after that the spool's bound is what counts
LOOK: Final = 0.02  # seconds between two looks whether there is room
_OWNER_ONLY: Final = 0o600


class Pipe:
    """Where one Envoy writes of its decisions: a pipe in the agent's folder, made by `open` (0600).

    Its Envoy waits for nobody there: what the agent has not read waits in the pipe, and behind it in Envoy, which
    refuses requests once it is full. Where much waits there, as after a time in which the agent stood still, it is read
    as policyd takes it; for a while, so that an Envoy that decides more than policyd takes does not get full by that.
    """

    def __init__(self, path: Path, decided: Decided, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._decided = decided
        self._monotonic = monotonic
        self._fd = -1
        self._rest = b""  # the beginning of a line
        self._behind_since: float | None = None  # since when more has been told than policyd took
        self._hurried = False
        self._later: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Read whatever is written from now on, in the running loop; raises OSError."""
        self._path.unlink(missing_ok=True)
        os.mkfifo(self._path, _OWNER_ONLY)
        # also for writing: so it has no end, and Envoy finds somebody who reads
        self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        if (larger := getattr(fcntl, "F_SETPIPE_SZ", None)) is not None:
            with suppress(OSError):  # of so much that this user has of it, there is no more
                fcntl.fcntl(self._fd, larger, PIPE_BYTES)
        self._behind_since, self._hurried = None, False
        asyncio.get_running_loop().add_reader(self._fd, self._look)

    def hurry(self) -> None:
        """The Envoy is about to end, and has to get rid of all: let nothing wait any more."""
        self._hurried = True

    def ended(self) -> None:
        """The Envoy has ended: take what it has written; a line without an end is none of its decisions any more."""
        while self._fd >= 0 and self._read():
            pass
        self._rest = b""

    def close(self) -> None:
        """Take what is there, and read no more."""
        if self._fd < 0:
            return
        self.ended()
        if self._later is not None:
            self._later.cancel()
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._path.unlink(missing_ok=True)

    def _look(self) -> None:
        """Read if there is room, and else look again a little later."""
        if not self._waits():
            self._read()
            return
        self._decided.held = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._fd)
        self._later = loop.call_later(LOOK, self._again)

    def _again(self) -> None:
        self._later = None
        asyncio.get_running_loop().add_reader(self._fd, self._look)
        self._look()

    def _waits(self) -> bool:
        fill = self._decided.fill
        if fill < LITTLE:
            self._behind_since = None
        if fill < MUCH or self._decided.away or self._hurried:
            return False
        now = self._monotonic()
        if self._behind_since is None:
            self._behind_since = now
        return now - self._behind_since < CATCH_UP

    def _read(self) -> bool:
        """Take what there is, up to a bound; whether there was something."""
        try:
            found = os.read(self._fd, PIPE_BYTES)
        except BlockingIOError:
            return False
        lines, end, rest = found.rpartition(END)
        if end:
            lines, self._rest = self._rest + lines + end, rest
            self._decided.take(lines, lines.count(END))
        else:
            self._rest += rest
            if len(self._rest) > MAX_LINE:  # no line of a request is so long
                self._rest = b""
        return True
