"""Which sealed segments go: what is too old, and of the rest the oldest where all take too much room.

Law: pure. Only what is sealed is offered, and where an export is configured nothing goes that it has not taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from policyd.audit.seals import Part


@dataclass(frozen=True, slots=True)
class Keep:
    """How long records are kept, in seconds, and how many bytes the journal may take (None: as many as there are)."""

    retain: float = 7 * 86_400.0
    max_bytes: int | None = None


def too_old(parts: Iterable[Part], keep: Keep, now: datetime) -> list[Part]:
    """The parts whose newest record is older than is to be kept."""
    oldest = now - timedelta(seconds=keep.retain)
    return [part for part in parts if part.latest < oldest]


def too_much(parts: Iterable[Part], keep: Keep, total: int) -> list[Part]:
    """The oldest parts, without which the journal's `total` bytes are few enough."""
    chosen: list[Part] = []
    for part in sorted(parts, key=lambda part: (part.latest, part.writer, part.first)):
        if keep.max_bytes is None or total <= keep.max_bytes:
            break
        chosen.append(part)
        total -= part.bytes
    return chosen


def exported(parts: Iterable[Part], taken: Mapping[str, int] | None) -> list[Part]:
    """The parts that an export has taken, whose last `seq` by writer is `taken`; all of them where there is none."""
    return [part for part in parts if taken is None or part.last <= taken.get(part.writer, 0)]
