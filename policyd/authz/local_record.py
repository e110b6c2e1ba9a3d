"""What a sidecar decided by itself, as its access log tells it: the Entry, and what policyd said of the same request.

Law: it is evidence and decides nothing: the request is over. Who tells it is known (an agent, of an instance that it
runs), and the listener is one of that instance's; all else is as hostile as in a check. What the decision read is on
record as if policyd had made it, where the revision by which it was made is still known.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError
from msgspec.structs import replace

from policyd import envoy_api
from policyd._pb import logged_pb2
from policyd.audit.record import Entry
from policyd.audit.stencil import Own, Stencil
from policyd.authz.logged import ENVOYS_ID, query_of, shown_by
from policyd.authz.record import NOTHING, Include, Outcome, entry_of
from policyd.authz.request import (
    TOLD_HEADERS,
    trace_of,
    usable_id,
)
from policyd.authz.ruling import Ruling
from policyd.authz.user import said_user
from policyd.cedar.model import Decision
from policyd.errors import DecisionError, IncompleteRequest, PolicydError, UnacceptablePath
from policyd.mesh.model import Listener, Mesh
from policyd.names import (
    METADATA_DECISION,
    METADATA_POLICY,
    METADATA_REVISION,
    RBAC_ALLOWED,
    RBAC_DENIED,
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
MAX_AGE: Final = 7 * 86_400 * 1_000_000  # microseconds of what was told; an older time is not believed
BY_PROXY: Final = "proxy"
MAX_ALIKE: Final = 4_096  # kinds of requests that are remembered
MAX_ALIKE_BYTES: Final = 4_096  # of one

_ENDS: Final = frozenset({"source", "destination", "client_ip"})  # of the schema's HttpContext

_ENTRY: Final = logged_pb2.LoggedEntry
_NO_TRACE: Final = ("", "")
_ONLY_TOLD: Final = frozenset(TOLD_HEADERS)
_TOLD_STARTS: Final = frozenset(name[:4].encode() for name in TOLD_HEADERS)  # a header begins two bytes before its name
_STRING: Final = b"type.googleapis.com/google.protobuf.StringValue"
# how an entry of the map begins: the name, and an Any of a StringValue, each with its length in front
_BEFORE_ID: Final = b"\x0a%c%b\x12%c\x0a%c%b\x12\x26\x0a\x24" % (
    *(len(STATE_DECISION_ID), STATE_DECISION_ID.encode(), len(_STRING) + 42),
    *(len(_STRING), _STRING),
)
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

    stencil: Stencil
    own: Own
    compared: Compared | None = None

    @property
    def entry(self) -> Entry:
        """What is to be on record."""
        return self.stencil.entry_of(self.own)


class Silent(IncompleteRequest):
    """Envoy says nothing of its filter: it is none that policyd knows."""


class _Alike(NamedTuple):
    """What requests that are alike come to; `has_ids` where those of the request are on record."""

    stencil: Stencil
    outcome: Outcome
    has_ids: bool


class _Matters(NamedTuple):
    """Whether the addresses are read, and which headers are on record that else only tell which request it is."""

    ends: bool
    told: frozenset[str]


class Reader:
    """Reads what sidecars tell, and remembers what requests that are alike come to: most of them are.

    `ruling_of` gives the ruling of a revision, None where it is no longer known; `stencil` is the journal's. Not for
    two threads at once.
    """

    def __init__(
        self,
        ruling_of: Callable[[str], Ruling | None],
        include: Include = NOTHING,
        stencil: Callable[[Entry], Stencil] = Stencil,
    ) -> None:
        self._ruling_of = ruling_of
        self._include = include
        self._stencil = stencil
        self._mesh: Mesh | None = None
        self._alike: dict[tuple[object, ...], _Alike] = {}
        self._by_revision: dict[str, _Matters] = {}
        self._whole: Any = envoy_api.message("envoy.data.accesslog.v3.HTTPAccessLogEntry")

    def read(self, logged: bytes, listener: Listener, mesh: Mesh, now: int) -> Told:
        """Read an HTTPAccessLogEntry at a time in microseconds.

        Raises IncompleteRequest where it tells of no decision, JournalError where that has no line.
        """
        if mesh is not self._mesh or len(self._alike) >= MAX_ALIKE:
            self._mesh, self._alike, self._by_revision = mesh, {}, {}
        entry: logged_pb2.LoggedEntry = _parsed(_ENTRY, logged)
        common, request = entry.common_properties, entry.request
        revision, metadata = common.route_name, common.metadata
        time = _time(common.start_time, now)
        matters = self._matters(revision)
        headers, trace_id, span_id = _headers(request.request_headers, matters.told)
        both = (common.downstream_remote_address, common.downstream_local_address)
        ends = both if matters.ends else ()
        caller = _caller(common.tls_properties)
        key = (listener.name, revision, metadata, caller, request.authority, request.path, headers, ends)
        known = self._alike.get(key)
        compared = None
        if known is None:
            whole = _parsed(self._whole, logged)
            known = self._made(whole, listener, mesh, time)
            if AUTHZ in whole.common_properties.metadata.filter_metadata:  # one of the sample, which says its own id
                compared = _compared(known.outcome, _fields(whole.common_properties, AUTHZ))
            elif len(logged) <= MAX_ALIKE_BYTES:
                self._alike[key] = known
        decision_id = _id(common.filter_state_objects)
        if not known.has_ids:
            return Told(known.stencil, Own(time, decision_id), compared)
        own = Own(time, decision_id, usable_id(request.request_id), trace_id, span_id)
        return Told(known.stencil, own, compared)

    def _matters(self, revision: str) -> _Matters:
        """What makes a difference besides the obvious, under a revision."""
        known = self._by_revision.get(revision)
        if known is None:
            ruling = self._ruling_of(revision)
            read = ruling.policy_set.reads.context if ruling is not None else None
            headers = (ruling.headers_read if ruling is not None else frozenset()) | self._include.headers
            ends = read is None or not _ENDS.isdisjoint(read)
            known = self._by_revision[revision] = _Matters(ends, _ONLY_TOLD & headers)
        return known

    def _made(self, logged: Any, listener: Listener, mesh: Mesh, time: int) -> _Alike:
        """What a request comes to, without what is its own."""
        common = logged.common_properties
        said, revision = _fields(common, RBAC_FILTER), common.route_name
        if RBAC_RESULT not in said:
            raise Silent("this tells nothing of a decision")
        word, rule = said[RBAC_RESULT], said.get(RBAC_RULE, "")
        if word not in (RBAC_ALLOWED, RBAC_DENIED) or not _REVISION.fullmatch(revision):
            raise IncompleteRequest("this is no decision of a sidecar under a revision")
        outcome, began = _outcome(rule, revision, allowed=word == RBAC_ALLOWED), Own(time).when
        try:
            query = query_of(logged, listener, mesh, began)
            outcome = outcome._replace(
                query=query._replace(facts=query.facts._replace(user=said_user(common, listener)))
            )
        except IncompleteRequest:
            if outcome.word != "error":
                raise
        ruling = self._ruling_of(revision)
        if ruling is not None:
            outcome = _with_what_was_read(outcome, ruling)
        entry = replace(entry_of(outcome, "", began, 0, self._include), decided_by=BY_PROXY)
        return _Alike(self._stencil(entry), outcome, outcome.query is not None)


def _headers(logged: Iterable[bytes], kept: frozenset[str]) -> tuple[tuple[bytes, ...], str, str]:
    """Those that make a difference, and the trace and the span.

    What only tells which request it is makes none, unless it is `kept` on record.
    """
    alike, told = [], {}
    for raw in logged:
        if raw[2:6] in _TOLD_STARTS:
            header: logged_pb2.LoggedHeader = _parsed(logged_pb2.LoggedHeader, raw)
            told[header.key] = header.value
            if header.key in _ONLY_TOLD and header.key not in kept:
                continue
        alike.append(raw)
    alike.sort()
    return tuple(alike), *(trace_of(told) if told else _NO_TRACE)


def _parsed(kind: Any, body: bytes) -> Any:
    """A message from its bytes; raises IncompleteRequest."""
    try:
        return kind.FromString(body)
    except DecodeError:
        raise IncompleteRequest("this is no message of an access log") from None


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
    """The outcome with the part of the request that its policies read, and all policies that determine it.

    Envoy names the first that matched, and of a forbid that failed none: policyd decides again, and where it comes to
    the same, that has all of them. Where it does not, what the sidecar did stands.
    """
    decision = outcome.decision
    if outcome.query is None or decision is None:
        return outcome
    try:
        question = ruling.engine.question(ruling.lean_request(outcome.query.facts))
        again = dataclasses.replace(ruling.engine.answer(question), cached=False)
    except PolicydError:
        return outcome
    outcome = outcome._replace(request=question.request)
    if outcome.error is not None:
        return outcome._replace(decision=again, error=None)
    is_same = (again.allowed, again.reasons[:1]) == (decision.allowed, decision.reasons)
    return outcome._replace(decision=again) if is_same else outcome


def _compared(outcome: Outcome, central: Mapping[str, str]) -> Compared | None:
    """What policyd said, if it was asked about this request and decided by the same revision."""
    if central.get(METADATA_REVISION) != outcome.revision:
        return None
    said = f"{central.get(METADATA_DECISION, '')} {central.get(METADATA_POLICY, '')}"[: MAX_POLICY + 8]
    return Compared(f"{outcome.word} {outcome.policy}".strip(), said.strip())


@lru_cache(maxsize=MAX_ALIKE)
def _caller(tls: bytes) -> str:
    """The name in the peer's certificate: what else is said of a connection is its own."""
    return shown_by(_parsed(envoy_api.message("envoy.data.accesslog.v3.TLSProperties"), tls)) if tls else ""


def _time(start: logged_pb2.LoggedTime, now: int) -> int:
    """When the request began, as far as that can be believed."""
    began = start.seconds * 1_000_000 + start.nanos // 1000
    return began if now - MAX_AGE < began <= now else now


def _fields(common: Any, filter_: str) -> dict[str, str]:
    """The texts that a filter has left in the request's metadata."""
    found = common.metadata.filter_metadata
    return {name: one.string_value for name, one in found[filter_].fields.items()} if filter_ in found else {}


def _id(kept: Iterable[bytes]) -> str:
    """The decision's id, which the sidecar made (a StringValue in filter state); raises IncompleteRequest."""
    for one in kept:
        if one.startswith(_BEFORE_ID):
            found = ENVOYS_ID.fullmatch(one[len(_BEFORE_ID) :].decode("ascii", "replace"))
            if found is not None:
                return found[0]
    raise IncompleteRequest("a decision without an id")
