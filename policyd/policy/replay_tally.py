"""What a replay comes to: which decisions change, how often, since when; and what could not be decided.

Law: every record that policies decided is in exactly one place: it agrees, it changes, or it is undecidable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from policyd.audit.record import Record
from policyd.policy.replay import Answer, Lacking, has_question


@dataclass(slots=True)
class Seen:
    """How often, from when to when, and one of them."""

    count: int = 0
    first: datetime | None = None
    last: datetime | None = None
    example: str = ""

    def add(self, record: Record) -> None:
        """Count one more; the example is the last one."""
        self.join(Seen(1, record.time, record.time, record.decision_id))

    def join(self, other: Seen) -> None:
        """Count those of `other` too."""
        self.count += other.count
        if self.first is None or (other.first is not None and other.first < self.first):
            self.first = other.first
        if self.last is None or (other.last is not None and other.last >= self.last):
            self.last, self.example = other.last, other.example


class Same(NamedTuple):
    """What is told in one row: who did what to what, and what was decided."""

    principal: str
    action: str
    resource: str
    was: str

    @staticmethod
    def of(record: Record) -> Same:
        """The row of a record."""
        return Same(record.principal, record.action, record.resource, record.decision or "")


class Change(NamedTuple):
    """A row whose decision changes to `now`."""

    same: Same
    now: str


@dataclass(slots=True)
class Told:
    """What is told of a Change: the policies that decide now, or the error, of any of them."""

    seen: Seen = field(default_factory=Seen)
    by: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Tally:
    """What a replay has come to so far. `asked` are the different questions that were decided."""

    records: int = 0
    agreeing: int = 0
    asked: int = 0
    changed: dict[Change, Told] = field(default_factory=dict)
    undecidable: dict[tuple[Same, Lacking], Seen] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)

    def pass_over(self, record: Record) -> bool:
        """Whether a record has nothing to decide again; counted with the reason, if it is about a request."""
        if has_question(record):
            return False
        if record.kind == "decision":
            self.passed_over["policies did not decide then: an error, or a path that is not acceptable"] += 1
        return True

    def add(self, same: Same, seen: Seen, answer: Answer) -> None:
        """Count records that the candidate gives this answer to."""
        self.records += seen.count
        if answer.word == same.was:
            self.agreeing += seen.count
            return
        told = self.changed.setdefault(Change(same, answer.word), Told())
        told.seen.join(seen)
        told.by.update(answer.by)

    def cannot(self, record: Record, lacking: Lacking) -> None:
        """Count a record that cannot be decided again."""
        self.records += 1
        self.undecidable.setdefault((Same.of(record), lacking), Seen()).add(record)

    @property
    def undecided(self) -> int:
        """How many records could not be decided again."""
        return _count(self.undecidable.values())

    @property
    def differing(self) -> int:
        """How many records are decided differently."""
        return _count(one.seen for one in self.changed.values())


def _count(seen: Iterable[Seen]) -> int:
    return sum(one.count for one in seen)
