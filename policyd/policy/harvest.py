"""What conditions ask for, as values to try: from `like`, `==`, `contains`, `in`, ranges and moments.

Law: a value is a proposal only. Whether it makes a difference is for Cedar to say, so what stands under a `!` or in an
`unless` is taken up like everything else.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from cedarpy import pst

from policyd.cedar.syntax_tree import chain_of, nodes_of
from policyd.policy.change import Change, Kind

STAND_IN: Final = "0"  # for the `*` of a pattern, and for a header that only has to be there

_TEXTS: Final[dict[tuple[str, ...], Kind]] = {
    ("context", "request", "path"): "path",
    ("context", "request", "host"): "host",
}
_ADDRESSES: Final = frozenset({("context", "client_ip"), ("context", "source", "ip")})
_TIME: Final = ("context", "time")
_ORDERS: Final = frozenset({"eq", "not_eq", "less", "less_eq", "greater", "greater_eq"})
_MOMENT: Final = timedelta(milliseconds=1)  # what Cedar's datetime tells apart


def harvest(expressions: Iterable[pst.Expr]) -> tuple[Change, ...]:
    """Every value that these expressions compare a request with, each once, in their order."""
    found = (change for expr in expressions for node in reversed(list(nodes_of(expr))) for change in _changes(node))
    return tuple(dict.fromkeys(found))


def _changes(node: object) -> Iterator[Change]:
    match node:
        case pst.Like(base, pattern):
            yield from _like(base, pattern)
        case pst.BinaryOp("contains", pst.Set(elements), right):
            for element in elements:
                yield from _equal(right, element)
        case pst.BinaryOp("in", pst.Var("principal"), right):
            yield from (Change("group", uid.id) for uid in _entities(right) if str(uid.type) == "Group")
        case pst.BinaryOp("is_in_range", base, pst.UnaryOp("ip", pst.StringLit(text))) if chain_of(base) in _ADDRESSES:
            yield from _range(text)
        case pst.BinaryOp("has_tag", _, pst.StringLit(name)) if _of_headers(node):
            yield from (Change("header", STAND_IN, name), Change("header", None, name))
        case pst.BinaryOp(op, left, right) if op in _ORDERS:
            yield from _equal(left, right)
            yield from _equal(right, left)


def _like(base: pst.Expr, pattern: tuple[pst.PatternElem, ...]) -> Iterator[Change]:
    value = "".join(one.value if isinstance(one, pst.Char) else STAND_IN for one in pattern)
    written = "".join(one.value if isinstance(one, pst.Char) else "*" for one in pattern)
    name = _header(base)
    if name is not None:
        yield Change("header", value, name)
    elif (kind := _TEXTS.get(chain_of(base) or ())) is not None:
        yield Change(kind, value, written if written != value else "")


def _equal(what: pst.Expr, wanted: pst.Expr) -> Iterator[Change]:
    chain = chain_of(what)
    match wanted:
        case pst.StringLit(text) if (name := _header(what)) is not None:
            yield Change("header", text, name)
        case pst.StringLit(text) if chain in _TEXTS:
            yield Change(_TEXTS[chain], text)
        case pst.StringLit(text) if chain == ("context", "request", "method"):
            yield Change("method", text)
        case pst.EntityLit(uid) if chain == ("action",):
            yield Change("method", uid.id)
        case pst.EntityLit(uid) if chain == ("principal",) and str(uid.type) in ("Workload", "Unauthenticated"):
            yield Change("caller", uid.id)
        case pst.UnaryOp("ip", pst.StringLit(text)) if chain in _ADDRESSES:
            yield from _range(text)
        case pst.UnaryOp("datetime", pst.StringLit(text)) if chain == _TIME:
            yield from _around(text)
        case _:
            pass


def _entities(expr: pst.Expr) -> Iterator[pst.EntityUid]:
    for one in expr.elements if isinstance(expr, pst.Set) else (expr,):
        if isinstance(one, pst.EntityLit):
            yield one.value


def _header(expr: object) -> str | None:
    """The name of the header that an expression gives."""
    match expr:
        case pst.BinaryOp("get_tag", _, pst.StringLit(name)) if _of_headers(expr):
            return name
        case _:
            return None


def _of_headers(node: pst.BinaryOp) -> bool:
    return chain_of(node.left) == ("context", "request", "headers")


def _range(text: str) -> Iterator[Change]:
    """An address of a range: its first host."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return
    alone = network.num_addresses == 1
    address = network.network_address if alone else network.network_address + 1
    yield Change("address", str(address), "" if alone else str(network))


def _around(text: str) -> Iterator[Change]:
    """A moment, and the ones next to it."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return
    utc = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    for one in (utc, utc - _MOMENT, utc + _MOMENT):
        yield Change("time", one.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z")
