"""Cedar expressions as values: built from parts, simplified where a part is always or never true, written once.

Law: `text` stands for exactly one boolean expression; who joins expressions never has to think of brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from policyd.cedar.model import Uid

_PLAIN = re.compile(r"[\x20-\x7e]")


@dataclass(frozen=True, slots=True)
class Test:
    """A boolean expression; `binds` says what holds it together, `opposite` is a nicer text than `!(…)`."""

    text: str
    binds: Literal["atom", "and", "or"] = "atom"
    opposite: str = ""


TRUE: Final = Test("true")
FALSE: Final = Test("false")


def both(tests: Iterable[Test]) -> Test:
    """All of them hold; of none, true."""
    parts = _distinct(tests, TRUE)
    if FALSE in parts:
        return FALSE
    if len(parts) < 2:
        return parts[0] if parts else TRUE
    return Test(" && ".join(f"({one.text})" if one.binds == "or" else one.text for one in parts), "and")


def either(tests: Iterable[Test]) -> Test:
    """One of them holds; of none, false."""
    parts = _distinct(tests, FALSE)
    if TRUE in parts:
        return TRUE
    if len(parts) < 2:
        return parts[0] if parts else FALSE
    return Test(" || ".join(f"({one.text})" if one.binds == "and" else one.text for one in parts), "or")


def negated(test: Test) -> Test:
    """It does not hold."""
    if test in (TRUE, FALSE):
        return TRUE if test == FALSE else FALSE
    return Test(test.opposite or f"!({test.text})", opposite=test.text if test.opposite else "")


def _distinct(tests: Iterable[Test], neutral: Test) -> Sequence[Test]:
    return [one for one in dict.fromkeys(tests) if one != neutral]


# ---- what tests are made of


def quoted(text: str) -> str:
    """Return a string literal; what is not plain ASCII is escaped, so that what one sees is what is compared."""
    return f'"{"".join(_escaped(character) for character in text)}"'


def _escaped(character: str) -> str:
    if character in '\\"':
        return f"\\{character}"
    return character if _PLAIN.fullmatch(character) else f"\\u{{{ord(character):x}}}"


def like(attribute: str, *parts: str) -> Test:
    """`attribute` is these texts with anything between each two: ("a", "") starts with a, ("", "a") ends so."""
    pattern = "*".join(quoted(part)[1:-1].replace("*", "\\*") for part in parts)
    return Test(f'{attribute} like "{pattern}"')


def equal(attribute: str, values: Sequence[str]) -> Test:
    """`attribute` is one of these texts; of none, false."""
    distinct = list(dict.fromkeys(values))
    if not distinct:
        return FALSE
    if len(distinct) == 1:
        return Test(f"{attribute} == {quoted(distinct[0])}", opposite=f"{attribute} != {quoted(distinct[0])}")
    return Test(f"[{', '.join(map(quoted, distinct))}].contains({attribute})")


def entity(kind: str, id_: str) -> str:
    """Return the literal of an entity."""
    return f"{kind}::{quoted(Uid(kind, id_).id)}"
