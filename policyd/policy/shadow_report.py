"""What would change if the shadow policies were in force: the records of a trial, summed up.

Law: every record is counted once: as one that agrees, that would change, or that the shadow gave no answer to. A pair
of caller and service is a row however many requests it has, so that a day of traffic is a page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, get_args

from policyd.audit.record import Change, Record, Shadow, change_of

LATEST: Final = "latest"
NOTHING: Final = ""  # in the place of a policy's id: nothing permits it

Changed = Literal["would_deny", "would_allow"]


@dataclass(frozen=True, slots=True)
class Example:
    """The last decision of many: its id tells all of it."""

    decision_id: str
    method: str
    path: str


@dataclass(frozen=True, slots=True)
class Row:
    """What would change for one caller, action and service. `shadow` are the shadow policies that determine it,
    `active` those that determine what is in force, the most frequent first; NOTHING among them where nothing permits.
    """

    change: Changed
    principal: str
    action: str
    resource: str
    count: int
    first: datetime
    last: datetime
    shadow: tuple[str, ...]
    active: tuple[str, ...]
    example: Example


@dataclass(frozen=True, slots=True)
class Failing:
    """A shadow policy that failed, or a reason why there was no answer: how often, what it said first, an example."""

    source: str
    message: str
    count: int
    example: Example


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of the shadow policies and the decisions under it."""

    revision: str
    count: int
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class Report:
    """A trial. `counts` are the decisions by what would change; `alone` those at a time without shadow policies.

    Rows with the most decisions come first.
    """

    counts: Mapping[Change, int]
    alone: int
    revisions: tuple[Revision, ...]
    rows: tuple[Row, ...]
    failing: tuple[Failing, ...]

    @property
    def compared(self) -> int:
        """How many decisions have both answers."""
        return sum(self.counts.values()) - self.skipped - self.failed

    @property
    def changed(self) -> int:
        """How many would change."""
        return self.counts["would_deny"] + self.counts["would_allow"]

    @property
    def failed(self) -> int:
        """How many the shadow policies should have answered and could not."""
        return self.counts["error"]

    @property
    def skipped(self) -> int:
        """How many they were not asked, so that the enforced decision was in time."""
        return self.counts["skipped"]


@dataclass(slots=True)
class _Seen:
    first: datetime
    last: datetime
    example: Example  # the last one: the journal has it longest
    count: int = 0
    shadow: Counter[str] = field(default_factory=Counter)
    active: Counter[str] = field(default_factory=Counter)

    def add(self, record: Record, shadow: Shadow) -> None:
        self.count += 1
        if record.time >= self.last:
            self.last, self.example = record.time, _example(record)
        self.first = min(self.first, record.time)
        self.shadow.update(shadow.reasons or [fault.source for fault in shadow.errors] or [NOTHING])
        self.active.update(record.reasons or [fault.source for fault in record.errors] or [NOTHING])


class _Trial:
    """What was seen so far."""

    def __init__(self) -> None:
        self.counts: dict[Change, int] = dict.fromkeys(get_args(Change), 0)
        self.alone = 0
        self.revisions: dict[str, _Seen] = {}
        self.rows: dict[tuple[Changed, str, str, str], _Seen] = {}
        self.failing: dict[str, tuple[str, _Seen]] = {}

    def add(self, record: Record, shadow: Shadow, change: Change) -> None:
        self.counts[change] += 1
        self.revisions.setdefault(shadow.revision, _seen(record)).add(record, shadow)
        if change == "would_deny" or change == "would_allow":
            key = (change, record.principal, record.action, record.resource)
            self.rows.setdefault(key, _seen(record)).add(record, shadow)
        for fault in shadow.errors if change != "skipped" else ():
            self.failing.setdefault(fault.source, (fault.message, _seen(record)))[1].add(record, shadow)


def report(records: Iterable[Record], revision: str = "") -> Report:
    """Sum up the decisions among `records`; with a `revision`, those under the shadow revision that begins so."""
    trial = _Trial()
    for record in records:
        shadow, change = record.shadow, change_of(record)
        if shadow is None or change is None:
            trial.alone += record.kind == "decision"
        elif shadow.revision.startswith(revision):
            trial.add(record, shadow, change)
    revisions = sorted(trial.revisions.items(), key=lambda item: item[1].last)
    return Report(
        counts=trial.counts,
        alone=trial.alone,
        revisions=tuple(Revision(name, seen.count, seen.first, seen.last) for name, seen in revisions),
        rows=tuple(sorted((_row(key, seen) for key, seen in trial.rows.items()), key=_order)),
        failing=tuple(
            Failing(name, text, seen.count, seen.example) for name, (text, seen) in sorted(trial.failing.items())
        ),
    )


def latest(records: Iterable[Record]) -> str:
    """The shadow revision that was asked last, "" where none was."""
    asked = (record for record in records if record.shadow is not None and record.shadow.revision)
    newest = max(asked, key=lambda record: record.time, default=None)
    return newest.shadow.revision if newest and newest.shadow else ""


def _seen(record: Record) -> _Seen:
    return _Seen(record.time, record.time, _example(record))


def _example(record: Record) -> Example:
    request = record.context.get("request")
    facts = request if isinstance(request, Mapping) else {}
    return Example(record.decision_id, str(facts.get("method") or ""), str(facts.get("path") or ""))


def _row(key: tuple[Changed, str, str, str], seen: _Seen) -> Row:
    shadow, active = (tuple(name for name, _ in _frequent(one)) for one in (seen.shadow, seen.active))
    return Row(*key, seen.count, seen.first, seen.last, shadow, active, seen.example)


def _frequent(names: Counter[str]) -> list[tuple[str, int]]:
    return sorted(names.items(), key=lambda item: (-item[1], item[0]))


def _order(row: Row) -> tuple[object, ...]:
    return row.change, -row.count, row.principal, row.resource, row.action
