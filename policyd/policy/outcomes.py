"""What a condition can come to, over all requests that a mesh can see: true, false, or both.

Law: sound, never exact. An outcome that is left out cannot happen; an error is no outcome. What is not understood can
be both.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cedarpy import pst

from policyd.cedar.model import Uid
from policyd.cedar.schema import Schema
from policyd.cedar.syntax_tree import chain_of, chain_read, uid_of
from policyd.policy.carried import pieces_of, why_never
from policyd.policy.universe import Universe, Values

Outcomes = frozenset[bool]
BOTH: Final[Outcomes] = frozenset({True, False})
TRUE: Final[Outcomes] = frozenset({True})
FALSE: Final[Outcomes] = frozenset({False})

USER: Final = ("context", "user")  # of requests with a verified token only
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # a field name (RFC 9110, 5.1), in lower case
_ORDER: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "less": operator.lt,
    "less_eq": operator.le,
    "greater": operator.gt,
    "greater_eq": operator.ge,
}
_LABELS: Final = {
    ("principal",): "Workload",
    ("resource",): "Service",
    ("context", "destination", "labels"): "Labels",
}
_BEARERS: Final = {"Workload": "caller", "Service": "service", "Labels": "instance"}
_HEADERS: Final = ("context", "request", "headers")


@dataclass(frozen=True, slots=True)
class Known:
    """What is sure about a request: the types and, where they are few, the values of what it says, by chain."""

    universe: Universe
    schema: Schema
    types: Mapping[str, frozenset[str]]
    values: Mapping[tuple[str, ...], Values] = field(default_factory=dict)

    def value_of(self, chain: tuple[str, ...]) -> Values | None:
        """The values that an attribute can have, None where they are many."""
        if (known := self.values.get(chain)) is not None:
            return known
        if chain[0] == "resource" and len(chain) == 2 and self.types["resource"] == {"Service"}:
            return self.universe.attributes.get("Service", {}).get(chain[1])
        return None


def outcomes(expr: pst.Expr, known: Known) -> Outcomes:
    """What `expr` can come to."""
    match expr:
        case pst.BoolLit(value):
            return TRUE if value else FALSE
        case pst.UnaryOp("not", inner):
            return _flipped(outcomes(inner, known))
        case pst.BinaryOp("and", left, right):
            return _both_of(outcomes(left, known), outcomes(right, known))
        case pst.BinaryOp("or", left, right):
            return _flipped(_both_of(_flipped(outcomes(left, known)), _flipped(outcomes(right, known))))
        case pst.IfThenElse(condition, then, otherwise):
            first = outcomes(condition, known)
            chosen = [outcomes(branch, known) for branch, when in ((then, True), (otherwise, False)) if when in first]
            return frozenset().union(*chosen)
        case pst.BinaryOp("has_tag", base, pst.StringLit(name)):
            return FALSE if _never_tagged(base, name, known) else BOTH
        case pst.BinaryOp():
            return _compared(expr, known)
        case pst.HasAttr(base, attrs):
            chain = chain_of(base)
            return FALSE if chain and (*chain, attrs[0]) == USER and not known.universe.has_users else BOTH
        case pst.Is(pst.Var(name), entity_type, inside):
            return _is(name, str(entity_type), inside, known)
        case pst.Like(base, pattern):
            return FALSE if why_never(expr) else _all(possible(base, known), lambda text: _like(str(text), pattern))
        case _:
            return BOTH


def narrowed(expr: pst.Expr, wanted: bool, known: Known) -> Known:
    """What is sure besides once `expr` has come to `wanted`."""
    match expr:
        case pst.UnaryOp("not", inner):
            return narrowed(inner, not wanted, known)
        case pst.BinaryOp("and" | "or" as joined, left, right) if wanted == (joined == "and"):
            return narrowed(right, wanted, narrowed(left, wanted, known))
        case pst.BinaryOp("eq" | "not_eq" as relation, left, right):
            same = wanted == (relation == "eq")
            return _limited(right, possible(left, known), same, _limited(left, possible(right, known), same, known))
        case pst.BinaryOp("contains", pst.Set(elements), right) if wanted:
            return _limited(right, _listed(elements, known), True, known)
        case pst.Is(pst.Var(name), entity_type, inside) if name in known.types:
            types, named = known.types[name], frozenset({str(entity_type)})
            left_over = types & named if wanted else types - (named if inside is None else frozenset())
            return replace(known, types={**known.types, name: left_over})
        case _:
            return known


def possible(expr: pst.Expr, known: Known) -> Values | None:
    """The values that `expr` can have, None where they are many."""
    match expr:
        case pst.StringLit(value) | pst.LongLit(value):
            return frozenset({value})
        case pst.EntityLit(entity):
            return frozenset({uid_of(entity)})
        case pst.BinaryOp("get_tag", base, pst.StringLit(name)):
            type_ = _LABELS.get(chain_of(base) or ())
            return known.universe.tag_values(type_, name) if type_ else None
        case _:
            chain = chain_of(expr)
            return known.value_of(chain) if chain else None


def never_carried(expr: pst.Expr, known: Known) -> str | None:
    """What `expr` asks for and no request carries, in words."""
    match expr:
        case pst.BinaryOp("has_tag", base, pst.StringLit(name)) if _never_tagged(base, name, known):
            chain = chain_of(base) or ()
            if chain == _HEADERS:
                return f"no request carries a header `{name}`"
            return f"no {_BEARERS[_LABELS[chain]]} of the mesh has the label `{name}`{_elsewhere(name, known)}"
        case pst.BinaryOp("eq") | pst.Like() if why := why_never(expr):
            return why
        case _:
            read = (chain_read(expr) or ())[:2]
            if read != USER or known.universe.has_users:
                return None
            return f"no request carries `{'.'.join(read)}`, without a RequestAuthentication"


def _elsewhere(name: str, known: Known) -> str:
    """Where a label is to be read that others have than who is asked."""
    chains = [".".join(chain) for chain, type_ in _LABELS.items() if known.universe.tag_values(type_, name)]
    return f", but `{chains[0]}` may have it" if chains else ""


def _never_tagged(base: pst.Expr, name: str, known: Known) -> bool:
    chain = chain_of(base) or ()
    if chain == _HEADERS:
        return name == "host" or not _HEADER.fullmatch(name)  # the host is an attribute of the request
    return chain in _LABELS and not known.universe.tag_values(_LABELS[chain], name)


def _flipped(found: Outcomes) -> Outcomes:
    return frozenset(not one for one in found)


def _both_of(left: Outcomes, right: Outcomes) -> Outcomes:
    """As Cedar's `&&`: the right side counts only once the left one is true."""
    return (left & FALSE) | (right if True in left else frozenset())


