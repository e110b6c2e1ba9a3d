"""A journal in memory, which can be told to fail."""

from __future__ import annotations

from policyd.audit.record import Entry
from policyd.errors import JournalError


class FakeJournal:
    """Call it to keep an entry; while `broken`, nothing can be kept."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.broken = False

    def __call__(self, entry: Entry) -> None:
        """Keep `entry`, or raise JournalError."""
        if self.broken:
            raise JournalError("no space left on the device")
        self.entries.append(entry)
