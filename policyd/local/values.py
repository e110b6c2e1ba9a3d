"""What expressions come to where a request is not known yet: values, each under a condition.

Law: a value is known, or it is known what of the request it is; nothing is said of it here but that.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from policyd.cedar.model import Uid
from policyd.errors import NotCompilable
from policyd.local.logic import CALLER, METHOD, NO, Atom, Field, Formula, OneOf, Pattern, every, some


class Unknown(Enum):
    """What only the request tells, besides texts; `FAILED` is the error that Cedar would meet."""

    CALLER = "principal"
    ACTION = "action"
    SEGMENTS = "context.request.segments"
    SOURCE = "context.source.ip"
    SOURCE_PORT = "context.source.port"
    HEADERS = "context.request.headers"
    USER = "context.user"
    FAILED = "an error"


@dataclass(frozen=True, slots=True)
class Text:
    """A text that the request has: a field, or part of the caller's identity; `name` as policies call it."""

    field: Field
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
class Claim:
    """A claim of the user's token, which is a set of texts and here never an empty one."""

    name: str


@dataclass(frozen=True, slots=True)
class Items:
    """A set of values."""

    values: tuple[Value, ...]


Value = bool | int | str | Uid | Text | Range | Claim | Items | Unknown
Case = tuple[Formula, Value]  # under which condition it is which value
Cases = Sequence[Case]  # one of them holds of every request


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
