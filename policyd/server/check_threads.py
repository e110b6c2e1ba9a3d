"""The threads that answer checks: a few, waiting for work on one queue.

Law: what is submitted is run once, in the order in which it came. A future for each call, as the standard library's
pool makes, costs as much as a remembered decision, and nobody would look at it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

_Work = tuple[Callable[..., object], tuple[Any, ...]]


class CheckThreads:
    """A pool of `count` threads, for a synchronous gRPC server, which reports what its calls raise by itself."""

    def __init__(self, count: int) -> None:
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name=f"check-{number}") for number in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[..., object], *arguments: Any) -> None:
        """Have `call` made with these arguments by the next thread that is free."""
        self._queue.put((call, arguments))

    def shutdown(self) -> None:
        """End the threads after what was submitted is done."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            call, arguments = work
            call(*arguments)
