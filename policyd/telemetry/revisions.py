"""Decisions by the revision that they were made under, in memory that processes share (`slots`).

Law: a revision sits in one of a few seats of a region, and who sat there longest without a decision gives way. Fewer
are shown than there are seats, so that a number which is shown never falls.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final

from policyd import names
from policyd.telemetry.slots import Labels, Region, Slots, Table

DECISIONS: Final = ("allow", "deny", "error")
SHOWN: Final = 4  # revisions: the one in force, and those before it
_SEATS: Final = tuple(str(number) for number in range(2 * SHOWN + 1))
_NONE: Final = _SEATS[0]  # of decisions without any revision, which never gives way
_HELD: Final = "seats"  # no metric: who sits in which, and since which turn
_WHO, _TURN = "who", "turn"
TABLE: Final[Table] = {names.REVISION_DECISIONS: (DECISIONS, _SEATS), _HELD: (_SEATS, (_WHO, _TURN))}


def _known_by(revision: str) -> int:
    """A revision (hex, or "") as a number of a word, never 0."""
    return 1 + int(revision[:14] or "0", 16)


class RevisionCounts:
    """What the process of one region counts; safe for its threads."""

    def __init__(self, slots: Slots, own: Region) -> None:
        self._slots = slots
        self._own = own
        self._lock = threading.Lock()
        self._last: tuple[str, Mapping[str, int]] = ("", self._places(_NONE))

    def place(self, revision: str, decision: str) -> int:
        """Where a decision under a revision is counted."""
        last = self._last
        if last[0] != revision:
            last = self._last = (revision, self._places(self._seat(revision) if revision else _NONE))
        found = last[1].get(decision)
        return last[1][names.OTHER] if found is None else found

    def _places(self, seat: str) -> Mapping[str, int]:
        words = (*DECISIONS, names.OTHER)
        return {word: self._slots.place(names.REVISION_DECISIONS, (word, seat)) for word in words}

    def _seat(self, revision: str) -> str:
        """The seat of a revision, which is the last that was used from now on."""
        who = _known_by(revision)
        with self._lock:
            turns = {seat: self._read(seat, _TURN) for seat in _SEATS[1:]}
            there = (seat for seat in _SEATS[1:] if self._read(seat, _WHO) == who)
            seat = next(there, None) or min(turns, key=lambda one: turns[one])
            if self._read(seat, _WHO) != who:
                self._own.put(_HELD, seat, _WHO, value=0)
                for word in (*DECISIONS, names.OTHER):
                    self._own.put(names.REVISION_DECISIONS, word, seat, value=0)
                self._own.put(_HELD, seat, _WHO, value=who)
            self._own.put(_HELD, seat, _TURN, value=1 + max(turns.values()))
            return seat

    def _read(self, seat: str, what: str) -> int:
        return self._own.read(_HELD, seat, what)


class Revisions:
    """Which revisions are shown: the last that came into force."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._shown: deque[str] = deque(maxlen=SHOWN)

    def ruled(self, revision: str) -> None:
        """A revision comes into force."""
        if revision in self._shown:
            self._shown.remove(revision)
        self._shown.append(revision)

    def shows(self, revision: str) -> bool:
        """Whether it is one of them: decisions that are told late, under others, take nobody's seat."""
        return revision in self._shown

    def sums(self) -> Iterator[tuple[Labels, int]]:
        """Decision and revision, and what all processes together have counted of it."""
        sums = {(word, revision): 0 for revision in tuple(self._shown) for word in DECISIONS}
        known = {_known_by(revision): revision for revision in tuple(self._shown)}
        for region in self._slots.by_region(names.REVISION_DECISIONS, _HELD):
            counted, held = region
            for (word, seat), count in counted.items():
                revision = "" if seat == _NONE else known.get(held.get((seat, _WHO), 0))
                if count and revision is not None:
                    sums[word, revision] = sums.get((word, revision), 0) + count
        yield from sums.items()
