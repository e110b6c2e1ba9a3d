"""Cedar's expressions at one listener: when each is true, and when an error, of requests that are not known yet.

Law: as Cedar evaluates, in its order. Whatever is not understood here whole is NotCompilable, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cedarpy import pst

from policyd.cedar.syntax_tree import chain_of, chain_read, uid_of
from policyd.errors import NotCompilable
from policyd.local import users
from policyd.local.known import entity_of, name_of
from policyd.local.logic import (
    FALSE,
    MAX_DEPTH,
    NO,
    TRUE,
    YES,
    Formula,
    Outcome,
    both,
    chosen,
    depth_of,
    either,
    every,
    negated,
    opposite,
    some,
)
from policyd.local.operators import Operators
from policyd.local.place import Place
from policyd.local.texts import like
from policyd.local.values import Case, Cases, Claim, Items, Range, Text, Unknown, Value, caller_is, each, failing

_BOOLEAN: Final = frozenset(
    {
        "eq", "not_eq", "less", "less_eq", "greater", "greater_eq", "and", "or", "in", "contains", "contains_all",
        "contains_any", "has_tag", "is_in_range",
    }
)  # fmt: skip
_KINDS: Final = frozenset({"is_ipv4", "is_ipv6", "is_loopback", "is_multicast"})
MAX_CASES: Final = 1_024  # of one value
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


class Evaluator:
    """Evaluates at one place."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._operators = Operators(place)

    def truth(self, expr: pst.Expr) -> Outcome:
        """When a boolean expression is true, and when an error."""
        found = self._truth(expr)
        if max(depth_of(found.true), depth_of(found.error)) > MAX_DEPTH:
            raise NotCompilable(f"a condition that is nested over {MAX_DEPTH} deep")
        return found

    def _truth(self, expr: pst.Expr) -> Outcome:
        match expr:
            case pst.BoolLit(value):
                return TRUE if value else FALSE
            case pst.UnaryOp("not", inner):
                return opposite(self.truth(inner))
            case pst.BinaryOp("and", left, right):
                first = self.truth(left)
                return first if first.true == NO else both(first, self.truth(right))
            case pst.BinaryOp("or", left, right):
                first = self.truth(left)
                return first if first.false == NO else either(first, self.truth(right))
            case pst.IfThenElse(condition, then, otherwise):
                return self._if(self.truth(condition), then, otherwise)
            case pst.BinaryOp(op, left, right) if op in _BOOLEAN:
                return self._compared(op, left, right)
            case pst.UnaryOp(op, inner) if op in _KINDS or op == "is_empty":
                return self._one(inner, lambda value: self._operators.of_one(op, value))
            case pst.Like(base, pattern):
                pieces = _pieces(pattern)
                return self._one(base, lambda value: like(value, pieces))
            case pst.HasAttr():
                return self._has(expr)
            case pst.Is(base, type_, inside):
                return self._is(base, str(type_), inside)
            case _:
                cases = self.value(expr)
                return Outcome(each(cases, lambda value: YES if value is True else NO), failing(cases))

    def _if(self, condition: Outcome, then: pst.Expr, otherwise: pst.Expr) -> Outcome:
        first = FALSE if condition.true == NO else self.truth(then)
        second = FALSE if condition.false == NO else self.truth(otherwise)
        return chosen(condition, first, second)

    def _one(self, expr: pst.Expr, holds: Callable[[Value], Formula]) -> Outcome:
        cases = self.value(expr)
        return Outcome(each(cases, holds), failing(cases))

    # ---- two values

    def _compared(self, op: str, left: pst.Expr, right: pst.Expr) -> Outcome:
        firsts = self.value(left)
        seconds = self.value(right)
        _check_few(len(firsts) * len(seconds))
        true: list[Formula] = []
        failed = [failing(firsts)]
        for under, first in firsts:
            if first is Unknown.FAILED:
                continue
            for also, second in seconds:
                when = every(under, also)
                if second is Unknown.FAILED:
                    failed.append(when)
                elif when != NO:
                    true.append(every(when, self._operators.of_two(op, first, second)))
        return Outcome(some(*true), some(*failed))

    # ---- has, is, tags

    def _has(self, expr: pst.HasAttr) -> Outcome:
        chain = chain_read(expr)
        if chain is None:
            raise NotCompilable("`has` of what is computed")
        true = self._place.has(chain)
        if chain_of(expr.base) != ("context", "user"):
            return Outcome(true)
        return Outcome(true, failing(self._place.attribute(("context", "user"))))

    def _is(self, base: pst.Expr, type_: str, inside: pst.Expr | None) -> Outcome:
        is_one = self._one(base, lambda value: self._place.is_a(value, type_))
        if inside is None or is_one.true == NO:
            return is_one
        return both(is_one, self._compared("in", base, inside))

    def _tag(self, bearer: Value, name: str) -> list[Case]:
        if bearer is Unknown.HEADERS:
            there = self._operators.has_tag(bearer, name)
            return [(there, Text(name, f"header {name}")), (negated(there), Unknown.FAILED)]
        if bearer is Unknown.CALLER:
            tagged = self._place.tagged(name)
            cases: list[Case] = [(caller_is(ids), value) for value, ids in tagged.items()]
            return [*cases, (negated(self._operators.has_tag(bearer, name)), Unknown.FAILED)]
        if bearer is Unknown.USER:
            there = users.has_claim(name)
            return [(there, Claim(name)), (negated(there), Unknown.FAILED)]
        tags = self._place.entity(entity_of(bearer)).tags
        return [(YES, tags.get(name, Unknown.FAILED))]

    # ---- values

    def value(self, expr: pst.Expr) -> Cases:
        """What an expression can be, and when."""
        match expr:
            case pst.BoolLit(known) | pst.LongLit(known) | pst.StringLit(known):
                return [(YES, known)]
            case pst.EntityLit(uid):
                return [(YES, uid_of(uid))]
            case pst.Var() | pst.GetAttr():
                return self._attribute(expr)
            case pst.Set(elements):
                return self._set(elements)
            case pst.IfThenElse(condition, then, otherwise):
                return self._chosen(self.truth(condition), then, otherwise)
            case pst.BinaryOp() | pst.UnaryOp():
                return self._operated(expr)
            case pst.Like() | pst.HasAttr() | pst.Is():
                return self._as_value(expr)
            case _:
                raise NotCompilable("a record")

    def _operated(self, expr: pst.BinaryOp | pst.UnaryOp) -> Cases:
        match expr:
            case pst.BinaryOp("get_tag", left, right):
                return self._two(left, right, lambda bearer, name: self._tag(bearer, name_of(name)))
            case pst.BinaryOp("add" | "sub" | "mul" as op, left, right):
                return self._two(left, right, lambda one, other: [(YES, _calculated(op, one, other))])
            case pst.UnaryOp("neg", inner):
                return self._each(inner, lambda one: _calculated("sub", 0, one))
            case pst.UnaryOp("ip", inner):
                return self._each(inner, lambda one: Range.parse(name_of(one)))
            case _ if expr.op in _BOOLEAN or expr.op in _KINDS or expr.op in ("not", "is_empty"):
                return self._as_value(expr)
            case _:
                raise NotCompilable(f"`{expr.op}`")

    def _as_value(self, expr: pst.Expr) -> Cases:
        found = self.truth(expr)
        return _possible([(found.true, True), (found.false, False), (found.error, Unknown.FAILED)])

    def _attribute(self, expr: pst.Expr) -> Cases:
        chain = chain_of(expr)
        if chain is not None and (len(chain) == 1 or (chain[0] == "context" and chain[1:-1] != ("user",))):
            return self._place.attribute(chain)
        if not isinstance(expr, pst.GetAttr):
            raise NotCompilable("a variable")
        made: list[Case] = []
        for under, bearer in self.value(expr.base):
            found = [(YES, bearer)] if bearer is Unknown.FAILED else self._place.attribute_of(bearer, expr.attr)
            made += [(every(under, when), one) for when, one in found]
        return _possible(made)

    def _set(self, elements: tuple[pst.Expr, ...]) -> Cases:
        made: Cases = [(YES, Items(()))]
        for element in elements:
            cases = self.value(element)
            _check_few(len(made) * len(cases))
            made = _possible([case for before in made for case in _with(before, cases)])
        return made

    def _chosen(self, condition: Outcome, then: pst.Expr, otherwise: pst.Expr) -> Cases:
        firsts = [] if condition.true == NO else self.value(then)
        seconds = [] if condition.false == NO else self.value(otherwise)
        made: list[Case] = [(every(condition.true, when), one) for when, one in firsts]
        made += [(every(condition.false, when), one) for when, one in seconds]
        return _possible([*made, (condition.error, Unknown.FAILED)])

    def _each(self, expr: pst.Expr, made: Callable[[Value], Value]) -> Cases:
        return [(under, one if one is Unknown.FAILED else made(one)) for under, one in self.value(expr)]

    def _two(self, left: pst.Expr, right: pst.Expr, made: Callable[[Value, Value], list[Case]]) -> Cases:
        found: list[Case] = []
        firsts, seconds = self.value(left), self.value(right)
        _check_few(len(firsts) * len(seconds))
        for under, first in firsts:
            if first is Unknown.FAILED:
                found.append((under, first))
                continue
            for also, second in seconds:
                inner = [(YES, second)] if second is Unknown.FAILED else made(first, second)
                found += [(every(under, also, when), one) for when, one in inner]
        return _possible(found)


