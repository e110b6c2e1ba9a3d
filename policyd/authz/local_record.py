"""What a sidecar decided by itself, as its access log tells it: the Entry, and what policyd said of the same request.

Law: it is evidence and decides nothing: the request is over. Who tells it is known (an agent, of an instance that it
runs), and the listener is one of that instance's; all else is as hostile as in a check. What the decision read is on
record as if policyd had made it, where the revision by which it was made is still known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from policyd.audit.record import Entry
from policyd.authz.logged import ENVOYS_ID, identity_of, query_of
from policyd.authz.record import NOTHING, Include, Outcome, entry_of
from policyd.authz.request import (
    TOLD_HEADERS,
    trace_of,
    usable_id,
)
from policyd.authz.ruling import Ruling
from policyd.cedar.model import Decision
from policyd.errors import DecisionError, IncompleteRequest, PolicydError, UnacceptablePath
from policyd.mesh.model import Listener, Mesh
from policyd.names import (
    METADATA_DECISION,
    METADATA_POLICY,
    METADATA_REVISION,
    RBAC_FILTER,
    RBAC_RESULT,
    RBAC_RULE,
    RULE_BAD_PATH,
    RULE_FAILED,
    RULE_INCOMPLETE,
    RULE_NOBODY,
    STATE_DECISION_ID,
)

AUTHZ: Final = "envoy.filters.http.ext_authz"
MAX_POLICY: Final = 256
MAX_AGE: Final = timedelta(days=7)  # of what was told; an older time is not believed
BY_PROXY: Final = "proxy"
MAX_ALIKE: Final = 4_096  # kinds of requests that are remembered
MAX_ALIKE_LENGTH: Final = 2_048  # characters of one

_ENDS: Final = frozenset({"source", "destination", "client_ip"})  # of the schema's HttpContext

_REVISION: Final = re.compile(r"[0-9a-f]{64}")


class Compared(NamedTuple):
    """A request that both have decided, by one revision: as `allow deny.policy`, for people."""

    local: str
    central: str

    @property
    def differs(self) -> bool:
        """Whether the answers are not the same."""
        return self.local != self.central


class Told(NamedTuple):
    """One decision of a sidecar; `compared` where it is one of the sample."""

    entry: Entry
    compared: Compared | None = None


class Reader:
    """Reads what sidecars tell, and remembers what requests that are alike come to: most of them are.

    `ruling_of` gives the ruling of a revision, None where it is no longer known. Not for two threads at once.
    """

    def __init__(self, ruling_of: Callable[[str], Ruling | None], include: Include = NOTHING) -> None:
        self._ruling_of = ruling_of
        self._include = include
        self._mesh: Mesh | None = None
        self._alike: dict[tuple[str, ...], tuple[Entry, Outcome]] = {}

    def read(self, logged: Any, listener: Listener, mesh: Mesh, now: datetime) -> Told:
        """Read an HTTPAccessLogEntry; raises IncompleteRequest where it tells of no decision."""
        if mesh is not self._mesh or len(self._alike) >= MAX_ALIKE:
            self._mesh, self._alike = mesh, {}
        common, request = logged.common_properties, logged.request
        said = _fields(common, RBAC_FILTER)
        word, rule = said.get(RBAC_RESULT, ""), said.get(RBAC_RULE, "")
        revision, decision_id = common.route_name, _id(common)
        if word not in ("allowed", "denied") or not ENVOYS_ID.fullmatch(decision_id):
            raise IncompleteRequest("this is no decision of a sidecar")
        time, headers = _time(common, now), dict(request.request_headers)
        ruling = self._ruling_of(revision)
        key = (listener.name, word, rule, revision, request.authority, request.path, identity_of(common))
        key = (*key, *_ends(common, ruling), *self._headers(headers, ruling))
        known = self._alike.get(key)
        if known is None:
            known = self._made(
                logged, listener, mesh, time, ruling, _outcome(rule, revision, allowed=word == "allowed")
            )
            if sum(map(len, key)) <= MAX_ALIKE_LENGTH:
                self._alike[key] = known
        template, outcome = known
        trace_id, span_id = trace_of(headers)
        request_id = usable_id(request.request_id) if outcome.query else ""
        ids = {"request_id": request_id, "trace_id": trace_id, "span_id": span_id}
        entry = replace(template, time=time, decision_id=decision_id, **(ids if outcome.query else {}))
        compared = _compared(outcome, _fields(common, AUTHZ)) if AUTHZ in common.metadata.filter_metadata else None
        return Told(entry, compared)

    def _headers(self, headers: Mapping[str, str], ruling: Ruling | None) -> Iterator[str]:
        """Those that make a difference: what only tells which request it is does not, unless it is on record."""
        read = ruling.headers_read if ruling is not None else ()
        for name, value in sorted(headers.items()):
            if name not in TOLD_HEADERS or name in read or name in self._include.headers:
                yield name
                yield value

    def _made(
        self, logged: Any, listener: Listener, mesh: Mesh, time: datetime, ruling: Ruling | None, outcome: Outcome
    ) -> tuple[Entry, Outcome]:
        """What a request comes to, without what is its own."""
        if not _REVISION.fullmatch(outcome.revision):
            raise IncompleteRequest("this is no decision under a revision")
        try:
            outcome = outcome._replace(query=query_of(logged, listener, mesh, time))
        except IncompleteRequest:
            if outcome.word != "error":
                raise
        if ruling is not None:
            outcome = _with_what_was_read(outcome, ruling)
        return replace(entry_of(outcome, "", time, 0, self._include), decided_by=BY_PROXY), outcome


def _ends(common: Any, ruling: Ruling | None) -> tuple[str, ...]:
    """The addresses, where policies read one of them."""
    read = ruling.policy_set.reads.context if ruling is not None else None
    if read is not None and _ENDS.isdisjoint(read):
        return ()
    ends = (common.downstream_remote_address.socket_address, common.downstream_local_address.socket_address)
    return tuple(f"{one.address} {one.port_value}" for one in ends)


def _outcome(rule: str, revision: str, *, allowed: bool) -> Outcome:
    """What a rule of the filter stands for, as policyd says it."""
    if rule == RULE_INCOMPLETE:
        return Outcome("error", 503, revision, error=IncompleteRequest("no usable method, host or caller"))
    if rule == RULE_BAD_PATH:
        return Outcome("deny", 400, revision, error=UnacceptablePath("the path has no canonical form"))
    if rule == RULE_FAILED:
        return Outcome("deny", 403, revision, decision=Decision(allowed=False), error=DecisionError("a forbid failed"))
    if rule != RULE_NOBODY and (not rule or len(rule) > MAX_POLICY or not rule.isprintable() or rule[0] == " "):
        raise IncompleteRequest("this names no rule")
    reasons = () if rule == RULE_NOBODY else (rule,)
    return Outcome(
        "allow" if allowed else "deny", 200 if allowed else 403, revision, decision=Decision(allowed, reasons)
    )


def _with_what_was_read(outcome: Outcome, ruling: Ruling) -> Outcome:
    """The outcome with the part of the request that its policies read; of a forbid that failed, with which one."""
    if outcome.query is None or outcome.decision is None:
        return outcome
    try:
        question = ruling.engine.question(ruling.lean_request(outcome.query.facts))
        if outcome.error is not None:
            outcome = outcome._replace(decision=ruling.engine.answer(question), error=None)
    except PolicydError:
        return outcome
    return outcome._replace(request=question.request)


def _compared(outcome: Outcome, central: Mapping[str, str]) -> Compared | None:
    """What policyd said, if it was asked about this request and decided by the same revision."""
    if central.get(METADATA_REVISION) != outcome.revision:
        return None
    said = f"{central.get(METADATA_DECISION, '')} {central.get(METADATA_POLICY, '')}"[: MAX_POLICY + 8]
    return Compared(f"{outcome.word} {outcome.policy}".strip(), said.strip())


def _time(common: Any, now: datetime) -> datetime:
    """When the request began, as far as that can be believed."""
    try:
        began = datetime.fromtimestamp(common.start_time.seconds, UTC)
        began = began.replace(microsecond=common.start_time.nanos // 1000)
    except (ValueError, OverflowError, OSError):
        return now
    return began if now - MAX_AGE < began <= now else now


def _fields(common: Any, filter_: str) -> dict[str, str]:
    """The texts that a filter has left in the request's metadata."""
    found = common.metadata.filter_metadata
    return {name: one.string_value for name, one in found[filter_].fields.items()} if filter_ in found else {}


def _id(common: Any) -> str:
    """The decision's id, which the sidecar made (a StringValue in filter state)."""
    kept = common.filter_state_objects
    if STATE_DECISION_ID not in kept:
        return ""
    text: str = kept[STATE_DECISION_ID].value[2:].decode("ascii", "replace")
    return text
