"""Formulas over what a proxy can tell of a request, and Cedar's three outcomes as pairs of them.

Law: a formula is true or false of every request; an outcome is true, an error, or else false, and never two of them.
The order in which Cedar looks at things is kept: what stands behind a part that settles it is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from policyd.errors import NotCompilable

MAX_TESTS: Final = 4_096  # of fields, in the filter of one listener
# of formulas in one another: each is up to two messages, and Envoy and gRPC read no more than 100 in one another,
# of which there are 9 around the formula and in a test; what policies are joined with may add a few
MAX_DEPTH: Final = 32


@dataclass(frozen=True, slots=True)
class OfUser:
    """What a proxy's own filter says of the user of a token (policyd.local.users), by its path."""

    path: tuple[str, ...] = ()


Field = str | OfUser  # a header's name in lower case, or one of the following, which no header has for a name
PATH: Final = ":path"  # with its query, as Envoy passes it on
HOST: Final = ":authority"
METHOD: Final = ":method"
CALLER: Final = "the caller"  # the URI of the peer's certificate
SOURCE: Final = "the source"  # the address of the peer
SOURCE_PORT: Final = "the source port"


@dataclass(frozen=True, slots=True)
class Present:
    """There is such a field, empty or not."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """It is one of these texts, byte by byte."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Affix:
    """It starts with a text, ends with it, or has it somewhere."""

    where: str  # as Envoy names them: prefix, suffix, contains
    text: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """All of it matches an expression of RE2."""

    regex: str


@dataclass(frozen=True, slots=True)
class Has:
    """It is a set of texts, numbers and booleans, of which one is this as a text."""

    text: str


@dataclass(frozen=True, slots=True)
class Within:
    """It is an address in one of these ranges."""

    ranges: tuple[str, ...]


Test = Present | OneOf | Affix | Pattern | Has | Within


@dataclass(frozen=True, slots=True)
class Constant:
    """Known before any request."""

    value: bool


@dataclass(frozen=True, slots=True)
class Atom:
    """A test of one field, and the same in words for people."""

    field: Field
    test: Test
    words: str


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    part: Formula
    tests: int = field(compare=False, repr=False, default=0)
    depth: int = field(compare=False, repr=False, default=1)


@dataclass(frozen=True, slots=True)
class Every:
    """All of two or more."""

    parts: tuple[Formula, ...]
    tests: int = field(compare=False, repr=False, default=0)
    depth: int = field(compare=False, repr=False, default=1)


@dataclass(frozen=True, slots=True)
class Some:
    """At least one of two or more."""

    parts: tuple[Formula, ...]
    tests: int = field(compare=False, repr=False, default=0)
    depth: int = field(compare=False, repr=False, default=1)


Formula = Constant | Atom | Not | Every | Some

YES: Final = Constant(True)
NO: Final = Constant(False)


def negated(part: Formula) -> Formula:
    """The opposite of a formula."""
    match part:
        case Constant(value):
            return NO if value else YES
        case Not(inner, _):
            return inner
        case _:
            return Not(part, tests_of(part), depth_of(part) + 1)


def every(*parts: Formula) -> Formula:
    """All of these; of none: yes."""
    return _joined(Every, YES, NO, parts)


def some(*parts: Formula) -> Formula:
    """At least one of these; of none: no."""
    return _joined(Some, NO, YES, parts)


def _joined(kind: Any, neutral: Constant, settling: Constant, parts: tuple[Formula, ...]) -> Formula:
    left = [part for part in parts if part is not neutral]
    if settling in left:
        return settling
    if len(left) < 2:
        return left[0] if left else neutral
    found: dict[Formula, None] = {}  # in their order, each once
    for part in left:
        for one in part.parts if isinstance(part, kind) else (part,):
            found.setdefault(one)
    if any(negated(one) in found for one in found):
        return settling
    if len(found) < 2:
        return next(iter(found))
    tests = sum(map(tests_of, found))
    if tests > MAX_TESTS:
        raise NotCompilable(f"what takes over {MAX_TESTS:,} tests")
    made: Formula = kind(tuple(found), tests, max(map(depth_of, found)) + 1)
    return made


def tests_of(formula: Formula) -> int:
    """How many tests it takes at the most."""
    match formula:
        case Constant():
            return 0
        case Atom(_, test, _):
            return len(test.texts) if isinstance(test, OneOf) else 1
        case _:
            return formula.tests


def depth_of(formula: Formula) -> int:
    """How deep others are nested in it; a test has none in it."""
    return 0 if isinstance(formula, Constant | Atom) else formula.depth


def atoms_of(formula: Formula) -> Iterator[Atom]:
    """Every test in it."""
    match formula:
        case Atom():
            yield formula
        case Not(inner, _):
            yield from atoms_of(inner)
        case Every(parts, _) | Some(parts, _):
            for part in parts:
                yield from atoms_of(part)


def words_of(formula: Formula) -> str:
    """A formula as people read it."""
    match formula:
        case Constant(value):
            return "always" if value else "never"
        case Atom(_, _, words):
            return words
        case Not(inner, _):
            return f"not ({words_of(inner)})"
        case Every(parts, _):
            return " and ".join(f"({words_of(one)})" if isinstance(one, Some) else words_of(one) for one in parts)
        case Some(parts, _):
            return " or ".join(f"({words_of(one)})" if isinstance(one, Every) else words_of(one) for one in parts)


@dataclass(frozen=True, slots=True)
class Outcome:
    """When an expression is true, and when it is an error; it is false of every other request."""

    true: Formula
    error: Formula = NO

    @property
    def false(self) -> Formula:
        """When it is false."""
        return negated(some(self.true, self.error))


TRUE: Final = Outcome(YES)
FALSE: Final = Outcome(NO)


def opposite(one: Outcome) -> Outcome:
    """Cedar's `!`."""
    return Outcome(one.false, one.error)


def both(left: Outcome, right: Outcome) -> Outcome:
    """Cedar's `&&`."""
    return Outcome(every(left.true, right.true), some(left.error, every(left.true, right.error)))


def either(left: Outcome, right: Outcome) -> Outcome:
    """Cedar's `||`."""
    true = some(left.true, every(negated(left.error), right.true))
    return Outcome(true, some(left.error, every(left.false, right.error)))


def chosen(condition: Outcome, then: Outcome, otherwise: Outcome) -> Outcome:
    """Cedar's `if`."""
    true = some(every(condition.true, then.true), every(condition.false, otherwise.true))
    errors = some(condition.error, every(condition.true, then.error), every(condition.false, otherwise.error))
    return Outcome(true, errors)
