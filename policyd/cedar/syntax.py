"""Cedar's syntax errors with their place and a word on what to do.

Law: a position is computed, not guessed: the shortest prefix that Cedar's parser refuses for a token ends
with that token, or just behind it (the parser skips tokens to recover), and its error names the token.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence

import cedarpy

from policyd.cedar.lexer import Statement, Token

MISSING_END = "end each policy with one `;`"

_END = "unexpected end of input"
_PLACED = ("unexpected token", "invalid token")
_TOO_DEEP = "nesting exceeds"
_SCOPE = "a scope is `principal, action, resource`, in this order, with commas"
_REMEDIES = (
    (_END, MISSING_END),
    ("'=' is not a valid operator", "write `==` to compare"),
    ("found literal", 'write the type too, as in `Action::"GET"` or `Service::"reviews.default"`'),
    ("found name", 'put the name in quotes, as in `Action::"GET"`'),
    ("is not a valid method", 'compare texts with `==` or `like "/a/*"`, in which `*` stands for any text'),
    ("invalid policy condition", "write `when` or `unless`"),
    ("where the variable", _SCOPE),
    ("variable in the scope", _SCOPE),
    ("unexpected token `principal`", _SCOPE),
    ("unexpected token `action`", _SCOPE),
    ("unexpected token `resource`", _SCOPE),
    ("unexpected token `@`", "annotations stand before `permit` or `forbid`, behind the `;` of the policy before"),
    ("unexpected token `and`", "write `&&`"),
    ("unexpected token `or`", "write `||`"),
    ("unexpected token `not`", "write `!`"),
    (
        "found set of entity uids",
        'several callers are a Group: declare it in groups.yaml and write `in Group::"…"`',
    ),
    ("invalid policy effect", "a policy starts with `permit` or `forbid`"),
    ("duplicate annotation", "write each annotation once"),
    (_TOO_DEEP, "split the policy"),
)
_STRAY = {"'": "texts stand in double quotes", "#": "a comment starts with `//`"}
_WORD = re.compile(
    r"found (?:literal|name) `(.+)`|^'(.+)' is not a valid operator|invalid policy (?:effect|condition): (\w+)"
    r"|^`(\w+)` is not a valid method|found the variable `(\w+)`"
)


def misplaced(text: str, statement: Statement, error: str) -> int:
    """The offset of the wrong token; of the statement where the error is about all of it."""
    tokens = statement.tokens()
    if error.startswith(_END):
        return tokens[-1].start
    if not error.startswith(_PLACED):
        return _named(tokens, error)

    wrong = bisect.bisect_left(
        range(len(tokens)),
        True,
        key=lambda count: _refusal(text[statement.start : tokens[count].end]) is not None,
    )
    wrong = min(wrong, len(tokens) - 1)
    named = _refusal(text[statement.start : tokens[wrong].end])
    return next((one.start for one in reversed(tokens[: wrong + 1]) if f"`{one.text}`" == named), tokens[wrong].start)


def _named(tokens: Sequence[Token], error: str) -> int:
    """The offset of the word that an error about a whole statement names, else that of the statement."""
    found = _WORD.search(error)
    word = next((one for one in found.groups() if one), "") if found else ""
    typed, name = "::" in word, word.rpartition("::")[2]
    places = (at for at, one in enumerate(tokens) if one.text == name and _is_typed(tokens, at) is typed)
    return tokens[next(places, 0)].start


def _is_typed(tokens: Sequence[Token], at: int) -> bool:
    return at > 0 and tokens[at - 1].text == "::"


def explain_syntax(error: str, text: str, offset: int) -> tuple[str, str]:
    """The message and the remedy; the message shows the line's text from `offset`."""
    message = error.removeprefix("cedarpy: ")
    remedy = next((words for part, words in _REMEDIES if part in error), "")
    if error.startswith("invalid token"):
        remedy = remedy or _STRAY.get(text[offset : offset + 1], "")
    if error.startswith(_PLACED):
        message += f" at `{text[offset:].splitlines()[0][:40].rstrip()}`"
    return message, remedy


def _refusal(prefix: str) -> str | None:
    """What Cedar names as wrong in a prefix, in backticks where it is a token; None where nothing is wrong so
    far.
    """
    try:
        cedarpy.PolicySet.from_str(prefix)
    except ValueError as error:
        message = str(error)
        return next((message.removeprefix(f"{kind} ") for kind in _PLACED if message.startswith(kind)), None)
    return None
