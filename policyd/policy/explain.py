"""Why a request was decided as it was, and what would have allowed it.

Law: nothing is guessed: what applied is Cedar's decision, what failed Cedar's evaluation, what would help was decided.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policyd.audit.match import short_name
from policyd.cedar.model import Decision, Request
from policyd.cedar.policies import Policy, PolicySet
from policyd.policy.change import method_of
from policyd.policy.nearest import ClauseMiss, NearMiss, conditions_met, near_misses
from policyd.policy.remedies import Remedy, proposed_policy, remedies_for_forbids, remedies_for_misses
from policyd.policy.ruling import Ruling
from policyd.policy.whatif import decide_by

MAX_TOLD = 2  # remedies in one line


@dataclass(frozen=True, slots=True)
class Determining:
    """A policy that determined the decision, and the parts of its condition with what they saw."""

    policy: Policy
    met: tuple[ClauseMiss, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """`why` in a line; for a denial what came `near`, what was verified to allow it, and a policy that would."""

    decision: Decision
    why: str
    reasons: tuple[Determining, ...]
    near: tuple[NearMiss, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    proposal: str = ""

    @property
    def would(self) -> str:
        """What would have allowed it, in a line; "" where nothing is known to, or it is allowed."""
        return "; or ".join(str(one) for one in self.remedies[:MAX_TOLD])


def explain(request: Request, ruling: Ruling) -> Explanation:
    """Decide and explain; raises DecisionError."""
    decision = ruling.decide(request)
    policies = ruling.policy_set
    determining = [policy for policy in policies.policies if policy.id in decision.reasons]
    reasons = tuple(Determining(policy, conditions_met(policy, request)) for policy in determining)
    if decision.allowed:
        return Explanation(decision, f"permitted by {_listed(decision.reasons, policies)}", reasons)
    failed = _failed_forbids(decision, policies)
    if determining or failed:
        return _explain_forbids(decision, reasons, failed, request, ruling)
    near = near_misses(policies.policies, request, ruling.schema)
    return Explanation(
        decision,
        _nothing_permits(request, policies, near),
        (),
        near,
        remedies_for_misses(near, request, ruling),
        proposed_policy(request, ruling),
    )


def _explain_forbids(
    decision: Decision, reasons: tuple[Determining, ...], failed: list[Policy], request: Request, ruling: Ruling
) -> Explanation:
    """Whether something would permit it but for the forbids, and what would come nearest."""
    determining = [reason.policy for reason in reasons]
    forbids = [*determining, *failed]
    policies = ruling.policy_set.policies
    without = decide_by([one for one in policies if one not in forbids], request, ruling.schema)
    near = () if without.allowed else near_misses(policies, request, ruling.schema)
    either = "" if without.allowed else "; without it nothing permits it either"
    remedies = remedies_for_forbids(forbids, without, near, request, ruling)
    return Explanation(decision, _forbidden(determining, failed) + either, reasons, near, remedies)


def _failed_forbids(decision: Decision, policies: PolicySet) -> list[Policy]:
    found = (policies.find(error.policy) for error in decision.errors)
    return [policy for policy in found if policy is not None and policy.effect == "forbid"]


def _forbidden(determining: list[Policy], failed: list[Policy]) -> str:
    if determining:
        return f"forbidden by {', '.join(map(_placed, determining))}"
    return f"{', '.join(map(_placed, failed))} failed, and a forbid that fails denies"


def _nothing_permits(request: Request, policies: PolicySet, near: tuple[NearMiss, ...]) -> str:
    if not policies.policies:
        return "there are no policies, and what nothing permits is denied"
    if near and not near[0].scope:
        return str(near[0])
    who, where = short_name(str(request.principal)), short_name(str(request.resource))
    if not near:
        return f"no policy permits anybody anything on `{where}`"
    path = request.context.get("request", {}).get("path", "")
    return f"no policy permits `{who}` {' '.join(filter(None, (method_of(request), path)))} on `{where}`"


def _listed(ids: Iterable[str], policies: PolicySet) -> str:
    """The policies with their places."""
    found = ((one, policies.find(one)) for one in ids)
    return ", ".join(_placed(policy) if policy else f"`{one}`" for one, policy in found)


def _placed(policy: Policy) -> str:
    return f"`{policy.id}` ({policy.file}:{policy.line})"
