"""The threads that answer checks: a few, waiting for work on one queue, and more once all of them are held up.

Law: what is submitted is run once, in the order in which it came. Threads are bounded, and stay. A future for each
call, as the standard library's pool makes, costs as much as a remembered decision, and nobody would look at it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

_Work = tuple[Callable[..., object], tuple[Any, ...]]


class CheckThreads:
    """A pool of `count` to `most` threads, for a synchronous gRPC server, which reports by itself what calls raise."""

    def __init__(self, count: int, most: int) -> None:
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._most = most
        self._taken = 0  # roughly: it is looked at for whether it moves
        self._seen = 0
        self._threads: list[threading.Thread] = []
        for _ in range(count):
            self._start()

    def submit(self, call: Callable[..., object], *arguments: Any) -> None:
        """Have `call` made with these arguments by the next thread that is free."""
        self._queue.put((call, arguments))

    def look(self) -> None:
        """Start more threads if none has taken a call since the last look, though there are some."""
        held_up = self._taken == self._seen
        self._seen = self._taken
        for _ in range(min(self._queue.qsize(), self._most - len(self._threads)) if held_up else 0):
            self._start()

    def shutdown(self) -> None:
        """End the threads after what was submitted is done."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=f"check-{len(self._threads)}")
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            self._taken += 1
            call, arguments = work
            call(*arguments)
