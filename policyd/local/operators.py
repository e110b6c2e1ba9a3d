"""Cedar's operators at one listener: when each is true of its values, where the request tells some of them.

Law: as Cedar has it. What only the request's entities would tell is asked of the place; the rest compares by itself.
"""

from __future__ import annotations

from policyd.cedar.model import Uid
from policyd.local import users
from policyd.local.comparing import equal, in_range, is_kind, less
from policyd.local.known import entity_of, header_of, items_of, name_of, text_of
from policyd.local.logic import NO, YES, Atom, Formula, Present, every, negated, some
from policyd.local.place import Place
from policyd.local.values import Claim, Items, Unknown, Value, caller_is


class Operators:
    """At one place; raises NotCompilable for values that a proxy cannot compare."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def of_one(self, op: str, value: Value) -> Formula:
        """Whether an operator of one value is true of it."""
        if op != "is_empty":
            return is_kind(value, op)
        if isinstance(value, Claim):
            return NO  # whose token has an empty one is policyd's to decide
        return NO if items_of(value).values else YES

    def of_two(self, op: str, left: Value, right: Value) -> Formula:
        """Whether an operator of two values is true of them."""
        match op:
            case "eq":
                return self._equal(left, right)
            case "not_eq":
                return negated(self._equal(left, right))
            case "less" | "less_eq":
                return less(left, right, or_equal=op == "less_eq")
            case "greater" | "greater_eq":
                return less(right, left, or_equal=op == "greater_eq")
            case "is_in_range":
                return in_range(left, right)
            case "in":
                groups = right.values if isinstance(right, Items) else (right,)
                return some(*(self._place.is_in(left, entity_of(one)) for one in groups))
            case "has_tag":
                return self.has_tag(left, name_of(right))
            case "contains":
                return self._contains(left, right)
            case "contains_all":
                return every(*(self._contains(left, one) for one in items_of(right).values))
            case _ if isinstance(right, Claim):  # contains_any, which either may ask of the other
                return some(*(self._contains(right, one) for one in items_of(left).values))
            case _:
                return some(*(self._contains(left, one) for one in items_of(right).values))

    def has_tag(self, bearer: Value, name: str) -> Formula:
        """Cedar's `hasTag`."""
        if bearer is Unknown.HEADERS:
            return Atom(header_of(name), Present(), f"there is a header {name}")
        if bearer is Unknown.CALLER:
            return caller_is(one for ids in self._place.tagged(name).values() for one in ids)
        if bearer is Unknown.USER:
            return users.has_claim(name)
        return YES if name in self._place.entity(entity_of(bearer)).tags else NO

    def _contains(self, whole: Value, value: Value) -> Formula:
        if isinstance(whole, Claim):
            return users.claim_holds(whole.name, text_of(value))
        items = items_of(whole)
        return some(*(self._equal(one, value) for one in items.values))

    def _equal(self, left: Value, right: Value) -> Formula:
        for one, other in ((left, right), (right, left)):
            if one is Unknown.CALLER and isinstance(other, Uid):
                return self._place.caller_equals(other)
            if one is Unknown.ACTION and isinstance(other, Uid):
                return self._place.action_equals(other)
            if one is Unknown.USER and isinstance(other, Uid):
                return self._place.user_equals(other)
        return equal(left, right)
