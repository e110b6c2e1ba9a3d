"""Values compared as Cedar compares them: numbers, addresses, and what is only the request's.

Law: where a proxy cannot compare them, NotCompilable says so.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from policyd.errors import NotCompilable
from policyd.local import expressions
from policyd.local.logic import (
    NO,
    PATH,
    SOURCE,
    SOURCE_PORT,
    YES,
    Atom,
    Formula,
    OneOf,
    Pattern,
    Within,
    every,
    negated,
    some,
)
from policyd.local.texts import text_is
from policyd.local.values import Claim, Items, Range, Text, Unknown, Value

MAX_SEGMENTS: Final = 100  # that are counted
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
                return text_is(one, other)
            case Unknown.SEGMENTS, int():
                return every(at_most(other), negated(at_most(other - 1)))
            case Unknown.SOURCE_PORT, int():
                return Atom(SOURCE_PORT, OneOf((str(other),)), f"source port is {other}")
            case Unknown.SOURCE, Range():
                return within([str(other.network)]) if other.is_one else NO
            case Claim(), _:
                raise NotCompilable("a claim compared as a whole")
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
