"""Lines that wait in memory for a thread to write them: durability `async`.

Law: bounded. What was taken is written in order, and kept until it has been; a crash loses what still waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final, NamedTuple, Protocol

from policyd.errors import JournalError

BUFFER_BYTES: Final = 8 << 20
BATCH_BYTES: Final = 1 << 20
RETRY_SECONDS: Final = 0.2
CLOSE_SECONDS: Final = 5.0


class Sink(Protocol):
    """Where lines go: to the files, or to a buffer before them."""

    def append(self, lines: bytes, first_seq: int) -> None:
        """Take whole lines, the first of which is record `first_seq`; raises JournalError and keeps none."""

    def trouble(self) -> str:
        """Why lines are not kept now; "" if they are."""

    def turn(self) -> None:
        """End a segment that is too old, though nothing comes."""

    def close(self) -> None:
        """Keep what was taken, and let go."""


class _Waiting(NamedTuple):
    seq: int
    lines: bytes


class Buffer:
    """At most `max_bytes` wait for `sink`, which from now on only the thread of this buffer uses."""

    def __init__(self, sink: Sink, max_bytes: int = BUFFER_BYTES) -> None:
        self._sink = sink
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._closing = False
        self._turn = False
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="policyd-journal", daemon=True)
        self._thread.start()

    def append(self, lines: bytes, first_seq: int) -> None:
        """Take lines to be written soon; raises JournalError if too many wait."""
        with self._changed:
            if self._bytes + len(lines) > self._max_bytes:
                reason = self._trouble or "the disk is slower than what is recorded"
                raise JournalError(f"the journal's buffer of {self._max_bytes} bytes is full: {reason}")
            self._waiting.append(_Waiting(first_seq, lines))
            self._bytes += len(lines)
            self._changed.notify()

    def trouble(self) -> str:
        """Why the lines that wait could not be written; "" if they could."""
        with self._changed:
            return self._trouble

    def turn(self) -> None:
        """Have the thread end a segment that is too old."""
        with self._changed:
            self._turn = True
            self._changed.notify()

    def close(self) -> None:
        """Write what waits, for CLOSE_SECONDS at most; raises JournalError, counting what could not be written."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._sink.close()
        if self._waiting:
            lost = sum(item.lines.count(b"\n") for item in self._waiting)
            raise JournalError(f"{lost} records were lost: {self._trouble}")

    def _run(self) -> None:
        give_up: float | None = None
        while batch := self._next():
            if self._closing and give_up is None:
                give_up = time.monotonic() + CLOSE_SECONDS
            if self._write(batch):
                continue
            if give_up is not None and time.monotonic() > give_up:
                return
            time.sleep(RETRY_SECONDS)

    def _next(self) -> list[_Waiting]:
        """What to write next, in order; empty when all is written and the buffer closes."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._turn_if_asked()
                self._changed.wait()
            batch: list[_Waiting] = []
            size = 0
            for item in self._waiting:
                size += len(item.lines)
                if batch and size > BATCH_BYTES:
                    break
                batch.append(item)
            return batch

    def _turn_if_asked(self) -> None:
        if self._turn and not self._waiting:
            self._turn = False
            self._sink.turn()

    def _write(self, batch: list[_Waiting]) -> bool:
        self._sink.trouble()  # a file that was removed under it is replaced
        try:
            self._sink.append(b"".join(item.lines for item in batch), batch[0].seq)
            trouble = ""
        except JournalError as error:
            trouble = str(error)
        with self._changed:
            self._trouble = trouble
            if not trouble:
                for item in batch:
                    self._waiting.popleft()
                    self._bytes -= len(item.lines)
        return not trouble
