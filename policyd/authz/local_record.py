"""What a sidecar decided by itself, as a line of it tells: the Entry, and what policyd said of the same request.

Law: it is evidence and decides nothing: the request is over. Who tells it is known (an agent, of an instance that it
runs), and the listener is one of that instance's; all else is as hostile as in a check. What the decision read is on
record as if policyd had made it, where the revision by which it was made is still known.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from policyd.audit.record import Entry
from policyd.audit.stencil import Own, Stencil
from policyd.authz.logged import ENVOYS_ID, Logged, query_of
from policyd.authz.record import NOTHING, Include, Outcome, entry_of
from policyd.authz.request import TRACE_HEADERS, trace_of, usable_id
from policyd.authz.ruling import Ruling
from policyd.authz.user import said_user
from policyd.cedar.model import Decision
from policyd.decision_line import SEPARATOR, Kind, Line, kind_of, line_of, text
from policyd.errors import DecisionError, IncompleteRequest, PolicydError, UnacceptablePath
from policyd.mesh.model import Listener, Mesh
from policyd.names import (
    METADATA_DECISION,
    METADATA_POLICY,
    METADATA_REVISION,
    RBAC_ALLOWED,
    RBAC_DENIED,
    RULE_BAD_PATH,
    RULE_FAILED,
    RULE_INCOMPLETE,
    RULE_NOBODY,
)

MAX_POLICY: Final = 256
MAX_AGE: Final = 7 * 86_400 * 1_000_000  # microseconds of what was told; an older time is not believed
BY_PROXY: Final = "proxy"
MAX_ALIKE: Final = 4_096  # kinds of requests that are remembered
MAX_ALIKE_BYTES: Final = 4_096  # of one

_ENDS: Final = frozenset({"source", "destination", "client_ip"})  # of the schema's HttpContext
_UNTRACED: Final = (b"", b"", b"")
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%[0-9A-Za-z._-]+)?)\]|([0-9.]+)):([0-9]{1,5})")
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
    """One decision of a sidecar, at a listener of it; `compared` where it is one of the sample."""

    listener: Listener
    stencil: Stencil
    own: Own
    compared: Compared | None = None

    @property
    def entry(self) -> Entry:
        """What is to be on record."""
        return self.stencil.entry_of(self.own)


class Foreign(IncompleteRequest):
    """The listener is none of the instance's."""


class Silent(IncompleteRequest):
    """Envoy says nothing of its filter: it is none that policyd knows."""


class _Alike(NamedTuple):
    """What requests that are alike come to; `has_ids` where those of the request are on record."""

    listener: Listener
    stencil: Stencil
    outcome: Outcome
    has_ids: bool


class _Address(NamedTuple):
    address: str = ""
    port_value: int = 0


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
        self._by_ends: dict[bytes, bool] = {}

    def read(self, told: bytes, instance: str, mesh: Mesh, now: int) -> Told:
        """Read a line of an instance's at a time in microseconds.

        Raises IncompleteRequest where it tells of no decision, JournalError where that has no line of the journal.
        """
        if mesh is not self._mesh or len(self._alike) >= MAX_ALIKE:
            self._mesh, self._alike, self._by_ends = mesh, {}, {}
        try:
            line = line_of(told)
            _, revision, _ = line.common.split(SEPARATOR, 2)
        except ValueError:
            raise IncompleteRequest("this is no line of a decision") from None
        time = line.began if now - MAX_AGE < line.began <= now else now
        key = (instance, line.common, line.source if self._reads_ends(revision) else b"")
        known = self._alike.get(key)
        compared = None
        if known is None:
            try:
                kind = kind_of(line.common)
            except ValueError:
                raise IncompleteRequest("this is no line of a decision") from None
            known = self._made(kind, line, instance, mesh, time)
            if kind.central:  # one of the sample, which says its own id
                compared = _compared(known.outcome, _said(kind.central))
            elif len(told) <= MAX_ALIKE_BYTES:
                self._alike[key] = known
        if not ENVOYS_ID.fullmatch(line.decision_id):
            raise IncompleteRequest("a decision without an id")
        if not known.has_ids:
            return Told(known.listener, known.stencil, Own(time, line.decision_id), compared)
        own = Own(time, line.decision_id, usable_id(line.request_id), *_trace(line.traces))
        return Told(known.listener, known.stencil, own, compared)

    def _reads_ends(self, revision: bytes) -> bool:
        """Whether addresses make a difference under a revision."""
        known = self._by_ends.get(revision)
        if known is None:
            ruling = self._ruling_of(text(revision))
            if ruling is None:  # nothing is remembered of what whoever tells may make up
                return True
            read = ruling.policy_set.reads.context
            known = self._by_ends[revision] = read is None or not _ENDS.isdisjoint(read)
        return known

    def _made(self, kind: Kind, line: Line, instance: str, mesh: Mesh, time: int) -> _Alike:
        """What a request comes to, without what is its own."""
        listener = mesh.listeners.get(kind.listener)
        if listener is None or listener.instance != instance:
            raise Foreign(f"`{kind.listener[:80]!a}` is no listener of it any more")
        if not kind.result:
            raise Silent("this tells nothing of a decision")
        if kind.result not in (RBAC_ALLOWED, RBAC_DENIED) or not _REVISION.fullmatch(kind.revision):
            raise IncompleteRequest("this is no decision of a sidecar under a revision")
        began = Own(time).when
        outcome = _outcome(kind.rule, kind.revision, allowed=kind.result == RBAC_ALLOWED)
        try:
            query = query_of(_logged(kind, line), listener, mesh, began)
            outcome = outcome._replace(
                query=query._replace(facts=query.facts._replace(user=said_user(kind.user, listener)))
            )
        except IncompleteRequest:
            if outcome.word != "error":
                raise
        ruling = self._ruling_of(kind.revision)
        if ruling is not None:
            outcome = _with_what_was_read(outcome, ruling)
        entry = entry_of(outcome, "", began, 0, self._include)
        entry = replace(entry, proxy=instance, decided_by=BY_PROXY)  # whose it is, is known of any request
        return _Alike(listener, self._stencil(entry), outcome, outcome.query is not None)


def _logged(kind: Kind, line: Line) -> Logged:
    """The request, but for its ids."""
    shown = next(filter(None, kind.peer.split(",")), "")
    source, destination = _address(text(line.source)), _address(kind.destination)
    return Logged(source, destination, shown, kind.method, kind.authority, kind.path, kind.headers)


def _address(told: str) -> _Address:
    """An address as Envoy writes it; none for what is no address of IP."""
    found = _ADDRESS.fullmatch(told)
    return _Address(found[1] or found[2], int(found[3])) if found is not None else _Address()


def _trace(traces: tuple[bytes, bytes, bytes]) -> tuple[str, str]:
    if traces == _UNTRACED:
        return "", ""
    return trace_of({name: text(one) for name, one in zip(TRACE_HEADERS, traces, strict=True) if one})


def _said(central: str) -> Mapping[str, str]:
    """The texts that policyd has left of a request, as JSON; of its words each can be printed."""
    try:
        found = json.loads(central)
    except (ValueError, RecursionError):
        return {}
    said = found.items() if isinstance(found, dict) else ()
    return {name: one for name, one in said if isinstance(one, str) and one.isprintable()}


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
