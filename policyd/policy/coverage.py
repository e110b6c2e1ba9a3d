"""How much of the policies their cases try: which decided something, and which conditions made a difference.

Law: what a condition came to is Cedar's answer, in Cedar's order; one behind a condition that failed was not reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from policyd.cedar.model import Decision, Request, Uid
from policyd.cedar.policies import Policy, PolicySet
from policyd.cedar.schema import Schema
from policyd.cedar.scope import Scopes
from policyd.policy.cases import Result
from policyd.policy.examined import named_in
from policyd.policy.outline import Part, outline_of, parts_of
from policyd.policy.whatif import Truth, evaluate


@dataclass(frozen=True, slots=True)
class PartCoverage:
    """A condition: in how many cases it was `reached`, `held` while its policy applied, and was what `failed`."""

    part: Part
    reached: int
    held: int
    failed: int

    @property
    def lacks(self) -> str:
        """What no case shows, in words; empty where all is shown."""
        if not self.reached:
            return "was never reached"
        if not self.held:
            return "never let its policy apply"
        return "" if self.failed else "never kept its policy from applying"


@dataclass(frozen=True, slots=True)
class PolicyCoverage:
    """A policy: in how many cases a request was in its scope (`asked`), it applied, and it determined the decision."""

    policy: Policy
    asked: int
    applied: int
    decided: int
    parts: tuple[PartCoverage, ...]

    @property
    def lacks(self) -> str:
        """What no case shows of the policy as a whole."""
        if self.decided:
            return ""
        if self.applied:
            return "applied, but never decided"
        return "never applied" if self.asked else "was never asked: no case is in its scope"

    @property
    def points(self) -> tuple[int, int]:
        """What was shown, and what there is to show: one for deciding, for each condition two."""
        shown = bool(self.decided) + sum(bool(one.held) + bool(one.failed) for one in self.parts)
        return shown, 1 + 2 * len(self.parts)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of every policy, in the policies' order."""

    policies: tuple[PolicyCoverage, ...]

    @property
    def points(self) -> tuple[int, int]:
        """What was shown, and what there is to show."""
        each = [one.points for one in self.policies]
        return sum(shown for shown, _ in each), sum(there for _, there in each)

    @property
    def percent(self) -> float:
        """The part that was shown, rounded down, so that 100 is all; without policies there is nothing to show."""
        shown, there = self.points
        return shown * 1000 // there / 10 if there else 100.0


@dataclass(slots=True)
class _Count:
    """What is counted of one policy, case by case."""

    policy: Policy
    parts: tuple[Part, ...]
    asked: int
    applied: int
    decided: int
    reached: list[int]
    failed: list[int]

    def add(self, truths: Sequence[Truth], determined: bool) -> None:
        self.asked += 1
        self.decided += determined
        for at, (part, truth) in enumerate(zip(self.parts, truths, strict=True)):
            self.reached[at] += 1
            if truth != part.wanted:
                self.failed[at] += isinstance(truth, bool)  # an error is neither
                return
        self.applied += 1

    def result(self) -> PolicyCoverage:
        counts = zip(self.parts, self.reached, self.failed, strict=True)
        parts = tuple(PartCoverage(part, reached, self.applied, failed) for part, reached, failed in counts)
        return PolicyCoverage(self.policy, self.asked, self.applied, self.decided, parts)


def coverage(results: Iterable[Result], policy_set: PolicySet, schema: Schema) -> Coverage:
    """Count over all cases that were decided; raises DecisionError."""
    counts = [_count(policy) for policy in policy_set.policies]
    index = _by_resource(counts)
    for result in results:
        if result.request is not None and result.decision is not None:
            _add(list(_asked(result.request, index, schema)), result.request, result.decision, schema)
    return Coverage(tuple(count.result() for count in counts))


def _count(policy: Policy) -> _Count:
    parts = parts_of(policy.tree, outline_of(policy.text))
    return _Count(policy, parts, 0, 0, 0, [0] * len(parts), [0] * len(parts))


def _add(asked: Sequence[_Count], request: Request, decision: Decision, schema: Schema) -> None:
    truths = iter(evaluate([part.expr for one in asked for part in one.parts], request, schema))
    for one in asked:
        one.add([next(truths) for _ in one.parts], one.policy.id in decision.reasons)


def _by_resource(counts: Iterable[_Count]) -> dict[Uid | None, list[_Count]]:
    """By the resource that a scope names, so that a case looks at few policies of many."""
    index: dict[Uid | None, list[_Count]] = {}
    for one in counts:
        index.setdefault(named_in(one.policy.tree.resource), []).append(one)
    return index


def _asked(request: Request, index: dict[Uid | None, list[_Count]], schema: Schema) -> Iterator[_Count]:
    """The policies in whose scope the request is."""
    scopes = Scopes(request, schema)
    above = next((one.parents for one in request.entities if one.uid == request.resource), ())
    for name in (None, request.resource, *sorted(set(above) - {request.resource})):
        yield from (one for one in index.get(name, ()) if all(scopes.match(one.policy.tree)))
