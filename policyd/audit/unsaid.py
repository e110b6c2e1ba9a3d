"""What a journal has still to say of itself: what it found torn, and what it could not keep.

Law: nothing of it is forgotten before it is on record; until then it stands first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from policyd.audit.operations import operation
from policyd.audit.record import Entry

OnFull = Literal["deny", "drop"]  # what becomes of a decision that cannot be kept
Missed = Literal["dropped", "refused"]  # gone on without its record, or not


@dataclass(slots=True)
class Gap:
    """What could not be kept since the last record: how many, from when until when, and why the first was not."""

    since: datetime
    until: datetime
    reason: str
    counts: Counter[str] = field(default_factory=Counter)  # by what became of them (Missed)

    def told(self, now: datetime) -> Entry:
        """The record of it."""
        detail: dict[str, object] = {**self.counts, "since": self.since, "until": self.until, "reason": self.reason}
        return _note("journal.gap", detail, now)


@dataclass(slots=True)
class Unsaid:
    """`notes` come before the `gap`."""

    notes: list[Entry] = field(default_factory=list)
    gap: Gap | None = None

    def note(self, name: str, detail: Mapping[str, Any], now: datetime) -> None:
        """There is this to say."""
        self.notes.append(_note(name, detail, now))

    def miss(self, what: Missed, reason: str, now: datetime) -> bool:
        """One more is not kept; whether it is the first of a gap."""
        is_first = self.gap is None
        gap = self.gap = self.gap or Gap(now, now, reason)
        gap.counts[what] += 1
        gap.until = now
        return is_first


def _note(name: str, detail: Mapping[str, Any], now: datetime) -> Entry:
    return operation(now, name, detail, decision="error")
