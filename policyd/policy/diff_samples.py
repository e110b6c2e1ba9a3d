"""Requests that could tell two policy sets apart: what their conditions compare with, combined.

Law: fewest changes first, and bounded; whoever asks is told whether the bound was met.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from policyd.cedar.http import HttpFacts
from policyd.cedar.policies import Policy
from policyd.cedar.syntax_tree import chain_read, nodes_of
from policyd.policy.case_yaml import DEFAULT_TIME
from policyd.policy.change import Change
from policyd.policy.harvest import harvest
from policyd.policy.nearest import conditions_of

MAX_SAMPLES: Final = 64  # for one caller, method and service

_LABELS: Final = ("context", "destination", "labels")
_FIXED: Final = frozenset({"caller", "method", "group"})  # which the combination itself goes through


@dataclass(frozen=True, slots=True)
class Sample:
    """A request to decide: facts, and what is changed of them."""

    facts: HttpFacts
    changes: tuple[Change, ...] = ()

    def words(self) -> str:
        """What is special about it, as in "/reviews/0, header end-user: jason"."""
        path = next((one.value or "" for one in self.changes if one.kind == "path"), self.facts.target)
        headers = [f"header {name}: {value}" for name, value in self.facts.headers.items()]
        others = [_told(one) for one in self.changes if one.kind != "path"]
        if self.facts.time != DEFAULT_TIME:
            others.append(f"time {self.facts.time.isoformat()}")
        return ", ".join([path, *headers, *others])


def samples_of(facts: Sequence[HttpFacts], policies: Iterable[Policy]) -> tuple[list[Sample], bool]:
    """Requests made of `facts` (the same request at different instances), at most MAX_SAMPLES; whether that is all."""
    conditions = [part.expr for policy in policies for part in conditions_of(policy)]
    reads_labels = any((chain_read(node) or ())[:3] == _LABELS for expr in conditions for node in nodes_of(expr))
    asked = facts if reads_labels else facts[:1]
    every = (Sample(one, changes) for changes in _combined(harvest(conditions)) for one in asked)
    found = list(itertools.islice(every, MAX_SAMPLES + 1))
    return found[:MAX_SAMPLES], len(found) <= MAX_SAMPLES


def _combined(changes: Iterable[Change]) -> Iterator[tuple[Change, ...]]:
    """Every way to make one change of each kind, or none of it."""
    kinds: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        if change.kind not in _FIXED:
            kinds.setdefault(change.subject, []).append(change)
    for count in range(len(kinds) + 1):
        for chosen in itertools.combinations(kinds.values(), count):
            yield from itertools.product(*chosen)


def _told(change: Change) -> str:
    if change.kind == "header":
        return f"no header {change.name}" if change.value is None else f"header {change.name}: {change.value}"
    return f"{change.kind} {change.value}"
