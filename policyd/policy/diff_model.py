"""What a comparison of two folders came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from policyd.cedar.policies import Policy

Change = Literal["newly allowed", "newly denied", "condition changed", "no difference found"]


@dataclass(frozen=True, slots=True)
class Side:
    """What one side answers: "allow" or "deny" with the policies, or "none" where it has no such service."""

    word: Literal["allow", "deny", "none"]
    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tried:
    """One request, in words, and what both sides answer."""

    request: str
    old: Side
    new: Side

    @property
    def differs(self) -> bool:
        """Whether one side allows it and the other does not."""
        return (self.old.word == "allow") is not (self.new.word == "allow")


@dataclass(frozen=True, slots=True)
class Combination:
    """A caller, a method and a service that meet other policies, or other facts, on one side than on the other.

    `old` and `new` are the ids of the policies that only that side's requests meet; `whole` is false where conditions
    suggest more requests than were tried.
    """

    caller: str
    method: str
    service: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    tried: tuple[Tried, ...]
    whole: bool

    @property
    def change(self) -> Change:
        """What became of it, as far as it was tried."""
        if not any(one.differs for one in self.tried):
            return "no difference found"
        if not any(one.old.word == "allow" for one in self.tried):
            return "newly allowed"
        return "condition changed" if any(one.new.word == "allow" for one in self.tried) else "newly denied"


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """A policy that one side lacks (None), or that says something else under the same id."""

    old: Policy | None
    new: Policy | None


@dataclass(frozen=True, slots=True)
class Difference:
    """All that was found, and how much was looked at.

    `callers` and `services` are those of both sides together (texts of Uids, ids), `total` the combinations of what can
    be told apart there, `only_old` and `only_new` what one side alone declares. `requests` were decided under both;
    `untried` combinations were beyond the bound.
    """

    callers: tuple[str, ...]
    methods: tuple[str, ...]
    services: tuple[str, ...]
    total: int
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    policies: tuple[PolicyChange, ...]
    combinations: tuple[Combination, ...]
    requests: int
    untried: int

    @property
    def differs(self) -> bool:
        """Whether any request is answered differently."""
        return any(one.change != "no difference found" for one in self.combinations)
