"""Policy files in Cedar's own format, statement by statement; what stands between statements stays as it is written.

Law: nothing is lost. The same policies, and the same comments in the same order, or the file is refused.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from typing import Final

import cedarpy
from cedarpy import pst

from policyd.cedar.parsing import Source, read_all, sources_of
from policyd.cedar.policies import MAX_FILE_BYTES
from policyd.errors import InvalidInput, Problem

WIDTH: Final = 100  # columns; SPIFFE IDs leave little of 80
INDENT: Final = 2

_LINE_END = re.compile(r'(?P<kept>"(?:[^"\\]|\\.)*"|//[^\r\n]*)|\r\n?', re.DOTALL)
_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*"|(?P<comment>//[^\n]*)', re.DOTALL)


def formatted(text: str, file: str) -> str:
    """Return the text of a policy file, formatted; raises InvalidInput for what does not parse, is too deep for the
    formatter, or would lose a comment.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_FILE_BYTES:
        raise InvalidInput([Problem("policy_bounds", f"a policy file has at most {MAX_FILE_BYTES} bytes", file)])
    text = _LINE_END.sub(lambda match: match["kept"] or "\n", text)
    sources = list(sources_of(file, text))
    problems: list[Problem] = []
    pieces: list[str] = []
    at = 0
    # what would end the process in the formatter, as in the parser, is a Problem of reading already
    for source, tree in zip(sources, read_all(sources), strict=True):
        pieces.append(_between(text[at : source.statement.start], after=bool(pieces)))
        made = tree if isinstance(tree, Problem) else _statement(source, tree)
        if isinstance(made, Problem):
            problems.append(made)
        else:
            pieces.append(made)
        at = source.statement.end
    if problems:
        raise InvalidInput(problems)
    whole = "".join([*pieces, _between(text[at:], after=bool(pieces))]).rstrip("\n")
    return f"{whole}\n" if whole else ""


def difference(before: str, after: str, file: str) -> str:
    """Return a unified diff, empty where nothing is different."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    found = difflib.unified_diff(old, new, file, f"{file} (formatted)")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ no newline at the end\n" for line in found)


def _statement(source: Source, tree: pst.Template) -> str | Problem:
    text = source.statement.text
    try:
        made = cedarpy.format_policies(text, line_width=WIDTH, indent_width=INDENT).strip("\n")
        kept = _meaning(next(iter(cedarpy.policies_to_pst(made).static_policies.values()))) == _meaning(tree)
    except (ValueError, StopIteration):
        kept, made = False, ""
    if kept and _comments(made) == _comments(text):
        return made
    remedy = "put its comments on lines of their own, in front of the policy or of a condition"
    return source.problem("policy_format", "the formatter would lose a part of this policy", remedy)


def _between(gap: str, *, after: bool) -> str:
    """What stands in front of a statement, or behind the last: its comments, at most one blank line between them.

    `after` a statement, a comment on its line stays there, and a blank line follows.
    """
    behind, _, rest = gap.partition("\n") if after else ("", "", gap)
    comments = "\n".join(line.strip() for line in rest.split("\n"))
    comments = re.sub(r"\n{3,}", "\n\n", comments).lstrip("\n")
    head = f" {behind.strip()}".rstrip() + "\n\n" if after else ""
    return head + comments


def _meaning(tree: pst.Template) -> object:
    """What must stay: all but Cedar's name for the policy; annotations in their order."""
    return replace(tree, id=""), tuple(tree.annotations.items())


def _comments(source: str) -> list[str]:
    return [match["comment"].rstrip() for match in _COMMENT.finditer(source) if match["comment"]]
