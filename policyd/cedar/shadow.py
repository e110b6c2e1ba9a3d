"""Policies that are tried beside the active ones: which of a folder's policies those are, and the set that they make.

Law: a policy that is marked `@shadow` is in no active set. The shadow set is what would be active if the trial were
over: all policies, those that a marked one stands in for left out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from policyd.cedar.policies import Policy, PolicySet, set_of
from policyd.errors import InvalidInput, Problem

MARK: Final = "shadow"
NEAR: Final = 0.8  # of difflib: what was surely meant for the mark

_CODE: Final = "policy_shadow"


@dataclass(frozen=True, slots=True)
class Sets:
    """The policies that are enforced, and those that are tried beside them; None where nothing is tried."""

    active: PolicySet
    shadow: PolicySet | None = None


def is_shadow(policy: Policy) -> bool:
    """Whether it is marked, hence not active."""
    return MARK in policy.annotations


def split(policies: PolicySet) -> Sets:
    """Tell a folder's policies apart; raises InvalidInput for a mark that means nothing.

    `@shadow` tries a policy together with the active ones, `@shadow("id")` in the place of the active one of that id.
    """
    _raise(_misspelt(policies.policies))
    marked = [policy for policy in policies.policies if is_shadow(policy)]
    if not marked:
        return Sets(policies)
    active = [policy for policy in policies.policies if not is_shadow(policy)]
    _raise(_replacing_nothing(marked, {policy.id for policy in active}))
    replaced = {policy.annotations[MARK] for policy in marked}
    return Sets(set_of(active), set_of(policy for policy in policies.policies if policy.id not in replaced))


def beside(policies: PolicySet, shadow: PolicySet, place: str) -> Sets:
    """The policies of a folder, and as their shadow all those of another one, `place`; raises InvalidInput where any of
    them is marked: there is one shadow set.
    """
    elsewhere = f"there is a shadow folder, `{place}`, too"
    check_unmarked(policies, elsewhere, "move the policy there, or remove `@shadow`")
    check_unmarked(shadow, "all policies of a shadow folder are", "remove `@shadow`")
    return Sets(policies, shadow)


def check_unmarked(policies: PolicySet, why: str, remedy: str) -> None:
    """Refuse marks where there is no shadow set for them, or another one; raises InvalidInput."""
    _raise(_misspelt(policies.policies))
    marked = [policy for policy in policies.policies if is_shadow(policy)]
    _raise(_problem(policy, f"`{policy.id}` is marked `@shadow`, but {why}", remedy) for policy in marked)


def _misspelt(policies: Sequence[Policy]) -> Iterator[Problem]:
    """A policy that was to be tried must not be enforced for a letter."""
    for policy in policies:
        for name in policy.annotations:
            if name != MARK and _is_near(name):
                yield _problem(policy, f"`{policy.id}` has an annotation `@{name}`", "did you mean `@shadow`?")


@lru_cache(maxsize=1024)
def _is_near(name: str) -> bool:
    return difflib.SequenceMatcher(None, name.lower(), MARK).ratio() >= NEAR


def _replacing_nothing(marked: Sequence[Policy], active: set[str]) -> Iterator[Problem]:
    for policy in marked:
        other = policy.annotations[MARK]
        if other and other not in active:
            near = difflib.get_close_matches(other, active, 1)
            remedy = f"did you mean `{near[0]}`?" if near else "write `@shadow` alone to add the policy"
            yield _problem(policy, f"`{policy.id}` is to stand in for `{other}`, which is no active policy", remedy)


def _problem(policy: Policy, message: str, remedy: str) -> Problem:
    return Problem(_CODE, message, policy.file, policy.line, remedy=remedy)


def _raise(problems: Iterator[Problem]) -> None:
    found = list(problems)
    if found:
        raise InvalidInput(found)
