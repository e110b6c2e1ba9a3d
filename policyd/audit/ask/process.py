"""Asking: the child process, its bounds, and its answers as they come.

Law: what asks is never trusted with more than the child may do; a child that takes too long is ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from policyd.audit.ask.child import Answer, Question, Task
from policyd.errors import QuestionError

_decode: Final = msgspec.json.Decoder(Answer).decode


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much memory, and how many seconds, one answer may take."""

    memory: int = 1 << 30
    seconds: int = 60


@dataclass(frozen=True, slots=True)
class Rows:
    """The columns of an answer and its rows, which come as they are read."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]

    def values(self) -> Iterator[dict[str, Any]]:
        """Rows by the names of their columns."""
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)


@contextmanager
def asked(files: Sequence[Path], questions: Sequence[Question], bounds: Bounds) -> Generator[Iterator[Rows]]:
    """Ask: an answer for each question; read one to its end before the next. Raises QuestionError, where it fails."""
    threads = len(os.sched_getaffinity(0))
    task = Task(tuple(map(str, files)), tuple(questions), bounds.memory, bounds.seconds, threads)
    # isolated: neither the folder one stands in nor the environment says what is imported
    words = [sys.executable, "-I", "-m", "policyd.audit.ask.child"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        late = threading.Event()

        def end() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(bounds.seconds, end)
        timer.daemon = True  # where Ctrl-C comes in its start nobody cancels it
        try:
            timer.start()
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(msgspec.json.encode(task))
            child.stdin.close()
            yield _answers(child, child.stdout, late, bounds, len(questions))
        finally:
            timer.cancel()
            child.kill()


def _answers(
    child: subprocess.Popen[bytes], out: IO[bytes], late: threading.Event, bounds: Bounds, count: int
) -> Iterator[Rows]:
    for _ in range(count):
        first = _next(child, out, late, bounds)

        def rows() -> Iterator[tuple[Any, ...]]:
            while not (line := _next(child, out, late, bounds)).end:
                yield line.row

        found = rows()
        yield Rows(first.columns, found)
        for _ in found:
            pass  # what nobody wanted


def _next(child: subprocess.Popen[bytes], out: IO[bytes], late: threading.Event, bounds: Bounds) -> Answer:
    """The next line; raises QuestionError where there is none."""
    line = out.readline()
    if not line.endswith(b"\n"):
        child.wait()
        raise _ended(child, late, bounds)
    found = _decode(line)
    if found.error:
        raise QuestionError(found.error, remedy="`policyd log sql --help` tells what can be asked")
    return found


def _ended(child: subprocess.Popen[bytes], late: threading.Event, bounds: Bounds) -> QuestionError:
    if late.is_set() or child.returncode == -9:
        message = f"the answer takes more than {bounds.seconds} seconds"
        return QuestionError(message, remedy="narrow the question with a time range, or allow more with `--timeout`")
    message = f"what answers ended with {child.returncode}"
    return QuestionError(message, remedy="narrow the question, or allow more with `--memory`")
