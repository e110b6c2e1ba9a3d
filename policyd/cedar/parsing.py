"""Statements to trees: many at a time, and one by one only where something is wrong with one of many.

Law: a policy has its own statement's place. Cedar numbers the policies of a text in their order, and each statement
ends with its one semicolon, so the trees of many belong to their statements wherever there are as many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cedarpy
from cedarpy import pst

from policyd.cedar.lexer import Lines, Statement, statements_of
from policyd.cedar.syntax import MISSING_END, explain_syntax, misplaced
from policyd.errors import Problem

_AT_ONCE: Final = 64  # Cedar keeps the interpreter to itself meanwhile: 10 ms, in which nothing else is decided


@dataclass(frozen=True, slots=True)
class Source:
    """One statement of a file with its text, where it starts, and what in it is too much to be parsed."""

    file: str
    statement: Statement
    lines: Lines
    line: int
    column: int
    text: str
    excess: str | None

    def problem(self, code: str, message: str, remedy: str) -> Problem:
        """Something wrong with all of it."""
        return Problem(code, message, self.file, self.line, self.column, remedy)


def sources_of(name: str, text: str) -> Iterator[Source]:
    """Every statement of a file."""
    lines = Lines(text)
    for statement in statements_of(text):
        yield Source(name, statement, lines, *lines.place(statement.start), statement.text, statement.excess())


def read_all(sources: Sequence[Source]) -> Iterator[pst.Template | Problem]:
    """Each source as a tree, or what is wrong with it."""
    for start in range(0, len(sources), _AT_ONCE):
        chunk = sources[start : start + _AT_ONCE]
        yield from _read_together(chunk) or map(_read, chunk)


def _read_together(sources: Sequence[Source]) -> list[pst.Template] | None:
    """The trees of all these; None where not every one is a policy by itself."""
    texts = [source.text for source in sources if source.excess is None and source.text.endswith(";")]
    if len(texts) < len(sources):
        return None
    try:
        parsed = cedarpy.policies_to_pst("\n".join(texts))
    except ValueError:
        return None
    if parsed.templates or len(parsed.static_policies) != len(texts):
        return None
    return [parsed.static_policies[f"policy{number}"] for number in range(len(texts))]


def _read(source: Source) -> pst.Template | Problem:
    """One statement by itself."""
    if source.excess is not None:
        return source.problem("policy_bounds", source.excess, "split the policy, or use a Group")
    try:
        parsed = cedarpy.policies_to_pst(source.text)
    except ValueError as error:
        offset = misplaced(source.statement.file_text, source.statement, str(error))
        message, remedy = explain_syntax(str(error), source.statement.file_text, offset)
        return Problem("policy_syntax", message, source.file, *source.lines.place(offset), remedy)
    if parsed.templates:
        remedy = 'declare a Group in groups.yaml and write `principal in Group::"…"`'
        return source.problem("policy_template", "templates are not supported", remedy)
    if not parsed.static_policies:
        return source.problem("policy_syntax", "a semicolon without a policy", MISSING_END)
    return next(iter(parsed.static_policies.values()))
