"""Cedar text cut into statements, each with its place: Cedar's own parser tells no positions.

Law: nothing is understood here but strings, comments, brackets and semicolons; Cedar parses whatever is cut.
Statements that could exhaust the parser's stack, which would end the process, are told apart before Cedar
sees them.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MAX_NESTING = 100  # brackets in brackets; what Cedar's typed tree bears
MAX_OPERATORS = 500  # in one statement; Cedar's parser recurses along chains and ends the process above 1,000

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+|//[^\n]*)
      |"(?:[^"\\]|\\.)*"
      |[A-Za-z_][A-Za-z0-9_]*|[0-9]+
      |::|&&|\|\||==|!=|<=|>=
      |.""",
    re.VERBOSE | re.DOTALL,
)
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
    """One statement of a file: its tokens, at least one, the last a semicolon unless the file ended before
    it.
    """

    tokens: Sequence[Token]

    @property
    def start(self) -> int:
        """The offset of its first token."""
        return self.tokens[0].start

    @property
    def end(self) -> int:
        """The offset behind its last token."""
        return self.tokens[-1].end

    def excess(self) -> str | None:
        """What in it is too deep for Cedar's parser, or None."""
        depth = deepest = 0
        for token in self.tokens:
            if token.text in ("(", "[", "{"):
                depth += 1
                deepest = max(deepest, depth)
            elif token.text in (")", "]", "}"):
                depth -= 1
        if deepest > MAX_NESTING:
            return f"brackets are nested over {MAX_NESTING} deep"
        if sum(token.text in _DEEPENS for token in self.tokens) > MAX_OPERATORS:
            return f"a policy has over {MAX_OPERATORS} operators"
        return None


def tokens_of(text: str) -> Iterator[Token]:
    """Every token but white space and comments; a character that starts no token is one by itself."""
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "space":
            yield Token(match.group(), match.start(), match.end())


def statements_of(text: str) -> list[Statement]:
    """Cut a file at its semicolons: in Cedar they end a policy and stand nowhere else outside strings."""
    statements: list[Statement] = []
    run: list[Token] = []
    for token in tokens_of(text):
        run.append(token)
        if token.text == ";":
            statements.append(Statement(tuple(run)))
            run = []
    if run:
        statements.append(Statement(tuple(run)))
    return statements


class Lines:
    """Where the lines of a text begin, for many questions about one text."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, offset: int) -> tuple[int, int]:
        """The line and column, both from 1, of an offset."""
        line = bisect.bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1
