"""The claims of a verified token as policies see them: names to sets of texts, the tags of `context.user`.

Law: every value has exactly one form, and what has none is refused, never left to chance:

    "alice"                       {"alice"}           text is itself
    "read write" (scope)          {"read", "write"}   words, where the rule or custom says so
    42, 42.0, 1.5                 {"42"}, {"1.5"}     numbers as JSON has them at their shortest
    true                          {"true"}
    ["a", 1, [2], {"b": 3}]       {"a", "1"}          a list is the set of its texts, numbers and booleans
    {"inner": {"deep": "x"}}      inner.deep: {"x"}   an object's members are claims of their own
    null, {}, in a list too       no claim
    9007199254740993              refused             beyond 2^53 a proxy cannot tell it from its neighbours
    {"a.b": …, "a": {"b": …}}     refused             one name for two claims
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from policyd.errors import UnacceptableToken

MAX_CLAIMS: Final = 256
MAX_VALUES: Final = 1024  # of one claim
MAX_DEPTH: Final = 8
MAX_TEXT: Final = 8192  # characters of a name or a value
EXACT: Final = 1 << 53


def claims_of(payload: Mapping[str, Any], split: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """The claims of a token's payload, each a sorted set; raises UnacceptableToken.

    `split` names the claims whose text is words with spaces between them.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, value in _flat(payload, "", 0):
        if name in found:
            raise UnacceptableToken(f"the claim `{name[:80]}` is there twice, by itself and inside another")
        if len(found) == MAX_CLAIMS:
            raise UnacceptableToken(f"a token has at most {MAX_CLAIMS} claims")
        texts = value.split() if name in split and isinstance(value, str) else _texts(name, value)
        if len(texts) > MAX_VALUES or max(map(len, (name, *texts))) > MAX_TEXT:
            raise UnacceptableToken(f"a claim has at most {MAX_VALUES} values of {MAX_TEXT} characters")
        found[name] = tuple(sorted(set(texts)))
    return found


def _flat(members: Mapping[str, Any], above: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Every claim by its whole name."""
    if depth > MAX_DEPTH:
        raise UnacceptableToken(f"claims are at most {MAX_DEPTH} deep")
    for name, value in members.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.", depth + 1)
        elif value is not None:
            yield f"{above}{name}", value


def _texts(name: str, value: Any) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    return [_text(name, one) for one in values if isinstance(one, str | int | float)]


def number_of(text: str) -> float | None:
    """The number that policies see as this text, if it is that of one."""
    try:
        number = float(text)
        return number if abs(number) < EXACT and _text("", number) == text else None
    except ValueError:
        return None


def _text(name: str, value: str | float) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if abs(value) >= EXACT:
        message = f"the claim `{name[:80]}` is a number beyond 2^53"
        raise UnacceptableToken(message, remedy="have its issuer write it as text")
    return str(int(value)) if value == int(value) else repr(value)
