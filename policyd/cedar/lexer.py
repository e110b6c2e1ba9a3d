"""Cedar text cut into statements, each with its place: Cedar's own parser tells no positions.

Law: nothing is understood here but strings, comments, brackets and semicolons; Cedar parses whatever is cut.
Statements that could exhaust the parser's stack, which would end the process, are told apart before Cedar
sees them.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

MAX_POLICY_CHARACTERS = 64 << 10
MAX_NESTING = 100  # brackets in brackets; what Cedar's typed tree bears
MAX_OPERATORS = 500  # in one statement; Cedar's parser recurses along chains and ends the process above 1,000

_TOKEN = re.compile(
    r"""(?P<space>[^\S\x1c-\x1f]+|//[^\r\n]*)  # as in Cedar: Unicode's white space; a lone \r ends a comment
      |"[^"\\]*(?:\\.[^"\\]*)*"?  # one without an end takes the rest, so that a text is looked at once
      |[A-Za-z_][A-Za-z0-9_]*|[0-9]+
      |::|&&|\|\||==|!=|<=|>=
      |.""",
    re.VERBOSE | re.DOTALL,
)
_PIECE = re.compile(  # runs of the same tokens, for what needs their semicolons only
    r"""(?P<space>[^\S\x1c-\x1f]+|//[^\r\n]*)|"[^"\\]*(?:\\.[^"\\]*)*"?|(?P<end>;)|[^\s"/;]+|.""", re.DOTALL
)
_OPEN = "([{"
_CLOSE = ")]}"
_DEEPENS = frozenset(
    {
        "&&",
        "||",
        "==",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "+",
        "-",
        "*",
        "!",
        ".",
        "[",
        "if",
        "in",
        "like",
        "has",
        "is",
    }
)


class Token(NamedTuple):
    """One word, string or mark; `start` and `end` are offsets into the file's text."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a file's text: from its first token to behind its last, a semicolon unless the file ended
    before it.
    """

    file_text: str
    start: int
    end: int

    @property
    def text(self) -> str:
        """What is written, comments in it too."""
        return self.file_text[self.start : self.end]

    def tokens(self) -> list[Token]:
        """Its tokens, at least one, by their places in the file."""
        return list(tokens_of(self.file_text, self.start, self.end))

    def excess(self) -> str | None:
        """What in it is too much for Cedar's parser, or for people; None where nothing is."""
        text = self.text
        if len(text) > MAX_POLICY_CHARACTERS:
            return f"a policy has over {MAX_POLICY_CHARACTERS} characters"
        if len(text) <= MAX_OPERATORS and sum(map(text.count, _OPEN)) <= MAX_NESTING:
            return None  # it has not even the characters for it
        depth = deepest = 0
        tokens = self.tokens()
        for token in tokens:
            if token.text in _OPEN:
                depth += 1
                deepest = max(deepest, depth)
            elif token.text in _CLOSE:
                depth -= 1
        if deepest > MAX_NESTING:
            return f"brackets are nested over {MAX_NESTING} deep"
        if sum(token.text in _DEEPENS for token in tokens) > MAX_OPERATORS:
            return f"a policy has over {MAX_OPERATORS} operators"
        return None


def tokens_of(text: str, start: int = 0, end: int | None = None) -> Iterator[Token]:
    """Every token but white space and comments; a character that starts no token is one by itself."""
    for match in _TOKEN.finditer(text, start, len(text) if end is None else end):
        if match.lastgroup != "space":
            yield Token(match.group(), match.start(), match.end())


def statements_of(text: str) -> list[Statement]:
    """Cut a file at its semicolons: in Cedar they end a policy and stand nowhere else outside strings."""
    statements: list[Statement] = []
    start = end = -1
    for match in _PIECE.finditer(text):
        if match.lastgroup == "space":
            continue
        end = match.end()
        if start < 0:
            start = match.start()
        if match.lastgroup == "end":
            statements.append(Statement(text, start, end))
            start = -1
    if start >= 0:
        statements.append(Statement(text, start, end))
    return statements


class Lines:
    """Where the lines of a text begin, for many questions about one text."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, offset: int) -> tuple[int, int]:
        """The line and column, both from 1, of an offset."""
        line = bisect.bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1
