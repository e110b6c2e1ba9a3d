"""Texts and `like` patterns as expressions of RE2, over the bytes that the proxy has where policyd decides.

Law: the bytes of one value and no other. A path is compared as policyd sees it, with each escape that it decodes
decoded, though the proxy still has the escape; so in front of these expressions stand those of what has no such form
(`UNACCEPTABLE_PATH`). Envoy itself has decoded letters, digits, `-`, `.`, `_` and `~` (normalize_path).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from policyd.authz.path import MAX_PATH_BYTES
from policyd.errors import NotCompilable

ANY_BYTES: Final = r"\C*"  # of whatever encoding

_HEX: Final = "0123456789ABCDEF"
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_DELIMITERS: Final = frozenset("!$&'()*+,=:@")  # policyd decodes their escapes, Envoy does not
# escapes that stay escapes: all but of controls, of what is decoded, of slashes and backslashes
_STAYS: Final = tuple(
    f"{value:02X}"
    for value in range(0x20, 0x100)
    if chr(value) not in _UNRESERVED | _DELIMITERS and value not in (0x2F, 0x5C, 0x7F)
)
_DECODED: Final = tuple(f"{ord(one):02X}" for one in sorted(_UNRESERVED))
_QUERY: Final = r"(?:\?.*)?"
_PATH_WILD: Final = "(?:[^%?]|%..)*"  # whole escapes only
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


def quoted(text: str) -> str:
    """An ASCII text as an expression."""
    return "".join(one if one.isalnum() or one in "/_-" else f"\\x{ord(one):02x}" for one in text)


def digits(values: Sequence[str]) -> str:
    """Escapes with one of these values, in upper or lower case."""
    seconds: dict[str, str] = {}
    for value in values:
        seconds[value[0]] = seconds.get(value[0], "") + value[1]
    firsts: dict[str, str] = {}
    for first, second in seconds.items():
        firsts[second] = firsts.get(second, "") + first
    return "%(?:" + "|".join(_one_of(first) + _one_of(second) for second, first in firsts.items()) + ")"


def _one_of(hexadecimal: str) -> str:
    both = sorted({*hexadecimal, *hexadecimal.lower()})
    return both[0] if len(both) == 1 else f"[{''.join(both)}]"


# ---- paths


def path_expression(pieces: Sequence[str]) -> str | None:
    """Of targets whose canonical path is these pieces with anything between them; None: of none.

    Raises NotCompilable where two pieces might lie in one escape.
    """
    # wildcards in a row are one: with nothing between them it would be hidden which two pieces may meet
    pieces = [*pieces[:1], *filter(None, pieces[1:-1]), *pieces[1:][-1:]]
    last = len(pieces) - 1
    made: list[str] = []
    for at, piece in enumerate(pieces):
        _check_divided(piece, pieces[at + 1] if at < last else "", first=at == 0)
        found = _piece(piece, behind_wild=at > 0, before_wild=at < last)
        if found is None:
            return None
        made.append(found)
    return _PATH_WILD.join(made) + _QUERY


def _check_divided(piece: str, following: str, *, first: bool) -> None:
    ends_inside = re.search(r"%[0-9A-F]?$", piece) or (not first and re.fullmatch("[0-9A-F]", piece))
    if ends_inside and following[:1] in _HEX and following:
        raise NotCompilable("a pattern that may divide an escape")


def _piece(piece: str, *, behind_wild: bool, before_wild: bool) -> str | None:
    """One piece, which may begin or end inside an escape where anything is next to it."""
    ways = [_aligned(piece, before_wild)]
    if behind_wild and piece and piece[0] in _HEX:
        ways.append(_after(_escape("", piece[0]), _aligned(piece[1:], before_wild)))
        if len(piece) > 1 and piece[1] in _HEX:
            ways.append(_after(_escape(piece[0], piece[1]), _aligned(piece[2:], before_wild)))
        elif len(piece) == 1 and before_wild:
            ways.append(_escape(piece, ""))
    found = [one for one in ways if one is not None]
    return f"(?:{'|'.join(found)})" if len(found) > 1 else next(iter(found), None)


def _after(first: str | None, second: str | None) -> str | None:
    return None if first is None or second is None else first + second


def _aligned(text: str, before_wild: bool) -> str | None:
    """A text that begins where no escape is under way."""
    made, at = "", 0
    while at < len(text):
        one = text[at]
        if one == "%":
            value = text[at + 1 : at + 3]
            if not set(value) <= set(_HEX) or (len(value) < 2 and not before_wild):
                return None
            escape = _escape(value[:1], value[1:])
            if escape is None:
                return None
            made, at = made + escape, at + 3
            continue
        if one in _DELIMITERS:
            made += f"(?:{quoted(one)}|{digits((f'{ord(one):02X}',))})"
        elif one == "/" or one in _UNRESERVED:
            made += quoted(one)
        else:
            return None  # stands in no canonical path
        at += 1
    return made


def _escape(first: str, second: str) -> str | None:
    """An escape that stays one, with these digits ("": any)."""
    values = [one for one in _STAYS if one.startswith(first) and one.endswith(second)]
    return digits(values) if values else None


def segments_expression(least: int, most: int) -> str:
    """Of targets with so many slashes in their path."""
    return f"(?:[^/?]*/){{{least},{most}}}[^/?]*{_QUERY}"


_SEGMENT: Final = f"(?:[A-Za-z0-9._~!$&'()*+,=:@-]|{digits((*_STAYS, *(f'{ord(one):02X}' for one in _DELIMITERS)))})+"
ACCEPTABLE_PATH: Final = rf"/(?:{_SEGMENT}(?:/{_SEGMENT})*/?)?(?:\?[\x21\x22\x24-\x7e]*)?"
_PLAIN: Final = "/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*"
# acceptable ones that have no escape, and no segment that begins with a dot
PLAIN_PATH: Final = rf"(?:/|(?:{_PLAIN})+/?)(?:\?[\x21\x22\x24-\x7e]*)?"
_DIGIT: Final = "(?:[0-9a-fA-F]|%3[0-9]|%[46][1-6])"
UNACCEPTABLE_PATH: Final = (  # each with a text that it has, which is looked for first
    ("%25", rf"[^?]*%25{_DIGIT}{_DIGIT}.*"),  # escaped twice
    ("/.", r"[^?]*/\.\.?(?:[/?].*)?"),  # dot segments
    ("%", f"[^?]*{digits(_DECODED)}.*"),  # Envoy was not asked to normalise
)
TOO_LONG_PATH: Final = "[^?]{1000}" * (MAX_PATH_BYTES // 1000) + f"[^?]{{{MAX_PATH_BYTES % 1000 + 1}}}.*"


# ---- other texts


def text_expression(pieces: Sequence[str], wild: str = ANY_BYTES) -> str:
    """Of texts that are these pieces with anything between them; the pieces are ASCII."""
    return wild.join(map(quoted, pieces))


def host_expressions(pieces: Sequence[str]) -> tuple[str, str] | None:
    """Of the Host header in any case: without a port, and with one. None: of no host."""
    if any(one != one.lower() or not re.fullmatch(r"[\x21-\x7e]*", one) for one in pieces):
        return None
    folded = ("".join(f"[{one}{one.upper()}]" if one.isalpha() else quoted(one) for one in piece) for piece in pieces)
    host = ".*".join(folded)
    return host, f"{host}:[0-9]*"


_LABEL: Final = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
HOST_NAME: Final = rf"(?:{_LABEL}\.)*{_LABEL}"  # as mesh.matching.check_host takes it, but for its length
PLAIN_NAME: Final = "[a-z0-9._-]{0,253}"  # what may be one, "" for none; of addresses of IPv6 policyd decides
HAS_PORT: Final = ".*:[0-9]*"
NAME_OF_TUNNEL: Final = r"(?:[^:]*[^:.])?(?::[0-9]*)?|\[.*"  # with its port, as authz.request.name_served takes it
USABLE_HOST: Final = r"[\x21-\x7e]{1,260}"
USABLE_METHOD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}"
