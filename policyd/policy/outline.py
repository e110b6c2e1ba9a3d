"""Where the parts of a policy stand in its text, and its conditions one by one.

Law: Cedar's tree says what a condition is, our lexer says where it stands; where the two do not count alike, the
place is that of the whole clause, never a wrong one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cedarpy import pst

from policyd.cedar.lexer import Token, tokens_of

_OPEN = ("(", "[", "{")
_CLOSE = (")", "]", "}")
_CLAUSES = ("when", "unless")


class Span(NamedTuple):
    """Offsets into a policy's text; `end` is behind the last character."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ClauseSpan:
    """One `when` or `unless`: all of it, and its parts."""

    whole: Span
    parts: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Outline:
    """Where the parts of a scope and the clauses stand."""

    effect: Span
    principal: Span
    action: Span
    resource: Span
    clauses: tuple[ClauseSpan, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """What has to be true (`wanted`) or false for a policy to apply, all else being so too: a conjunct of a `when`, a
    disjunct of an `unless`. In the order in which Cedar evaluates them.
    """

    expr: pst.Expr
    wanted: bool
    span: Span

    @property
    def kind(self) -> Literal["when", "unless"]:
        """The clause's keyword."""
        return "when" if self.wanted else "unless"


def outline_of(text: str) -> Outline:
    """Outline the text of one policy that Cedar has parsed."""
    tokens = list(tokens_of(text))
    at = _behind_annotations(tokens)
    effect, opened = tokens[at], at + 1
    closed = _closing(tokens, opened)
    principal, action, resource = (_span(part) for part in _split(tokens[opened + 1 : closed], ",")[:3])
    clauses = tuple(_clauses(tokens, closed + 1))
    return Outline(Span(effect.start, effect.end), principal, action, resource, clauses)


def parts_of(tree: pst.Template, outline: Outline) -> tuple[Part, ...]:
    """Every condition of a policy by itself, with its place."""
    parts: list[Part] = []
    for at, clause in enumerate(tree.clauses):
        wanted = isinstance(clause, pst.When)
        place = outline.clauses[at]
        found = list(_flat(clause.expr, "and" if wanted else "or"))
        spans = place.parts if len(place.parts) == len(found) else (place.whole,) * len(found)
        parts += [Part(expr, wanted, span) for expr, span in zip(found, spans, strict=True)]
    return tuple(parts)


def _flat(expr: pst.Expr, operator: str) -> Iterator[pst.Expr]:
    """What the operator joins; the tree is at most 100 deep."""
    if isinstance(expr, pst.BinaryOp) and expr.op == operator:
        yield from _flat(expr.left, operator)
        yield from _flat(expr.right, operator)
    else:
        yield expr


def _behind_annotations(tokens: Sequence[Token]) -> int:
    at = 0
    while tokens[at].text == "@":
        at += 2
        if tokens[at].text == "(":
            at = _closing(tokens, at) + 1
    return at


def _clauses(tokens: Sequence[Token], at: int) -> Iterator[ClauseSpan]:
    while tokens[at].text in _CLAUSES:
        closed = _closing(tokens, at + 1)
        body = tokens[at + 2 : closed]
        parts = _parts(body, "&&" if tokens[at].text == "when" else "||")
        yield ClauseSpan(Span(tokens[at].start, tokens[closed].end), tuple(parts))
        at = closed + 1


def _parts(tokens: Sequence[Token], operator: str) -> Iterator[Span]:
    """As `_flat`: brackets around a whole expression are not in the tree."""
    inner = tokens
    while inner[0].text == "(" and _closing(inner, 0) == len(inner) - 1:
        inner = inner[1:-1]
    # `if` takes all that follows it, and a part with `||` in it is joined by that, not by `&&`
    whole = inner[0].text == "if" or (operator == "&&" and len(_split(inner, "||")) > 1)
    pieces = [inner] if whole else _split(inner, operator)
    if len(pieces) == 1:
        yield _span(tokens)
        return
    for piece in pieces:
        yield from _parts(piece, operator)


def _split(tokens: Sequence[Token], mark: str) -> list[Sequence[Token]]:
    """Cut at a mark that stands in no brackets."""
    pieces: list[Sequence[Token]] = []
    depth = begin = 0
    for at, token in enumerate(tokens):
        depth += (token.text in _OPEN) - (token.text in _CLOSE)
        if token.text == mark and depth == 0:
            pieces.append(tokens[begin:at])
            begin = at + 1
    if begin < len(tokens):
        pieces.append(tokens[begin:])
    return pieces


def _closing(tokens: Sequence[Token], opened: int) -> int:
    depth = 0
    for at in range(opened, len(tokens)):
        depth += (tokens[at].text in _OPEN) - (tokens[at].text in _CLOSE)
        if depth == 0:
            return at
    raise ValueError("brackets do not match")  # Cedar has parsed it


def _span(tokens: Sequence[Token]) -> Span:
    return Span(tokens[0].start, tokens[-1].end)
