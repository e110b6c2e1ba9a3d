"""Policies as they are written, in pieces with a colour each, and marks on what matters.

Law: pure, and it loses nothing: the pieces together are the text. A mark is a place with words; where two overlap the
first one stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from policyd.cedar.lexer import Token, tokens_of
from policyd.cedar.policies import Policy
from policyd.policy.nearest import ClauseMiss, NearMiss, conditions_of
from policyd.policy.outline import Span, outline_of

Tone = Literal["failed", "met"]

_EFFECTS: Final = frozenset({"permit", "forbid"})
_WORDS: Final = frozenset({"when", "unless", "if", "then", "else", "in", "is", "has", "like", "true", "false"})
_VARIABLES: Final = frozenset({"principal", "action", "resource", "context"})


class Mark(NamedTuple):
    """A place in a policy's text that is `failed` or `met`, and what is to be said of it."""

    span: Span
    tone: Tone
    words: str


class Piece(NamedTuple):
    """A text of one colour, within one line; `tone` is that of the mark that it is in."""

    text: str
    kind: str
    tone: str = ""
    words: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file."""

    number: int
    pieces: tuple[Piece, ...]

    @property
    def is_marked(self) -> bool:
        """Whether something in it failed."""
        return any(piece.tone == "failed" for piece in self.pieces)


def lines_of(text: str, first: int = 1, marks: Sequence[Mark] = ()) -> list[Line]:
    """Cut a text into lines of pieces; `first` is the number of its first line."""
    lines: list[list[Piece]] = [[]]
    for piece in _pieces(text, marks):
        for at, part in enumerate(piece.text.split("\n")):
            if at:
                lines.append([])
            if part:
                lines[-1].append(piece._replace(text=part))
    return [Line(first + at, tuple(pieces)) for at, pieces in enumerate(lines)]


def of_miss(miss: NearMiss) -> list[Line]:
    """A policy that did not apply, with what kept it from applying marked."""
    policy = miss.policy
    outline = outline_of(policy.text)
    marks = [
        Mark(getattr(outline, one.part), "failed", f"{one.part} {one.wants}: it is {one.has}") for one in miss.scope
    ]
    marks += [Mark(span, "failed", _says(failed)) for failed in miss.failed for span in _spans(policy, failed)]
    return lines_of(policy.text, policy.line, marks)


def of_reason(policy: Policy, met: Sequence[ClauseMiss]) -> list[Line]:
    """A policy that applied, with the conditions that it was for marked."""
    marks = [Mark(span, "met", _says(one)) for one in met for span in _spans(policy, one)]
    return lines_of(policy.text, policy.line, marks)


def _says(one: ClauseMiss) -> str:
    seen = f" ({', '.join(map(str, one.seen))})" if one.seen else ""
    return f"is {one.got}{seen}"


def _spans(policy: Policy, failed: ClauseMiss) -> Iterator[Span]:
    """Where a part of a condition stands: the same node of the tree, else the same words."""
    for part in conditions_of(policy):
        if part.expr is failed.expr or part.expr == failed.expr:
            yield part.span
            return


def _pieces(text: str, marks: Sequence[Mark]) -> Iterator[Piece]:
    """The whole text, cut where the colour or the mark changes."""
    cuts = sorted({0, len(text), *(edge for mark in marks for edge in mark.span if 0 <= edge <= len(text))})
    for piece, start in _coloured(text):
        end = start + len(piece.text)
        edges = [start, *(cut for cut in cuts if start < cut < end), end]
        for left, right in pairwise(edges):
            mark = next((one for one in marks if one.span.start <= left and right <= one.span.end), None)
            tone, words = (mark.tone, mark.words) if mark else ("", "")
            yield Piece(text[left:right], piece.kind, tone, words)


def _coloured(text: str) -> Iterator[tuple[Piece, int]]:
    behind = 0
    tokens = list(tokens_of(text))
    for at, token in enumerate(tokens):
        if token.start > behind:
            yield _between(text[behind : token.start]), behind
        yield Piece(token.text, _kind(token, tokens[at - 1] if at else None)), token.start
        behind = token.end
    if behind < len(text):
        yield _between(text[behind:]), behind


def _between(text: str) -> Piece:
    return Piece(text, "comment" if text.strip() else "")


def _kind(token: Token, before: Token | None) -> str:
    text = token.text
    if text.startswith('"'):
        return "string"
    if text.isdigit():
        return "number"
    if before is not None and before.text == "@":
        return "annotation"
    if text == "@":
        return "annotation"
    if before is not None and before.text == ".":
        return "attribute"
    if text in _EFFECTS:
        return f"effect {text}"
    if text in _WORDS:
        return "keyword"
    if text in _VARIABLES:
        return "variable"
    return "type" if text[:1].isupper() else ""
