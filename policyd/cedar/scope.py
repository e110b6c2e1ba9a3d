"""Whether a request is in the scope of a policy: who, what and where, before any condition is looked at.

Law: the same answer as Cedar's own scope evaluation; it needs ancestors only, which entities of a slice carry
whole. A constraint is a set of keys and so is what a request brings; the constraint holds where they meet. So
an index by these keys finds exactly the policies whose scope holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, assert_never

from cedarpy import pst

from policyd.cedar.model import Request, Uid
from policyd.cedar.schema import Schema
from policyd.cedar.syntax_tree import uid_of

Key = tuple[str | Uid, ...]  # ("any",), ("is", type), ("==", uid), ("in", uid), ("is in", type, uid)
Constraint = pst.PrincipalOrResourceConstraint | pst.ActionConstraint

ANY: Final[Key] = ("any",)


class ScopeMatch(NamedTuple):
    """Which parts of a scope a request is in."""

    principal: bool
    action: bool
    resource: bool


class Scopes:
    """The scopes of one request; `schema` gives the ancestors of its action."""

    def __init__(self, request: Request, schema: Schema) -> None:
        above = {entity.uid: entity.parents for entity in request.entities}
        self._principal = keys_of(request.principal, above.get(request.principal, ()))
        self._action = keys_of(request.action, schema.actions.get(request.action, ()))
        self._resource = keys_of(request.resource, above.get(request.resource, ()))

    def match(self, tree: pst.Template) -> ScopeMatch:
        """Which parts of the scope of a policy this request is in."""
        return ScopeMatch(
            not self._principal.isdisjoint(asked_keys(tree.principal)),
            not self._action.isdisjoint(asked_keys(tree.action)),
            not self._resource.isdisjoint(asked_keys(tree.resource)),
        )


def keys_of(uid: Uid, above: Iterable[Uid]) -> frozenset[Key]:
    """All that an entity with these ancestors, whole, can be asked for by."""
    groups = {uid, *above}
    keys: set[Key] = {ANY, ("is", uid.type), ("==", uid)}
    keys.update(("in", one) for one in groups)
    keys.update(("is in", uid.type, one) for one in groups)
    return frozenset(keys)


def asked_keys(constraint: Constraint) -> tuple[Key, ...]:
    """What a constraint asks for; any one of it is enough."""
    match constraint:
        case pst.ScopeAny():
            return (ANY,)
        case pst.ScopeEq(entity) | pst.ActionEq(entity):
            return (("==", _named(entity)),)
        case pst.ScopeIn(entity):
            return (("in", _named(entity)),)
        case pst.ScopeIs(entity_type):
            return (("is", str(entity_type)),)
        case pst.ScopeIsIn(entity_type, entity):
            return (("is in", str(entity_type), _named(entity)),)
        case pst.ActionIn(entities):
            return tuple({("in", uid_of(one)) for one in entities})
        case _:
            assert_never(constraint)


def _named(entity: pst.EntityOrSlot) -> Uid:
    if isinstance(entity, pst.Slot):
        raise ValueError("a template has no scope of its own")  # load_policies has refused it
    return uid_of(entity)
