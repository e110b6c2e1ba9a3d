"""What expressions come to where a request is not known yet: values, and what of them a proxy can compare.

Law: two values compare as Cedar compares them; where the proxy cannot, NotCompilable says so.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from policyd.cedar.model import Uid
from policyd.errors import NotCompilable
from policyd.local import expressions
from policyd.local.logic import (
    CALLER,
    HOST,
    METHOD,
    NO,
    PATH,
    SOURCE,
    SOURCE_PORT,
    YES,
    Affix,
    Atom,
    Formula,
    OneOf,
    Pattern,
    Within,
    every,
    negated,
    some,
)

MAX_SEGMENTS: Final = 100  # that are counted
_NAME: Final = re.compile(r"[a-zA-Z0-9._-]+")  # a segment of a SPIFFE ID


class Unknown(Enum):
    """What only the request tells, besides texts; `FAILED` is the error that Cedar would meet."""

    CALLER = "principal"
    ACTION = "action"
    SEGMENTS = "context.request.segments"
    SOURCE = "context.source.ip"
    SOURCE_PORT = "context.source.port"
    HEADERS = "context.request.headers"
    FAILED = "an error"


@dataclass(frozen=True, slots=True)
class Text:
    """A text that the request has: a field, or part of the caller's identity; `name` as policies call it."""

    field: str
    name: str
    part: str = ""  # of the caller: path, namespace or service_account
    domain: str = ""  # the caller's trust domain


@dataclass(frozen=True, slots=True)
class Range:
    """One or more addresses: Cedar's ipaddr."""

    address: str
    length: int

    @classmethod
    def parse(cls, text: str) -> Range:
        """Parse what Cedar's `ip` takes; raises NotCompilable where Python and Cedar might not agree."""
        try:
            found = ipaddress.ip_interface(text)
        except ValueError:
            raise NotCompilable(f"the address `{text}`") from None
        return cls(str(found.ip), found.network.prefixlen)

    @property
    def network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """All of its addresses."""
        return ipaddress.ip_network(f"{self.address}/{self.length}", strict=False)

    @property
    def is_one(self) -> bool:
        """Whether it is one address."""
        return self.length == self.network.max_prefixlen


@dataclass(frozen=True, slots=True)
class Items:
    """A set of values."""

    values: tuple[Value, ...]


Value = bool | int | str | Uid | Text | Range | Items | Unknown
Case = tuple[Formula, Value]  # under which condition it is which value
Cases = Sequence[Case]  # one of them holds of every request

_FAMILIES: Final = {
    "is_ipv4": ("0.0.0.0/0",),
    "is_ipv6": ("::/0",),
    "is_loopback": ("127.0.0.0/8", "::1/128"),
    "is_multicast": ("224.0.0.0/4", "ff00::/8"),
}


def equal(left: Value, right: Value) -> Formula:
    """Cedar's `==`."""
    for one, other in ((left, right), (right, left)):
        match one, other:
            case Text(), str():
                return _text_is(one, other)
            case Unknown.SEGMENTS, int():
                return every(at_most(other), negated(at_most(other - 1)))
            case Unknown.SOURCE_PORT, int():
                return Atom(SOURCE_PORT, OneOf((str(other),)), f"source port is {other}")
            case Unknown.SOURCE, Range():
                return within([str(other.network)]) if other.is_one else NO
            case ((Text() | Unknown() | Items()), _):
                if left == right and not isinstance(left, Items):
                    return YES
                raise NotCompilable("two values of which neither is known beforehand")
    return YES if type(left) is type(right) and left == right else NO


def less(left: Value, right: Value, *, or_equal: bool) -> Formula:
    """Cedar's `<` and `<=` of whole numbers."""
    match left, right:
        case int(), int():
            return YES if left < right or (or_equal and left == right) else NO
        case Unknown.SEGMENTS, int():
            return at_most(right if or_equal else right - 1)
        case int(), Unknown.SEGMENTS:
            return negated(at_most(left - 1 if or_equal else left))
        case _:
            raise NotCompilable("an order that a proxy does not know")


def at_most(segments: int) -> Formula:
    """Whether the path has at most so many segments; each has at least one."""
    if segments < 1:
        return NO
    if segments > MAX_SEGMENTS:
        raise NotCompilable(f"a count of over {MAX_SEGMENTS} segments")
    return Atom(PATH, Pattern(expressions.segments_expression(0, segments)), f"path has at most {segments} segments")


def within(ranges: Sequence[str]) -> Formula:
    """Whether the peer's address is in one of these; at an IPv4 listener no other can be."""
    own = tuple(one for one in ranges if ":" not in one)
    return Atom(SOURCE, Within(own), f"source in {', '.join(own)}") if own else NO


def in_range(left: Value, right: Value) -> Formula:
    """Cedar's `isInRange`."""
    match left, right:
        case Range(), Range():
            small, large = left.network, right.network
            same = small.version == large.version and small.prefixlen >= large.prefixlen
            return YES if same and ipaddress.ip_address(left.address) in large else NO
        case Unknown.SOURCE, Range():
            return within([str(right.network)])
        case _:
            raise NotCompilable("a range that is not known beforehand")


def is_kind(value: Value, kind: str) -> Formula:
    """Cedar's `isIpv4` and the like."""
    ranges = _FAMILIES[kind]
    if value is Unknown.SOURCE:
        return within(ranges)
    if isinstance(value, Range):
        return some(*(in_range(value, Range.parse(one)) for one in ranges))
    raise NotCompilable("an address that is not known beforehand")


def like(value: Value, pieces: Sequence[str]) -> Formula:
    """Cedar's `like`: these pieces with anything between them."""
    if isinstance(value, str):
        pattern = ".*".join(map(re.escape, pieces))
        return YES if re.fullmatch(pattern, value, re.DOTALL) else NO
    if not isinstance(value, Text):
        raise NotCompilable("a text that is not known beforehand")
    if len(pieces) == 1:
        return _text_is(value, pieces[0])
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
        case header:
            return _header(header, pieces, words)


def _text_is(text: Text, wanted: str) -> Formula:
    words = f"{text.name} is {_shown(wanted)}"
    if text.part:
        return _part_is(text, wanted, words)
    match text.field:
        case ":path":
            return _pattern(PATH, expressions.path_expression([wanted]), words)
        case ":authority":
            return _host([wanted], words)
        case field:
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


def _pattern(field: str, expression: str | None, words: str) -> Formula:
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


def _header(name: str, pieces: Sequence[str], words: str) -> Formula:
    for piece in pieces:
        _check_replaced(name, piece)
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


def caller_is(ids: Iterable[str]) -> Formula:
    """Whether the caller is one of these identities."""
    known = tuple(sorted(set(ids)))
    return Atom(CALLER, OneOf(known), f"caller is {_any_of(known)}") if known else NO


def caller_matches(expression: str, words: str) -> Formula:
    """Whether the caller's identity matches an expression."""
    return Atom(CALLER, Pattern(expression), words)


def method_in(methods: Iterable[str]) -> Formula:
    """Whether the method is one of these."""
    known = tuple(sorted(methods))
    return Atom(METHOD, OneOf(known), f"method is {_any_of(known)}") if known else NO


def _any_of(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"one of {', '.join(texts)}"


def each(cases: Cases, holds: Callable[[Value], Formula]) -> Formula:
    """When something holds of a value."""
    return some(*(every(under, holds(value)) for under, value in cases if value is not Unknown.FAILED))


def failing(cases: Cases) -> Formula:
    """When there is an error instead of a value."""
    return some(*(under for under, value in cases if value is Unknown.FAILED))
