"""Outcomes as pairs of formulas: Cedar's operators over true, false and error, in every combination."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Literal

import pytest

from policyd.local.logic import (
    NO,
    YES,
    Atom,
    Constant,
    Every,
    Formula,
    Not,
    Outcome,
    Present,
    Some,
    both,
    chosen,
    either,
    every,
    negated,
    opposite,
    some,
    words_of,
)

Word = Literal["true", "false", "error"]
WORDS: tuple[Word, ...] = ("true", "false", "error")
A, B, C = (Atom(name, Present(), name) for name in ("x-a", "x-b", "x-c"))


def holds(formula: Formula, facts: Mapping[Atom, bool]) -> bool:
    match formula:
        case Constant(value):
            return value
        case Atom():
            return facts[formula]
        case Not(part, _):
            return not holds(part, facts)
        case Every(parts, _):
            return all(holds(one, facts) for one in parts)
        case Some(parts, _):
            return any(holds(one, facts) for one in parts)


def unknown(name: str) -> tuple[Outcome, Atom, Atom]:
    """An outcome of which nothing is known, and what it is true and an error by."""
    true, error = Atom(f"{name}-true", Present(), "t"), Atom(f"{name}-error", Present(), "e")
    return Outcome(every(true, negated(error)), error), true, error


def word(outcome: Outcome, facts: Mapping[Atom, bool]) -> Word:
    true, error, false = (holds(one, facts) for one in (outcome.true, outcome.error, outcome.false))
    assert [true, error, false].count(True) == 1
    return "true" if true else "error" if error else "false"


def cedar_and(left: Word, right: Word) -> Word:
    return right if left == "true" else left


def cedar_or(left: Word, right: Word) -> Word:
    return right if left == "false" else left


def cedar_if(condition: Word, then: Word, otherwise: Word) -> Word:
    return {"true": then, "false": otherwise, "error": "error"}[condition]  # type: ignore[return-value]


def cedar_not(one: Word) -> Word:
    return {"true": "false", "false": "true", "error": "error"}[one]  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("made", "meant", "count"),
    [(both, cedar_and, 2), (either, cedar_or, 2), (chosen, cedar_if, 3), (opposite, cedar_not, 1)],
)
def test_operators_have_cedars_outcomes(made: Callable[..., Outcome], meant: Callable[..., Word], count: int) -> None:
    parts = [unknown(str(at)) for at in range(count)]
    outcome = made(*(one for one, _, _ in parts))
    for words in itertools.product(WORDS, repeat=count):
        facts = {true: is_ == "true" for is_, (_, true, _) in zip(words, parts, strict=True)}
        facts |= {error: is_ == "error" for is_, (_, _, error) in zip(words, parts, strict=True)}
        assert word(outcome, facts) == meant(*words), words


@pytest.mark.parametrize(
    ("formula", "simple"),
    [
        (every(), YES),
        (some(), NO),
        (every(A), A),
        (every(A, YES, A), A),
        (every(A, NO), NO),
        (some(A, YES), YES),
        (some(A, NO), A),
        (every(A, negated(A)), NO),
        (some(negated(A), A), YES),
        (negated(negated(A)), A),
        (every(A, every(B, C)), Every((A, B, C))),
        (some(some(A, B), C), Some((A, B, C))),
    ],
)
def test_what_is_settled_is_left_out(formula: Formula, simple: Formula) -> None:
    assert formula == simple


def test_formulas_are_read_by_people() -> None:
    assert words_of(every(A, some(B, negated(C)))) == "x-a and (x-b or not (x-c))"
