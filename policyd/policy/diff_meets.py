"""Which policies each caller, method and service meet, in two sets at once, as sets of bits.

Law: a policy is its content: effect, scope and conditions. Two policies with the same content are one bit, whatever
they are called and wherever they stand.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Literal

from cedarpy import pst

from policyd.cedar.model import Uid
from policyd.cedar.policies import Policy
from policyd.cedar.scope import Key, asked_keys, keys_of

Part = Literal["principal", "action", "resource"]

_PARTS: Final[tuple[Part, ...]] = ("principal", "action", "resource")


def content_of(policy: Policy) -> pst.Template:
    """What a policy says, without its name and annotations."""
    tree = policy.tree
    return pst.Template("", tree.effect, tree.principal, tree.action, tree.resource, tree.clauses, pst.FrozenMap())


class Bits:
    """A bit for each content, shared by all sets that are compared."""

    def __init__(self) -> None:
        self._bits: dict[pst.Template, int] = {}

    def of(self, policy: Policy) -> int:
        """The bit of a policy, a power of two."""
        return self._bits.setdefault(content_of(policy), 1 << len(self._bits))


class Meets:
    """The policies of one set by the parts of their scopes."""

    def __init__(self, policies: Sequence[Policy], bits: Bits) -> None:
        self._by_bit: dict[int, list[Policy]] = {}
        self._by_key: dict[Part, dict[Key, int]] = {part: {} for part in _PARTS}
        for policy in policies:
            bit = bits.of(policy)
            self._by_bit.setdefault(bit, []).append(policy)
            for part in _PARTS:
                known = self._by_key[part]
                for key in asked_keys(getattr(policy.tree, part)):
                    known[key] = known.get(key, 0) | bit

    def mask(self, part: Part, uid: Uid, above: Collection[Uid]) -> int:
        """The policies in that part of whose scope an entity is, under these ancestors."""
        known, mask = self._by_key[part], 0
        for key in keys_of(uid, above):
            mask |= known.get(key, 0)
        return mask

    def policies(self, mask: int) -> list[Policy]:
        """The policies of a mask, by id."""
        found = [policy for bit, policies in self._by_bit.items() if bit & mask for policy in policies]
        return sorted(found, key=lambda policy: policy.id)
