"""One request decided offline, and explained: what `policyd authorize FROM METHOD URL` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from policyd.audit.match import short_name
from policyd.cedar.http import HttpFacts
from policyd.cedar.model import Decision, Request, Uid
from policyd.policy.change import identifies
from policyd.policy.end_user import Shown
from policyd.policy.explain import Explanation, explain
from policyd.policy.request_form import ANONYMOUS, Form, parse_form
from policyd.policy.resolving import resolve_form
from policyd.policy.ruling import Ruling


@dataclass(frozen=True, slots=True)
class Answer:
    """A question, its decision with the explanation, and what is to be known besides (`notes`, a line each)."""

    request: Request
    explanation: Explanation
    notes: tuple[str, ...] = ()

    @property
    def decision(self) -> Decision:
        """What was decided."""
        return self.explanation.decision


def authorize(
    text: str,
    ruling: Ruling,
    time: datetime,
    headers: Mapping[str, str] | None = None,
    user: Shown | None = None,
) -> Answer:
    """Decide `FROM METHOD URL` as the service would at `time`, with a token that proves `user`.

    Raises InvalidInput for a request that means nothing, UnacceptablePath, and DecisionError.
    """
    form = parse_form(text)
    facts = resolve_form(form, ruling.mesh, time, headers, user)
    return answer(facts, ruling, remarks(form, facts, ruling))


def remarks(form: Form, facts: HttpFacts, ruling: Ruling) -> tuple[str, ...]:
    """What is to be known of a request besides: that its caller is not told from others there."""
    named = form.caller != ANONYMOUS and facts.principal is None
    return _unidentified(facts.service, ruling) if named else ()


def answer(facts: HttpFacts, ruling: Ruling, notes: tuple[str, ...] = ()) -> Answer:
    """Decide and explain; raises UnacceptablePath, IncompleteRequest and DecisionError."""
    request = ruling.request(facts)
    return Answer(request, explain(request, ruling), notes)


def _unidentified(service: str, ruling: Ruling) -> tuple[str, ...]:
    if identifies(ruling.mesh, service):
        return ()
    name = short_name(str(Uid("Service", service)))
    return (f"`{name}` verifies no callers, so everybody is anonymous to it",)
