"""Policy files in Cedar's own format, statement by statement; what stands between statements stays as it is written.

Law: nothing is lost. The same policies, and the same comments in the same order, or the file is refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import cedarpy

from policyd.cedar.lexer import Lines, Statement, statements_of
from policyd.cedar.policies import MAX_FILE_BYTES, MAX_POLICY_CHARACTERS
from policyd.cedar.syntax import explain_syntax, misplaced
from policyd.errors import InvalidInput, Problem

WIDTH: Final = 100  # columns; SPIFFE IDs leave little of 80
INDENT: Final = 2

_LINE_END = re.compile(r'(?P<kept>"(?:[^"\\]|\\.)*"|//[^\r\n]*)|\r\n', re.DOTALL)
_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*"|(?P<comment>//[^\n]*)', re.DOTALL)


def formatted(text: str, file: str) -> str:
    """Return the text of a policy file, formatted; raises InvalidInput for what does not parse, is too deep for the
    formatter, or would lose a comment.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_FILE_BYTES:
        raise InvalidInput([Problem("policy_bounds", f"a policy file has at most {MAX_FILE_BYTES} bytes", file)])
    text = _LINE_END.sub(lambda match: match["kept"] or "\n", text)
    lines = Lines(text)
    problems: list[Problem] = []
    pieces: list[str] = []
    at = 0
    for statement in statements_of(text):
        pieces.append(_between(text[at : statement.start], after=bool(pieces)))
        at = statement.end
        try:
            pieces.append(_statement(text, statement))
        except _Refused as error:
            problems.append(Problem(error.code, error.message, file, *lines.place(error.offset), error.remedy))
    if problems:
        raise InvalidInput(problems)
    pieces.append(_between(text[at:], after=bool(pieces)).rstrip("\n"))
    whole = "".join(pieces).rstrip("\n")
    return f"{whole}\n" if whole else ""


def difference(before: str, after: str, file: str) -> str:
    """Return a unified diff, empty where nothing is different."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    found = difflib.unified_diff(old, new, file, f"{file} (formatted)")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ no newline at the end\n" for line in found)


class _Refused(Exception):  # noqa: N818  (told as a Problem)
    def __init__(self, code: str, message: str, offset: int, remedy: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.offset, self.remedy = code, message, offset, remedy


def _statement(text: str, statement: Statement) -> str:
    source = text[statement.start : statement.end]
    excess = statement.excess()  # deeper than that would end the process in Cedar's parser
    if len(source) > MAX_POLICY_CHARACTERS:
        excess = f"a policy has over {MAX_POLICY_CHARACTERS} characters"
    if excess is not None:
        raise _Refused("policy_bounds", excess, statement.start, "split the policy")
    try:
        before = _trees(source)
    except ValueError as error:
        offset = misplaced(text, statement, str(error))
        message, remedy = explain_syntax(str(error), text, offset)
        raise _Refused("policy_syntax", message, offset, remedy) from None
    try:
        made = cedarpy.format_policies(source, line_width=WIDTH, indent_width=INDENT).strip("\n")
        kept = _trees(made) == before and _comments(made) == _comments(source)
    except ValueError:
        kept = False
    if not kept:
        remedy = "put its comments on lines of their own, in front of the policy or a condition"
        raise _Refused("policy_format", "the formatter would change this policy", statement.start, remedy)
    return made


def _between(gap: str, *, after: bool) -> str:
    """What stands in front of a statement, or behind the last: its comments, at most one blank line between them.

    `after` a statement, a comment on its line stays there, and a blank line follows.
    """
    behind, _, rest = gap.partition("\n") if after else ("", "", gap)
    comments = "\n".join(line.strip() for line in rest.split("\n"))
    comments = re.sub(r"\n{3,}", "\n\n", comments).lstrip("\n")
    head = f" {behind.strip()}".rstrip() + "\n\n" if after else ""
    return head + comments


def _trees(source: str) -> Sequence[Any]:
    """What a text means; Cedar's names for its policies do not count."""
    found = cedarpy.policies_to_pst(source)
    policies = (*found.static_policies.values(), *found.templates.values())
    return [(replace(one, id=""), tuple(one.annotations.items())) for one in policies]


def _comments(source: str) -> list[str]:
    return [match["comment"].rstrip() for match in _COMMENT.finditer(source) if match["comment"]]