def _compared(expr: pst.BinaryOp, known: Known) -> Outcomes:
    left, right = possible(expr.left, known), possible(expr.right, known)
    if expr.op in ("eq", "not_eq"):
        never = why_never(pst.BinaryOp("eq", expr.left, expr.right))
        equal = FALSE if never else _pairs(left, right, operator.eq)
        return equal if expr.op == "eq" else _flipped(equal)
    if expr.op in _ORDER:
        return _pairs(left, right, _ORDER[expr.op])
    if expr.op == "contains" and isinstance(expr.left, pst.Set):
        listed = _listed(expr.left.elements, known)
        return BOTH if listed is None else _all(right, lambda value: value in listed)
    if expr.op == "in" and isinstance(expr.left, pst.Var):
        return _in(expr.left.name, _named(expr.right), known)
    return BOTH


def _pairs(left: Values | None, right: Values | None, holds: Callable[[Any, Any], bool]) -> Outcomes:
    if left is None or right is None:
        return BOTH
    return frozenset(holds(one, other) for one in left for other in right)


def _all(values: Values | None, holds: Callable[[object], bool]) -> Outcomes:
    return BOTH if values is None else frozenset(holds(value) for value in values)


def _is(name: str, type_: str, inside: pst.Expr | None, known: Known) -> Outcomes:
    types = known.types.get(name)
    if types is None:
        return BOTH
    if type_ not in types:
        return FALSE
    if inside is not None:
        return _in(name, _named(inside), replace(known, types={**known.types, name: frozenset({type_})})) | FALSE
    return TRUE if types == {type_} else BOTH


def _in(name: str, ancestors: list[Uid] | None, known: Known) -> Outcomes:
    """Whether a variable is in one of the ancestors."""
    actions = known.values.get(("action",))
    if ancestors is None:
        return BOTH
    if name == "action" and actions is not None:
        above = known.schema.actions
        return frozenset(
            any(one == group or group in above.get(one, ()) for group in ancestors)
            for one in actions
            if isinstance(one, Uid)
        )
    if name not in known.types:
        return BOTH
    return BOTH if any(known.universe.can_be_in(known.types[name], one) for one in ancestors) else FALSE


def _named(expr: pst.Expr) -> list[Uid] | None:
    elements = expr.elements if isinstance(expr, pst.Set) else (expr,)
    found = [uid_of(one.value) for one in elements if isinstance(one, pst.EntityLit)]
    return found if len(found) == len(elements) else None


def _listed(elements: tuple[pst.Expr, ...], known: Known) -> Values | None:
    """What a set holds, where each element is one value."""
    values = [possible(one, known) for one in elements]
    single = [one for one in values if one is not None and len(one) == 1]
    return frozenset().union(*single) if len(single) == len(values) else None


def _limited(expr: pst.Expr, values: Values | None, same: bool, known: Known) -> Known:
    """With a chain limited to `values`, or without the one value that it is not."""
    chain = chain_of(expr)
    if chain is None or values is None:
        return known
    before = known.value_of(chain)
    if same:
        left_over = values if before is None else before & values
    elif before is None or len(values) != 1:
        return known
    else:
        left_over = before - values
    return replace(known, values={**known.values, chain: left_over})


def _like(text: str, pattern: tuple[pst.PatternElem, ...]) -> bool:
    """As Cedar's `like`, in linear steps: each wildcard but the last takes as little as it may."""
    first, *middle = pieces_of(pattern)
    if not middle:
        return text == first
    last = middle.pop()
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
