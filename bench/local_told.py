"""Writes lines of decisions to an agent, at a pace: what many sidecars of a node would write at once.

The lines are an Envoy's own, read from the agent's spool; each is written again with an id and a time of its own, as
many together as Envoy writes. An Envoy that decides as often needs more than the cores of a small machine for itself.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from itertools import count, cycle
from pathlib import Path
from typing import Final, NamedTuple

from policyd._pb import agent_pb2
from policyd.decision_line import END, SEPARATOR, kind_of, line_of
from proxy.spool import Spool

TOGETHER: Final = 65_536  # bytes after which Envoy writes


class Told(NamedTuple):
    """How many decisions were told, and in how many seconds."""

    decisions: int
    seconds: float


def kinds(spool: Path) -> list[bytes]:
    """One line of each path that was asked for, from what a spool still has on disk of what it has sent."""
    lines = (line for body in _frames(spool) for line in agent_pb2.Told.FromString(body).lines.split(END) if line)
    return list({kind_of(line_of(line).common).path: line for line in lines}.values())


def _frames(spool: Path) -> Iterator[bytes]:
    """All frames of its segments; the spool itself forgets at once what policyd has."""
    opened = Spool(spool)
    try:
        yield from opened.read(1 << 30)[1]
    finally:
        opened.close()


def tell(pipe: Path, lines: Sequence[bytes], per_second: int, seconds: int) -> Told:
    """Tell so many each second, in turn of each kind."""
    sent, began = 0, time.monotonic()
    with pipe.open("wb", buffering=0) as envoy:
        for text, size in _written(lines, per_second * seconds):
            time.sleep(max(0.0, began + sent / per_second - time.monotonic()))
            left = memoryview(text)
            while left:
                left = left[envoy.write(left) :]
            sent += size
    return Told(sent, time.monotonic() - began)


def _written(lines: Sequence[bytes], wanted: int) -> Iterator[tuple[bytes, int]]:
    """What is written at once, and how many lines that is."""
    numbers, together, size = count(), [], 0
    for line in cycle(lines):
        together.append(_afresh(line, next(numbers)))
        size += len(line)
        wanted -= 1
        if size >= TOGETHER or not wanted:
            yield b"".join(together), len(together)
            together, size = [], 0
        if not wanted:
            return


def _afresh(line: bytes, number: int) -> bytes:
    """The line of another request alike, with its end."""
    _, took, _, source, _, rest = line.split(SEPARATOR, 5)
    own = str(uuid.UUID(int=number, version=4)).encode()
    return SEPARATOR.join((b"%d" % (time.time_ns() // 1000), took, own, source, own, rest)) + END
