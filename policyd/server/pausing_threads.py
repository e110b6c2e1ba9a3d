"""Threads that answer synchronous calls, each of which goes on with others while some of its own wait for the medium.

Law: what is submitted is run once, and what pauses goes on in the thread in which it began, once it was woken. A call
that waits costs no thread: a synchronous gRPC handler gives its reply by returning, and a thread for each one that
waits costs more processor than most answers. So every call has a stack of its own (a greenlet), and a thread many.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Generic, NoReturn, TypeVar

from greenlet import getcurrent, greenlet

from policyd.audit.group import Wake, sleep

Call = Callable[[], object]
Result = TypeVar("Result")

SPARE: Final = 256  # stacks that a thread keeps for later: a new one costs more than a decision that is remembered


class _Worker:
    """One thread: its loop, what it is to go on with, how many of its calls pause, and stacks that are free."""

    def __init__(self) -> None:
        self.loop: greenlet | None = None
        self.call: Call | None = None  # what the stack that is switched to begins with
        self.ready: deque[greenlet] = deque()
        self.pausing = 0
        self.spare: list[greenlet] = []
        self.bell = threading.Lock()  # held while it has not rung
        self.bell.acquire()

    def stack(self) -> greenlet:
        """A stack for a call."""
        return self.spare.pop() if self.spare else greenlet(self._calls)

    def end(self) -> None:
        """Let the stacks go."""
        self.call = None
        for stack in self.spare:
            stack.switch()

    def _calls(self) -> None:
        """Make one call after the other, each after a switch to this stack."""
        assert self.loop is not None, "the thread has begun"
        while (call := self.call) is not None:
            call()
            if len(self.spare) == SPARE:
                return
            self.spare.append(getcurrent())
            self.loop.switch()


class _Made(Generic[Result]):
    """Several calls, and what came of each: to call an outcome returns, or raises, what its call did."""

    def __init__(self, calls: Sequence[Callable[[], Result]]) -> None:
        self._calls = calls
        self._mutex = threading.Lock()
        self._left = len(calls)
        self.outcomes: list[Callable[[], Result]] = list(calls)

    def begin(self, submit: Callable[..., None], wake: Wake) -> None:
        """Have them made; the last one to end wakes who waits."""
        for place in range(len(self._calls)):
            submit(self._make, place, wake)

    def _make(self, place: int, wake: Wake) -> None:
        try:
            self.outcomes[place] = partial(_same, self._calls[place]())
        except Exception as error:  # noqa: BLE001  # it is told to whoever waits
            self.outcomes[place] = partial(_raises, error)
        with self._mutex:
            self._left -= 1
            last = not self._left
        if last:
            wake()


def _same(result: Result) -> Result:
    return result


def _raises(error: Exception) -> NoReturn:
    raise error


class PausingThreads:
    """A pool of `count` to `most` threads, for a synchronous gRPC server, whose calls may `pause`."""

    def __init__(self, count: int, most: int | None = None) -> None:
        self._most = most or count
        self._taken = self._seen = 0
        self._mutex = threading.Lock()
        self._queue: deque[Call] = deque()
        self._resting: list[_Worker] = []
        self._closing = False
        self._here = threading.local()
        self._threads: list[threading.Thread] = []
        self._start(count)

    def submit(self, call: Callable[..., object], *arguments: Any) -> None:
        """Have `call` made with these arguments by the next thread that is free."""
        with self._mutex:
            self._queue.append(partial(call, *arguments))
            if self._resting:
                self._resting.pop().bell.release()

    def can_pause(self) -> bool:
        """Whether who calls is on a thread of ours, which then makes other calls."""
        worker: _Worker | None = getattr(self._here, "worker", None)
        return worker is not None and worker.loop is not None

    def pause(self, begin: Callable[[Wake], None]) -> None:
        """Call `begin` and wait until what it was given is called; a thread of ours makes other calls meanwhile."""
        worker: _Worker | None = getattr(self._here, "worker", None)
        if worker is None or worker.loop is None:
            sleep(begin)
            return
        worker.pausing += 1
        begin(partial(self._wake, worker, getcurrent()))
        worker.loop.switch()
        worker.pausing -= 1

    def together(self, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        """What these return, each of which may pause while others go on; raises what the first of them raised."""
        if not self.can_pause():
            return [call() for call in calls]
        made = _Made(calls)
        self.pause(partial(made.begin, self.submit))
        return [outcome() for outcome in made.outcomes]

    def look(self) -> None:
        """Start more threads if none has taken a new call since the last look, though there are some."""
        with self._mutex:
            held_up = self._taken == self._seen
            self._seen = self._taken
            if held_up:
                self._start(min(len(self._queue), self._most - len(self._threads)))

    def shutdown(self) -> None:
        """End the threads after what was submitted is done."""
        with self._mutex:
            self._closing = True
            for worker in self._resting:
                worker.bell.release()
            self._resting.clear()
        for thread in self._threads:
            thread.join()

    def _start(self, count: int) -> None:
        first = len(self._threads)
        new = [
            threading.Thread(target=self._run, args=(_Worker(),), name=f"check-{first + number}")
            for number in range(count)
        ]
        self._threads += new
        for thread in new:
            thread.start()

    def _wake(self, worker: _Worker, call: greenlet) -> None:
        with self._mutex:
            worker.ready.append(call)
            if worker in self._resting:
                self._resting.remove(worker)
                worker.bell.release()

    def _run(self, worker: _Worker) -> None:
        self._here.worker = worker
        worker.loop = getcurrent()
        while (call := self._next(worker)) is not None:
            call.switch()
        worker.end()

    def _next(self, worker: _Worker) -> greenlet | None:
        """What this thread goes on with: what it has begun, then what is new; None to end."""
        while True:
            with self._mutex:
                if worker.ready:
                    return worker.ready.popleft()
                if self._queue:
                    self._taken += 1
                    worker.call = self._queue.popleft()
                    return worker.stack()
                if self._closing and not worker.pausing:
                    return None
                self._resting.append(worker)
            worker.bell.acquire()
