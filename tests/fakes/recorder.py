"""A journal that keeps entries in a list, and can be full."""

from __future__ import annotations

from policyd.audit.record import Entry
from policyd.errors import JournalError


class Recorder:
    """Call it with an entry; `full` makes it refuse."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.full = False

    def __call__(self, entry: Entry) -> None:
        if self.full:
            raise JournalError("the disk is full")
        self.entries.append(entry)