def _with(before: Case, cases: Cases) -> list[Case]:
    """A set with one more element."""
    under, items = before
    if not isinstance(items, Items):
        return [before]
    return [(every(under, when), one if one is Unknown.FAILED else Items((*items.values, one))) for when, one in cases]


def _possible(cases: list[Case]) -> Cases:
    """Those that can be, if they are not too many to be told apart."""
    found = [(under, one) for under, one in cases if under != NO]
    _check_few(len(found))
    return found


def _check_few(cases: int) -> None:
    if cases > MAX_CASES:
        raise NotCompilable(f"what can be one of over {MAX_CASES:,} values")


def _calculated(op: str, left: Value, right: Value) -> Value:
    """Whole numbers of 64 bits: beyond, Cedar fails."""
    if not isinstance(left, int) or not isinstance(right, int):
        raise NotCompilable("arithmetic with what only the request tells")
    found = {"add": left + right, "sub": left - right, "mul": left * right}[op]
    return found if _LEAST <= found <= _MOST else Unknown.FAILED


def _pieces(pattern: tuple[pst.PatternElem, ...]) -> list[str]:
    """What stands between the wildcards."""
    pieces = [""]
    for one in pattern:
        if isinstance(one, pst.Wildcard):
            pieces.append("")
        else:
            pieces[-1] += one.value
    return pieces
