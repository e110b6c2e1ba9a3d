"""A check and its outcome as the journal's Entry.

Law: what the decision read is recorded, so that it can be made again exactly; besides it, only method, host and path.
The tags of the headers and of the instance's labels stand in the context as plain mappings; beside the reference to the
user stand those of its attributes and claims that were read. A token is never here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from policyd.audit.record import Entry, Fault
from policyd.authz.path import canonical_path
from policyd.authz.request import Query
from policyd.authz.ruling import Ruling
from policyd.cedar.http import EndUser
from policyd.cedar.model import ANONYMOUS, Decision, Request, Uid
from policyd.cedar.reads import USER
from policyd.errors import PolicydError, UnacceptablePath

Status = Literal[200, 400, 401, 403, 503]  # what the caller gets; of 200 what the application answers


MAX_REFUSED_PATH = 1024  # characters
USER_KEY = "user"  # in the schema's HttpContext


class Include(NamedTuple):
    """What the operator wants on record though no policy reads it: headers, and claims of verified users, by name."""

    headers: frozenset[str] = frozenset()
    claims: frozenset[str] = frozenset()


NOTHING: Final = Include()


class Outcome(NamedTuple):
    """What became of one check; what is None was not reached."""

    word: Literal["allow", "deny", "error"]
    status: Status
    revision: str = ""
    query: Query | None = None
    request: Request | None = None  # the part that the decision read
    decision: Decision | None = None
    error: PolicydError | None = None
    ruling: Ruling | None = None  # that decided
    asked: Request | None = None  # all that `request` is a part of

    @property
    def policy(self) -> str:
        """The first determining policy, "" where there is none."""
        return self.decision.reasons[0] if self.decision and self.decision.reasons else ""

    @property
    def side(self) -> str:
        """Which side was asked about, "" where that is not known."""
        return self.query.listener.side if self.query else ""


def entry_of(outcome: Outcome, decision_id: str, time: datetime, duration_us: int, include: Include = NOTHING) -> Entry:
    """The entry to keep of an outcome, with what `include` names besides what the decision read."""
    query, request, decision = outcome.query, outcome.request, outcome.decision
    faults = [Fault(error.policy, error.message) for error in decision.errors] if decision else []
    if outcome.error is not None:
        faults.append(Fault(outcome.error.code, str(outcome.error)))
    return Entry(
        time=time,
        kind="decision",
        decision=outcome.word,
        status=outcome.status,
        decision_id=decision_id,
        principal=_principal(query) if request is None else str(request.principal),
        action=str(request.action) if request else "",
        resource=_resource(query) if request is None else str(request.resource),
        reasons=decision.reasons if decision else (),
        errors=tuple(faults),
        context=_context(query, request, include),
        revision=outcome.revision,
        proxy=query.listener.instance if query else "",
        request_id=query.request_id if query else "",
        trace_id=query.trace_id if query else "",
        span_id=query.span_id if query else "",
        cached=decision.cached if decision else False,
        duration_us=duration_us,
    )


def _principal(query: Query | None) -> str:
    if query is None:
        return ""
    caller = query.facts.principal
    return str(Uid("Workload", str(caller)) if caller else ANONYMOUS)


def _resource(query: Query | None) -> str:
    if query is None:
        return ""
    facts = query.facts
    return str(Uid("Host", facts.outside) if facts.outside else Uid("Service", facts.service))


def _context(query: Query | None, request: Request | None, include: Include) -> dict[str, Any]:
    """What the decision read, and in any case what was asked for: nobody finds a request without its path.

    A tunnel has none.
    """
    context = read_of(request) if request else {}
    if query is not None:
        facts = query.facts
        asked = {"method": facts.method, **({"host": facts.host} if facts.host else {})}
        if not facts.is_tunnel:
            asked["path"] = _path(facts.target)
        context["request"] = asked | context.get("request", {})
        if include.headers:
            _include_headers(context["request"], facts.headers, include.headers)
        if include.claims and facts.user is not None:
            _include_claims(context, facts.user, include.claims)
    return context


def _include_headers(request: dict[str, Any], headers: Mapping[str, str], include: frozenset[str]) -> None:
    """Add what the operator lists, beside what the decision read."""
    wanted = {name: headers[name] for name in sorted(include) if name in headers}
    if wanted:
        request["headers"] = wanted | request.get("headers", {})


def _include_claims(context: dict[str, Any], user: EndUser, include: frozenset[str]) -> None:
    """Add what the operator lists, with whose claims they are, beside what the decision read."""
    wanted = {name: list(user.claims[name]) for name in sorted(include) if name in user.claims}
    if wanted:
        kept = context.get(USER_KEY, {"__entity": Uid(USER, user.id).json()})
        context[USER_KEY] = {**kept, "claims": wanted | kept.get("claims", {})}


def _path(target: str) -> str:
    """The canonical path; of one that has none, what was sent, without the query, which may hold secrets."""
    try:
        return canonical_path(target)
    except UnacceptablePath:
        return target.partition("?")[0][:MAX_REFUSED_PATH]


def read_of(request: Request) -> dict[str, Any]:
    """The context with the tags of Headers and Labels in the place of the references to them."""
    tags = {one.uid: one.tags for one in request.entities if one.uid.type in ("Headers", "Labels")}
    context = {name: _resolved(value, tags) for name, value in request.context.items()}
    asks = request.context.get(USER_KEY, {}).get("__entity")
    for user in (one for one in request.entities if one.uid.type == USER and one.uid.json() == asks):
        claims = {"claims": {name: list(values) for name, values in user.tags.items()}} if user.tags else {}
        context[USER_KEY] = {"__entity": user.uid.json(), **user.attrs, **claims}
    return context


def _resolved(value: Any, tags: Mapping[Uid, Mapping[str, Any]]) -> Any:
    if not isinstance(value, Mapping):
        return value
    if (entity := value.get("__entity")) is not None:
        known = tags.get(Uid(entity["type"], entity["id"]))
        return value if known is None else dict(known)
    return value if "__extn" in value else {name: _resolved(inner, tags) for name, inner in value.items()}
