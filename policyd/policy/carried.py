"""Which texts are no path, no host and no address of any request: policies see them in one form only (authz.path).

Law: sound, never exact. What is given a reason here is never carried; of what is not understood nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network
from typing import Final

from cedarpy import pst

from policyd.cedar.syntax_tree import chain_of

_KEPT: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,=:@-]")  # what a segment bears as it is, `;` is up to the Service
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9._~!$&'()*+,=:@;/%-]")
_DOTS: Final = re.compile(r"/\.{1,2}(?=/)")
_LAST_DOTS: Final = re.compile(r"/\.{1,2}$")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_CAPITAL: Final = re.compile(r"[A-Z]")
_ADDRESSES: Final = frozenset({("context", "client_ip"), ("context", "source", "ip"), ("context", "destination", "ip")})


def why_never(expr: pst.Expr) -> str | None:
    """Why no request has what a comparison asks for, None where one may."""
    match expr:
        case pst.Like(base, pattern):
            return _why(base, pieces_of(pattern))
        case pst.BinaryOp("eq", pst.StringLit(text), base) | pst.BinaryOp("eq", base, pst.StringLit(text)):
            return _why(base, (text,))
        case pst.BinaryOp("eq", pst.UnaryOp("ip", pst.StringLit(text)), base):
            return _why_no_address(base, text)
        case pst.BinaryOp("eq", base, pst.UnaryOp("ip", pst.StringLit(text))):
            return _why_no_address(base, text)
        case _:
            return None


def pieces_of(pattern: tuple[pst.PatternElem, ...]) -> tuple[str, ...]:
    """The texts between the wildcards of a `like`: the first is how a text begins, the last how it ends."""
    pieces: list[str] = [""]
    for one in pattern:
        if isinstance(one, pst.Wildcard):
            pieces.append("")
        else:
            pieces[-1] += one.value
    return tuple(pieces)


def _why(base: pst.Expr, pieces: Sequence[str]) -> str | None:
    asked = _TEXTS.get(chain_of(base) or ())
    return asked(pieces) if asked else None


def _why_no_path(pieces: Sequence[str]) -> str | None:
    first, last = pieces[0], pieces[-1]
    if not first.startswith("/") and (first or len(pieces) == 1):
        return "every path starts with `/`"
    if _LAST_DOTS.search(last):
        return "no path has a dot segment, proxies resolve them"
    return next((why for piece in pieces if (why := _why_not_in_path(piece))), None)


def _why_not_in_path(piece: str) -> str | None:
    if "?" in piece:
        return "no path has a `?`, the query is no part of it"
    if found := _FOREIGN.search(piece):
        shown = repr(found[0])[1:-1]  # a line feed, say, as it is written
        regex = "; of patterns there is `*` alone" if found[0] in "[]{}^|\\" else ""
        return f"no path has a `{shown}` unless it is escaped{regex}"
    if "//" in piece:
        return "no path has `//`, proxies merge slashes"
    if _DOTS.search(piece):
        return "no path has a dot segment, proxies resolve them"
    for escape in _ESCAPE.finditer(piece):
        character = chr(int(escape[1], 16))
        if _KEPT.fullmatch(character):
            return f"`{escape[0]}` is decoded in paths, to `{character}`"
        if character < " " or character in "\x7f/\\":
            return f"no path has the escape `{escape[0]}`, it is refused"
        if escape[0] != escape[0].upper():
            return f"escapes in paths are in upper case, `{escape[0].upper()}`"
    return None


def _why_no_host(pieces: Sequence[str]) -> str | None:
    return "hosts are in lower case" if any(map(_CAPITAL.search, pieces)) else None


_TEXTS: Final[Mapping[tuple[str, ...], Callable[[Sequence[str]], str | None]]] = {
    ("context", "request", "path"): _why_no_path,
    ("context", "request", "host"): _why_no_host,
}


def _why_no_address(base: pst.Expr, text: str) -> str | None:
    """An address is equal to a range of one alone; Cedar has validated the text."""
    if chain_of(base) not in _ADDRESSES or "/" not in text or ip_network(text, strict=False).num_addresses == 1:
        return None
    return f'no address is a range, ask `isInRange(ip("{text}"))`'
