"""What a journal has still to say of itself: what it found torn, and what it could not keep.

Law: nothing of it is forgotten before it is on record; until then it stands first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from policyd.audit.operations import operation
from policyd.audit.record import Entry

OnFull = Literal["deny", "drop"]  # what becomes of an entry that cannot be kept


@dataclass(slots=True)
class Gap:
    """What could not be kept since the last record: how many, from when until when, and why the first was not."""

    count: int
    since: datetime
    until: datetime
    reason: str

    def told(self, on_full: OnFull, now: datetime) -> Entry:
        """The record of it."""
        what = "dropped" if on_full == "drop" else "refused"
        detail = {what: self.count, "since": self.since, "until": self.until, "reason": self.reason}
        return _note("journal.gap", detail, now)


@dataclass(slots=True)
class Unsaid:
    """`notes` come before the `gap`."""

    notes: list[Entry] = field(default_factory=list)
    gap: Gap | None = None

    def note(self, name: str, detail: Mapping[str, Any], now: datetime) -> None:
        """There is this to say."""
        self.notes.append(_note(name, detail, now))

    def miss(self, reason: str, now: datetime) -> bool:
        """One more is not kept; whether it is the first of a gap."""
        if self.gap is None:
            self.gap = Gap(1, now, now, reason)
            return True
        self.gap.count += 1
        self.gap.until = now
        return False


def _note(name: str, detail: Mapping[str, Any], now: datetime) -> Entry:
    return operation(now, name, detail, decision="error")
