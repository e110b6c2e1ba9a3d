"""One request decided offline, and explained: what `policyd authorize FROM METHOD URL` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from policyd.cedar.http import HttpFacts
from policyd.cedar.model import Decision, Request
from policyd.cedar.policies import Policy
from policyd.policy.explain import NearMiss, near_misses, why
from policyd.policy.request_form import parse_form, resolve_form
from policyd.policy.ruling import Ruling


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision with its reasons as policies (text, file, line), one line of `why`, and for a denial that no
    policy made what would have allowed it, nearest first.
    """

    facts: HttpFacts
    request: Request
    decision: Decision
    reasons: tuple[Policy, ...]
    why: str
    near: tuple[NearMiss, ...]


def authorize(text: str, ruling: Ruling, time: datetime, headers: Mapping[str, str] | None = None) -> Answer:
    """Decide `FROM METHOD URL` as the service would at `time`.

    Raises InvalidInput for a request that means nothing, UnacceptablePath, and DecisionError.
    """
    facts = resolve_form(parse_form(text), ruling.mesh, time, headers)
    return answer(facts, ruling)


def answer(facts: HttpFacts, ruling: Ruling) -> Answer:
    """Decide and explain; raises UnacceptablePath, IncompleteRequest and DecisionError."""
    request = ruling.request(facts)
    decision = ruling.decide(request)
    policies = ruling.policy_set
    return Answer(
        facts=facts,
        request=request,
        decision=decision,
        reasons=tuple(policy for policy in policies.policies if policy.id in decision.reasons),
        why=why(decision, request, policies),
        near=tuple(near_misses(decision, request, policies, ruling.schema)),
    )
