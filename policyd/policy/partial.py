"""Whether policies apply to a request of which not all is known.

Law: each part that is known is Cedar's own answer; only `&&`, `||`, `!` and `if` over unknown parts are reasoned about
here, and in doubt the answer is that it is not known. Strictly valid conditions fail by overflow only; so a policy that
calculates with what is not known is not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cedarpy import pst

from policyd.cedar.model import Request
from policyd.cedar.policies import Policy
from policyd.cedar.schema import Schema
from policyd.cedar.syntax_tree import chain_of, chain_read, nodes_of
from policyd.policy.nearest import conditions_of, written
from policyd.policy.outline import Part
from policyd.policy.whatif import Truth, evaluate

Chain = tuple[str, ...]
Maybe = bool | None  # None: not known

_HEADERS: Final = ("context", "request", "headers")
_CAN_FAIL: Final = frozenset({"add", "sub", "mul", "neg", "offset", "duration_since"})


@dataclass(frozen=True, slots=True)
class Known:
    """What is not known of a request: `unknown` parts of the context, and all headers but those of `headers`."""

    unknown: frozenset[Chain]
    headers: frozenset[str] = frozenset()

    def covers(self, expr: pst.Expr) -> bool:
        """Whether everything that an expression reads is known."""
        return not any(self._lacks(node) for node in nodes_of(expr))

    def _lacks(self, node: object) -> bool:
        if isinstance(node, pst.BinaryOp) and node.op in ("get_tag", "has_tag") and chain_of(node.left) == _HEADERS:
            return not (isinstance(node.right, pst.StringLit) and node.right.value in self.headers)
        chain = chain_read(node)
        return chain is not None and any(chain[: len(one)] == one or one[: len(chain)] == chain for one in self.unknown)


@dataclass(frozen=True, slots=True)
class Applies:
    """Whether a policy applies; where that is not known, `open` are the parts of its condition that decide it."""

    policy: Policy
    truth: Maybe
    open: tuple[str, ...] = ()


def applies_of(policies: Sequence[Policy], request: Request, known: Known, schema: Schema) -> list[Applies]:
    """For policies in whose scope the request is; raises DecisionError. A forbid that fails counts as applying."""
    parts = {one.id: conditions_of(one) for one in policies}
    leaves = [leaf for some in parts.values() for part in some for leaf in _leaves(part.expr) if known.covers(leaf)]
    truths = dict(zip(map(id, leaves), evaluate(leaves, request, schema), strict=True))
    return [_applies(one, [(part, _truth(part.expr, truths)) for part in parts[one.id]], known) for one in policies]


def _applies(policy: Policy, parts: Sequence[tuple[Part, Truth | None]], known: Known) -> Applies:
    open_ = tuple(_open(policy, part) for part, truth in parts if truth is None)
    if open_ and any(_calculates(part.expr, known) for part, _ in parts):
        return Applies(policy, None, open_)
    doubt = False
    for part, truth in parts:
        doubt = doubt or truth is None
        if isinstance(truth, str):
            return Applies(policy, False if policy.effect == "permit" else None if doubt else True, open_)
        if truth is (not part.wanted):
            return Applies(policy, False)
    return Applies(policy, None if doubt else True, open_)


def _open(policy: Policy, part: Part) -> str:
    """A part as it has to be for the policy to apply."""
    text = written(policy, part.span)
    return f"`{text}`" if part.wanted else f"not `{text}`"


def _truth(expr: pst.Expr, truths: Mapping[int, Truth]) -> Truth | None:
    """Cedar's own order: what stands behind a part that settles it is not looked at, and may fail."""
    match expr:
        case pst.BinaryOp("and", left, right):
            return _settled(_truth(left, truths), right, truths, by=False)
        case pst.BinaryOp("or", left, right):
            return _settled(_truth(left, truths), right, truths, by=True)
        case pst.UnaryOp("not", arg):
            truth = _truth(arg, truths)
            return not truth if isinstance(truth, bool) else truth
        case pst.IfThenElse(cond, then, otherwise):
            chosen = _truth(cond, truths)
            if isinstance(chosen, bool):
                return _truth(then if chosen else otherwise, truths)
            both = {_truth(then, truths), _truth(otherwise, truths)}
            return chosen if chosen is not None or len(both) > 1 else both.pop()
        case _:
            return truths.get(id(expr))


def _settled(left: Truth | None, right: pst.Expr, truths: Mapping[int, Truth], *, by: bool) -> Truth | None:
    """`left && right` is settled by false, `left || right` by true."""
    if left is by or isinstance(left, str):
        return left
    other = _truth(right, truths)
    if left is None:
        return by if other is by else None
    return other


def _leaves(expr: pst.Expr) -> Iterator[pst.Expr]:
    """The parts that are asked of Cedar as they are."""
    match expr:
        case pst.BinaryOp("and" | "or", left, right):
            yield from _leaves(left)
            yield from _leaves(right)
        case pst.UnaryOp("not", arg):
            yield from _leaves(arg)
        case pst.IfThenElse(cond, then, otherwise):
            for one in (cond, then, otherwise):
                yield from _leaves(one)
        case _:
            yield expr


def _calculates(expr: pst.Expr, known: Known) -> bool:
    """Whether it calculates with what is not known, and so may fail in a way that is not known."""
    return any(
        isinstance(node, pst.BinaryOp | pst.UnaryOp) and node.op in _CAN_FAIL and not known.covers(node)
        for node in nodes_of(expr)
    )
