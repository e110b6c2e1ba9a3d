"""Entries and journals that the tests of this room start from."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from policyd.audit.block import Start
from policyd.audit.record import Entry, Record, decode
from policyd.audit.sealed import write_sealed
from policyd.audit.segments import list_segments, parse_segment

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
WRITER = "serve-0a1b2c3d"
PRODUCTPAGE = 'Workload::"spiffe://cluster.local/ns/default/sa/productpage"'


def an_entry(**changes: Any) -> Entry:
    """An allowed request of productpage to reviews."""
    fields: dict[str, Any] = {
        "time": NOON,
        "kind": "decision",
        "decision": "allow",
        "status": 200,
        "decision_id": "0192f0c0a1b2c3d4",
        "principal": PRODUCTPAGE,
        "action": 'Action::"GET"',
        "resource": 'Service::"reviews.default"',
        "reasons": ("reviews-from-productpage",),
        "context": {"request": {"method": "GET", "path": "/reviews/0"}},
        "revision": "5f2e",
        "proxy": "reviews-v1",
        "duration_us": 412,
    }
    return Entry(**{**fields, **changes})


def raw_lines(directory: Path) -> list[bytes]:
    """Every line of a journal folder of one writer, in order."""
    segments = [segment for listed in list_segments(directory).values() for segment in listed]
    return [line for segment in segments for line in segment.path.read_bytes().splitlines(keepends=True)]


def records(directory: Path) -> list[Record]:
    """Every record of a journal folder of one writer, in order."""
    return [decode(line) for line in raw_lines(directory)]


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Look again and again until it holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never held"
        time.sleep(0.005)


def seal_by_hand(path: Path) -> Path:
    """Put the sealed form of an open segment in its place, without a seal; the path of it."""
    segment = parse_segment(path)
    assert segment is not None
    lines = path.read_bytes().splitlines(keepends=True)
    with segment.sealed.path.open("xb") as file:
        write_sealed(file, lines, Start(segment.writer, segment.first_seq, decode(lines[0]).prev))
    path.unlink()
    return segment.sealed.path
