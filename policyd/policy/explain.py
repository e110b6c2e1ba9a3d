"""Why a request was denied, and what would have allowed it, from the policies themselves.

Law: nothing is guessed. A policy whose scope holds the request and that did not permit has a condition that
is false; a policy in whose scope the request almost is, is named with the part that keeps it out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policyd.cedar.model import Decision, Request
from policyd.cedar.policies import Policy, PolicySet
from policyd.cedar.schema import Schema
from policyd.cedar.scope import ScopeMatch, Scopes

MAX_NEAR = 3
_TOO_FAR = 3

_OTHER = {"principal": "another caller", "action": "another method", "resource": "another service"}


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A permit that would have allowed the request but for `missing`: parts of its scope, or () for its
    condition.
    """

    policy: Policy
    missing: tuple[str, ...]

    def __str__(self) -> str:
        """In one line."""
        place = f"`{self.policy.id}` ({self.policy.file}:{self.policy.line})"
        if not self.missing:
            return f"{place} covers this caller, method and service, but its condition is not met"
        return f"{place} is for {' and '.join(_OTHER[part] for part in self.missing)}"


def why(decision: Decision, request: Request, policy_set: PolicySet) -> str:
    """One line: what determined the decision."""
    if decision.allowed:
        return f"permitted by {_listed(decision.reasons, policy_set)}"
    if decision.reasons:
        return f"forbidden by {_listed(decision.reasons, policy_set)}"
    failed = [error.policy for error in decision.errors]
    forbids = [one for one in failed if _effect(one, policy_set) == "forbid"]
    if forbids:
        return f"{_listed(forbids, policy_set)} failed, and a forbid that fails denies"
    if not policy_set.policies:
        return "there are no policies, and what nothing permits is denied"
    return f"no policy permits {request.principal} {request.action} on {request.resource}"


def near_misses(decision: Decision, request: Request, policy_set: PolicySet, schema: Schema) -> list[NearMiss]:
    """The permits that come nearest to allowing a request that nothing permitted, at most MAX_NEAR, nearest
    first.
    """
    if decision.allowed or decision.reasons:
        return []
    failed = {error.policy for error in decision.errors}
    scopes = Scopes(request, schema)
    permits = [one for one in policy_set.policies if one.effect == "permit" and one.id not in failed]
    found = [NearMiss(one, _missing(scopes.match(one.tree))) for one in permits]
    nearest = min((_distance(one) for one in found), default=_TOO_FAR)
    if nearest >= _TOO_FAR:
        return []
    return sorted((one for one in found if _distance(one) == nearest), key=lambda one: one.policy.id)[:MAX_NEAR]


def _missing(match: ScopeMatch) -> tuple[str, ...]:
    return tuple(part for part, holds in match._asdict().items() if not holds)


def _distance(miss: NearMiss) -> int:
    """What is for another service was not meant for this one, however near the rest is."""
    return sum(_TOO_FAR if part == "resource" else 1 for part in miss.missing)


def _effect(policy_id: str, policy_set: PolicySet) -> str:
    policy = policy_set.find(policy_id)
    return policy.effect if policy else ""


def _listed(ids: Iterable[str], policy_set: PolicySet) -> str:
    """The policies with their places."""
    found = ((one, policy_set.find(one)) for one in ids)
    return ", ".join(f"`{one}` ({policy.file}:{policy.line})" if policy else f"`{one}`" for one, policy in found)
