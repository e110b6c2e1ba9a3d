"""The scope index: of a whole set, the policies whose scope holds a request, whatever the size of the set.

Law: exact, so sound: a policy is filed under what its scope asks for (`scope.asked_keys`) and found by what a
request brings (`scope.keys_of`). Cedar would have evaluated each policy left out to "scope is false", which
neither decides nor fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from cedarpy import pst

from policyd.cedar.model import Uid
from policyd.cedar.scope import Key, asked_keys, keys_of

Branches = dict[Key, dict[Key, dict[Key, list[int]]]]  # resource, principal, action: the numbers of policies


class Index:
    """The policies of a set by scope; policy number i is `trees[i]`. Immutable, until it fades."""

    def __init__(self, trees: Sequence[pst.Template]) -> None:
        self._branches: Branches = {}
        known: dict[Key, Key] = {}  # one object a key, however many policies ask for it
        for number, tree in enumerate(trees):
            for resource in asked_keys(tree.resource):
                by_principal = self._branches.setdefault(known.setdefault(resource, resource), {})
                for principal in asked_keys(tree.principal):
                    by_action = by_principal.setdefault(known.setdefault(principal, principal), {})
                    for action in asked_keys(tree.action):
                        by_action.setdefault(known.setdefault(action, action), []).append(number)
        self.widest = _widest(trees)

    def find(
        self,
        principal: tuple[Uid, Collection[Uid]],
        action: tuple[Uid, Collection[Uid]],
        resource: tuple[Uid, Collection[Uid]],
    ) -> tuple[int, ...]:
        """The numbers, ascending, of the policies whose scope holds these three, each with all its ancestors."""
        found: set[int] = set()
        principals, actions = keys_of(*principal), keys_of(*action)
        for by_principal in _meeting(self._branches, keys_of(*resource)):
            for by_action in _meeting(by_principal, principals):
                for numbers in _meeting(by_action, actions):
                    found.update(numbers)
        return tuple(sorted(found))

    def fading(self) -> Iterator[None]:
        """Give it up, a branch a step; it finds nothing afterwards."""
        while self._branches:
            self._branches.popitem()
            yield


def _meeting(branches: Mapping[Key, Any], keys: frozenset[Key]) -> list[Any]:
    """The branches under these keys; costs as much as the fewer of the two are."""
    if len(branches) < len(keys):
        return [branch for key, branch in branches.items() if key in keys]
    return [branches[key] for key in keys if key in branches]


def _widest(trees: Sequence[pst.Template]) -> int:
    """How many policies one request can find at the most: all that are for no one caller and no one resource,
    and the most that are for one of each.
    """
    one_caller: Counter[Key] = Counter()
    one_resource: Counter[Key] = Counter()
    wide = 0
    for tree in trees:
        if isinstance(tree.principal, pst.ScopeEq):
            one_caller.update(asked_keys(tree.principal))
        elif isinstance(tree.resource, pst.ScopeEq):
            one_resource.update(asked_keys(tree.resource))
        else:
            wide += 1
    return wide + max(one_caller.values(), default=0) + max(one_resource.values(), default=0)
