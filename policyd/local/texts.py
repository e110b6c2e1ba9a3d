"""Texts of a request compared with those that policies have: `==` and `like`, for each field as policyd sees it.

Law: the proxy compares bytes; where policyd is shown others, they are the same here, or NotCompilable says why not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from policyd.errors import NotCompilable
from policyd.local import expressions
from policyd.local.logic import (
    CALLER,
    HOST,
    METHOD,
    NO,
    PATH,
    YES,
    Affix,
    Atom,
    Field,
    Formula,
    OfUser,
    OneOf,
    Pattern,
    every,
    negated,
    some,
)
from policyd.local.values import Text, Value
from policyd.names import SNI_HEADER

# of the tunnels of gateways, which say what their clients asked for; an empty name is none
NAME_SAID: Final = Atom(SNI_HEADER, Pattern(r"\C+"), "a gateway says a name")
NO_HOST: Final = Atom(HOST, Pattern(":[0-9]*"), "nothing but a port")
_NAME: Final = re.compile(r"[a-zA-Z0-9._-]+")  # a segment of a SPIFFE ID


def like(value: Value, pieces: Sequence[str]) -> Formula:
    """Cedar's `like`: these pieces with anything between them."""
    if isinstance(value, str):
        pattern = ".*".join(map(re.escape, pieces))
        return YES if re.fullmatch(pattern, value, re.DOTALL) else NO
    if not isinstance(value, Text):
        raise NotCompilable("a text that is not known beforehand")
    if len(pieces) == 1:
        return text_is(value, pieces[0])
    shown = "*".join(one.replace("*", "\\*") for one in pieces)
    words = f"{value.name} like {_shown(shown)}"
    if value.part:
        return _part(value, expressions.text_expression(_ascii(pieces), _wild_of(value)), words)
    match value.field:
        case ":path":
            return _pattern(PATH, expressions.path_expression(pieces), words)
        case ":authority":
            return _host(pieces, words)
        case ":method":
            return _pattern(METHOD, expressions.text_expression(_ascii(pieces)), words)
        case OfUser() as field:
            return _anywhere(field, pieces, words)
        case header:
            for piece in pieces:
                _check_replaced(header, piece)
            return _anywhere(header, pieces, words)


def text_is(text: Text, wanted: str) -> Formula:
    """Whether a text is this one."""
    words = f"{text.name} is {_shown(wanted)}"
    if text.part:
        return _part_is(text, wanted, words)
    match text.field:
        case ":path":
            return _pattern(PATH, expressions.path_expression([wanted]), words)
        case ":authority":
            return _host([wanted], words)
        case field:
            if isinstance(field, str):
                _check_replaced(field, wanted)
            return Atom(field, OneOf((wanted,)), words)


def _part_is(text: Text, wanted: str, words: str) -> Formula:
    prefix = f"spiffe://{text.domain}"
    if text.part == "path":
        return Atom(CALLER, OneOf((prefix + wanted,)), words) if wanted.startswith("/") else NO
    if not _NAME.fullmatch(wanted):
        return NO
    return _part(text, expressions.quoted(wanted), words)


def _part(text: Text, expression: str, words: str) -> Formula:
    prefix = expressions.quoted(f"spiffe://{text.domain}")
    account = {"namespace": (expression, "[^/]+"), "service_account": ("[^/]+", expression)}.get(text.part)
    path = expression if account is None else f"/ns/{account[0]}/sa/{account[1]}"
    return Atom(CALLER, Pattern(prefix + path), words)


def _wild_of(text: Text) -> str:
    return ".*" if text.part == "path" else "[^/]*"


def _pattern(field: Field, expression: str | None, words: str) -> Formula:
    return NO if expression is None else Atom(field, Pattern(expression), words)


def _host(pieces: Sequence[str], words: str) -> Formula:
    """A port at the end is no part of the host, so what has one is compared without it."""
    found = expressions.host_expressions(pieces)
    if found is None:
        return NO
    bare, with_port = found
    has_port = Atom(HOST, Pattern(expressions.HAS_PORT), "host with a port")
    without = every(negated(has_port), Atom(HOST, Pattern(bare), words)) if bare else NO  # no host is empty
    return some(without, Atom(HOST, Pattern(with_port), f"{words}, with a port"))


def _anywhere(name: Field, pieces: Sequence[str], words: str) -> Formula:
    first, *middle, last = pieces
    if not middle and not (first and last):
        return Atom(name, Affix("prefix", first) if first else Affix("suffix", last), words) if first or last else YES
    if len(middle) == 1 and not first and not last:
        return Atom(name, Affix("contains", middle[0]), words) if middle[0] else YES
    return Atom(name, Pattern(expressions.text_expression(_ascii(pieces))), words)


def _check_replaced(field: str, text: str) -> None:
    """Envoy shows policyd a `!` in the place of each byte that is no text, so both are the same to policies."""
    if "!" in text and field != METHOD:
        raise NotCompilable("a `!` in a header, which policies also see in the place of what is no text")


def _ascii(pieces: Sequence[str]) -> Sequence[str]:
    if not all(map(str.isascii, pieces)):
        raise NotCompilable("a pattern with letters beyond ASCII")
    return pieces


def _shown(text: str) -> str:
    return f'"{text}"'
