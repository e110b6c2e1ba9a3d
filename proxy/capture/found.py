"""What is installed of a capture, against what was asked for.

Law: pure. A rule is known by what it does, not by what it calls itself; who takes one away, adds one, changes one or
moves one is found out, and the rule is named.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from proxy.capture.plan import Rule, Way, digest

Verdict = Literal["absent", "as asked", "other", "broken"]
_MARK: Final = re.compile(r"policyd capture ([0-9a-f]{16})")
AGAIN: Final = "install it again"


@dataclass(frozen=True, slots=True)
class Installed:
    """One rule as the machine has it: what it says of itself, and what it does (None: nothing that a plan does).

    `idle`: it does nothing at all, as a mark does.
    """

    way: Way
    comment: str
    rule: Rule | None = None
    idle: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """The rules in their order, and what is wrong with where they hang, in words."""

    rules: tuple[Installed, ...] = ()
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What there is, in words, and what to think of it."""

    verdict: Verdict
    lines: tuple[str, ...]


def owned(rule: Rule, comment: str) -> Rule:
    """A rule that was read, as the agent's where it says so: that is no matter of what it does."""
    agents = replace(rule, own=True)
    return agents if agents.comment == comment else rule


def judge(state: State, asked: Sequence[Rule] | None = None) -> Found:
    """Compare what is installed with the rules of a plan; without one, with the plan that it names itself."""
    if not state.rules and not state.faults:
        return Found("absent", ("nothing is captured",))
    marks = [one for one in state.rules if one.idle and _MARK.fullmatch(one.comment)]
    rules = [one for one in state.rules if one not in marks]
    lines = tuple(f"{one.way}: {_does(one)}" for one in rules) + state.notes
    broken = [*state.faults, *_changed(rules), *_moved(state.rules, marks, rules)]
    differs = list(_differences(rules, asked)) if asked is not None else []
    if broken:
        return Found("broken", (*lines, *broken, *differs, f"this is not what was installed; {AGAIN}"))
    if differs:
        return Found("other", (*lines, *differs, f"this is not what is asked for; {AGAIN}"))
    return Found("as asked", lines)


def _does(one: Installed) -> str:
    return one.rule.says if one.rule is not None else f"a rule that no plan has{_called(one)}"


def _called(one: Installed) -> str:
    return f", which calls itself `{one.comment[:120]}`" if one.comment else ""


def _changed(rules: Sequence[Installed]) -> Iterator[str]:
    """Rules that do something else than they say."""
    for one in rules:
        if one.rule is None:
            yield f"changed: {one.way}: {_does(one)}"
        elif one.comment != one.rule.comment:
            yield f"changed: {one.way}: {one.rule.says}{_called(one)}"


def _moved(everything: Sequence[Installed], marks: Sequence[Installed], rules: Sequence[Installed]) -> Iterator[str]:
    """Whether each chain begins with its mark, and all of them have the rules that the mark means."""
    plans = {match[1] for one in marks if (match := _MARK.fullmatch(one.comment))}
    for way in dict.fromkeys(one.way for one in everything):
        chain = [one for one in everything if one.way == way]
        if [one in marks for one in chain] != [True, *([False] * (len(chain) - 1))]:
            yield f"changed: {way}: its first rule is not the mark of a plan, or another is"
    if len(plans) != 1:
        yield "changed: the rules are not those of one plan"
    elif digest((one.way, one.rule.says if one.rule else "") for one in rules) not in plans:
        yield f"changed: rules of the plan {min(plans)} are missing, moved or added"


def _differences(rules: Sequence[Installed], asked: Sequence[Rule]) -> Iterator[str]:
    """What is asked for and missing, what is there and was not asked for, or else what has another place."""
    there = [(one.way, _does(one)) for one in rules]
    wanted = [(one.way, one.says) for one in asked]
    for way, says in (Counter(wanted) - Counter(there)).elements():
        yield f"missing: {way}: {says}"
    for way, says in (Counter(there) - Counter(wanted)).elements():
        yield f"not asked for: {way}: {says}"
    if Counter(there) == Counter(wanted) and there != wanted:
        way, says = next(one for one, other in zip(wanted, there, strict=True) if one != other)
        yield f"moved: {way}: {says}"
