"""Whether a request is in the scope of a policy: who, what and where, before any condition is looked at.

Law: the same answer as Cedar's own scope evaluation; it needs ancestors only, which entities of a slice carry
whole.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, assert_never

from cedarpy import pst

from policyd.cedar.model import Request, Uid
from policyd.cedar.schema import Schema
from policyd.cedar.syntax_tree import uid_of


class ScopeMatch(NamedTuple):
    """Which parts of a scope a request is in."""

    principal: bool
    action: bool
    resource: bool


class Scopes:
    """The scopes of one request; `schema` gives the ancestors of its action."""

    def __init__(self, request: Request, schema: Schema) -> None:
        above = {entity.uid: frozenset(entity.parents) for entity in request.entities}
        self._principal = (request.principal, above.get(request.principal, frozenset()))
        self._action = (request.action, frozenset(schema.actions.get(request.action, ())))
        self._resource = (request.resource, above.get(request.resource, frozenset()))

    def match(self, tree: pst.Template) -> ScopeMatch:
        """Which parts of the scope of a policy this request is in."""
        return ScopeMatch(
            _is_in(tree.principal, *self._principal),
            _is_in(tree.action, *self._action),
            _is_in(tree.resource, *self._resource),
        )


def _is_in(
    constraint: pst.PrincipalOrResourceConstraint | pst.ActionConstraint, uid: Uid, above: Collection[Uid]
) -> bool:
    match constraint:
        case pst.ScopeAny():
            return True
        case pst.ScopeEq(entity) | pst.ActionEq(entity):
            return _named(entity) == uid
        case pst.ScopeIn(entity):
            return _under(_named(entity), uid, above)
        case pst.ScopeIs(entity_type):
            return str(entity_type) == uid.type
        case pst.ScopeIsIn(entity_type, entity):
            return str(entity_type) == uid.type and _under(_named(entity), uid, above)
        case pst.ActionIn(entities):
            return any(_under(uid_of(one), uid, above) for one in entities)
        case _:
            assert_never(constraint)


def _named(entity: pst.EntityOrSlot) -> Uid:
    if isinstance(entity, pst.Slot):
        raise ValueError("a template has no scope of its own")  # load_policies has refused it
    return uid_of(entity)


def _under(ancestor: Uid, uid: Uid, above: Collection[Uid]) -> bool:
    return ancestor == uid or ancestor in above
