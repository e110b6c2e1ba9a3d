"""Which policy covers all that another one is for: found by what the scopes name, not by trying every pair.

Law: covering is certain; where ancestors are not known, nothing is covered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cedarpy import pst

from policyd.cedar.model import Uid
from policyd.policy.examined import Constraint, Examined, named_in, types_in
from policyd.policy.universe import PRINCIPALS, RESOURCES, Universe

_Key = tuple[Uid | None, Uid | None]


class Covers:
    """Policies without conditions, by the principal and the resource that they name (None: any)."""

    def __init__(self, policies: Iterable[Examined], universe: Universe) -> None:
        self._universe = universe
        self._by_names: dict[_Key, dict[object, Examined]] = {}
        for one in policies:
            tree = one.policy.tree
            kept = self._by_names.setdefault((named_in(tree.principal), named_in(tree.resource)), {})
            kept.setdefault((tree.principal, one.actions, tree.resource), one)  # of equals the first is enough

    def covering(self, one: Examined) -> Examined | None:
        """A policy, not `one` itself, that applies whenever `one` does; of two equal ones the first covers the
        second.
        """
        tree = one.policy.tree
        for principal in self._names(tree.principal):
            for resource in self._names(tree.resource):
                for wider in self._by_names.get((principal, resource), {}).values():
                    if wider is not one and self._covers(wider, one):
                        return wider
        return None

    def _names(self, constraint: Constraint) -> Iterator[Uid | None]:
        """Under what a policy may be filed that covers this part of a scope."""
        yield None
        uid = named_in(constraint)
        if uid is not None:
            yield uid
            yield from sorted(self._universe.ancestors(uid))

    def _covers(self, wider: Examined, one: Examined) -> bool:
        mine, its = one.policy.tree, wider.policy.tree
        return (
            one.actions <= wider.actions
            and self._part(its.principal, mine.principal, PRINCIPALS)
            and self._part(its.resource, mine.resource, RESOURCES)
        )

    def _part(self, wider: Constraint, one: Constraint, types: frozenset[str]) -> bool:
        """Whether whatever `one` lets through, `wider` does."""
        right_type = types_in(one, types) <= types_in(wider, types)
        match wider:
            case pst.ScopeAny():
                return True
            case pst.ScopeIs():
                return right_type
            case pst.ScopeEq():
                return isinstance(one, pst.ScopeEq) and named_in(one) == named_in(wider)
            case pst.ScopeIn():
                return self._under(named_in(wider), named_in(one))
            case pst.ScopeIsIn():
                return right_type and self._under(named_in(wider), named_in(one))

    def _under(self, ancestor: Uid | None, uid: Uid | None) -> bool:
        return uid is not None and (ancestor == uid or ancestor in self._universe.ancestors(uid))
