"""The external-authorization service: checks in, replies out, every one of them recorded and counted.

Law: nothing passes that is not on record, and what is broken is 503, never a pass and never 403. Who asks is
the client certificate of the connection. What a proxy decides by itself is on record by its own way.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final, Protocol, cast

import grpc
from google.protobuf.message import DecodeError

from policyd import envoy_api
from policyd.audit.record import Entry, change_of
from policyd.authz import reply
from policyd.authz.record import NOTHING, Include, Outcome, Status, entry_of
from policyd.authz.request import Metadata, headers_of, read_check, traced
from policyd.authz.ruling import Ruling
from policyd.authz.shadow import ShadowSide
from policyd.authz.user import identified
from policyd.errors import (
    DecisionError,
    IncompleteRequest,
    JournalError,
    PolicydError,
    TooLate,
    UnacceptablePath,
    UnacceptableToken,
)
from policyd.names import EXTENSION_LISTENER, EXTENSION_SAMPLED
from policyd.peer import Facts, spiffe_peer
from policyd.spiffe import SpiffeId

SERVICE: Final = "envoy.service.auth.v3.Authorization"
MAX_CHECK_BYTES: Final = 1 << 18  # 60 KiB of headers, whatever they are encoded as

LEAST_SECONDS: Final = 0.005  # what a decision and its way back take on a busy machine


class Journal(Protocol):
    """Where entries are kept; raises JournalError where one could not be."""

    def __call__(self, entry: Entry, /) -> object:
        """Keep `entry`; when this returns, it is kept."""


class Metrics(Protocol):
    """What is counted: names.DECISIONS, REVISION_DECISIONS, DECISION_SECONDS, DECISIONS_SHED and SHADOW_DECISIONS."""

    def decided(self, decision: str, side: str, seconds: float, revision: str, /) -> None:
        """One check was answered with `allow`, `deny` or `error`; `revision` is "" where none was in force."""

    def shadowed(self, change: str, /) -> None:
        """The shadow policies were asked too; see audit.record.change_of."""

    def shed(self) -> None:
        """One check was refused because no answer could have come in time."""


def new_decision_id() -> str:
    """A fresh id for one decision: 32 random hex digits, of no meaning to who sees them."""
    return secrets.token_hex(reply.ID_LENGTH // 2)


class Message(Protocol):
    """How the one message of a call is waited for; ends the call where none comes."""

    def __call__(self, messages: Iterator[bytes], context: grpc.ServicerContext, peer: SpiffeId, /) -> bytes:
        """The message of a call of `peer`."""


class Authorizer:
    """Answers checks under the ruling in force. Safe for concurrent use.

    `clock` tells the time (aware), `stopwatch` seconds of no date, `effort` those that a thread has worked; `new_id`
    makes decision ids of reply.ID_LENGTH. What `include` names is recorded though no policy reads it.
    """

    def __init__(
        self,
        *,
        ruling: Callable[[], Ruling | None],
        record: Journal,
        metrics: Metrics,
        clock: Callable[[], datetime],
        stopwatch: Callable[[], float],
        effort: Callable[[], float] = time.thread_time,
        new_id: Callable[[], str] = new_decision_id,
        include: Include = NOTHING,
    ) -> None:
        self._ruling = ruling
        self._record = record
        self._metrics = metrics
        self._clock = clock
        self._stopwatch = stopwatch
        self._new_id = new_id
        self._include = include
        self._shadow = ShadowSide(stopwatch, effort)
        self._message = envoy_api.message("envoy.service.auth.v3.CheckRequest")

    def check(
        self, body: bytes, peer: SpiffeId, remaining: float | None = None, told: Callable[[], Metadata] = tuple
    ) -> bytes:
        """Answer a serialised CheckRequest of `peer` with a serialised CheckResponse; raises nothing on purpose.

        `remaining` is how many seconds the caller still waits, None: as long as it takes. Who waited so long in our
        queue that no answer can reach it in time gets an error at once, so that others are answered in theirs. `told`
        gives what came beside the question: at its first hop a request does not say itself which trace it is of.
        """
        started, now, decision_id = self._stopwatch(), self._clock(), self._new_id()
        if remaining is not None and remaining < LEAST_SECONDS:
            outcome = Outcome("error", 503, error=TooLate(f"{max(remaining, 0.0) * 1e3:.0f} ms were left to decide"))
            self._metrics.shed()
        else:
            outcome = self._decide(body, peer, now, told)
        if self._is_sample(outcome, body, peer):
            return reply.beside(outcome.word, outcome.policy, outcome.revision)
        took = self._stopwatch() - started
        entry = entry_of(outcome, decision_id, now, round(took * 1e6), self._include)
        if outcome.ruling is not None and outcome.ruling.shadow is not None:
            left = None if remaining is None else remaining - took
            entry = self._shadow.beside(entry, outcome, partial(self._headers, body), left)
        try:
            self._record(entry)
            if entry.shadow is not None:
                self._metrics.shadowed(str(change_of(entry)))
        except JournalError as error:
            outcome = outcome._replace(word="error", status=503, error=error)
        self._metrics.decided(outcome.word, outcome.side, self._stopwatch() - started, outcome.revision)
        return _reply(outcome, decision_id)

    def _decide(self, body: bytes, peer: SpiffeId, now: datetime, told: Callable[[], Metadata]) -> Outcome:
        """What becomes of a check; where a step fails, what was known before it is kept."""
        ruling, query, request = self._ruling(), None, None
        revision = ruling.revision if ruling else ""
        try:
            if ruling is None:
                raise DecisionError("no revision is in force")
            check = self._parse(body)
            query = read_check(check, peer, ruling.mesh, now, ruling.headers_read | self._include.headers)
            if not query.trace_id:
                query = traced(query, told())
            query = identified(query, check)
            question = ruling.engine.question(ruling.lean_request(query.facts))
            request = question.request
            decision = ruling.engine.answer(question)
            status: Status = 200 if decision.allowed else 403
            return Outcome(decision.word, status, revision, query, request, decision, None, ruling, question.asked)
        except UnacceptablePath as error:
            return Outcome("deny", 400, revision, query, request, error=error)
        except UnacceptableToken as error:
            return Outcome("deny", 401, revision, query, request, error=error)
        except PolicydError as error:
            return Outcome("error", 503, revision, query, request, error=error)
        except Exception as error:  # noqa: BLE001 - a fault of ours is on record and 503 like any other
            fault = DecisionError(f"an unforeseen fault: {type(error).__name__}")
            return Outcome("error", 503, revision, query, request, error=fault)

    def _is_sample(self, outcome: Outcome, body: bytes, peer: SpiffeId) -> bool:
        """Whether the proxy decides, and has it put on record: also what could not be read here, or came too late."""
        if outcome.query is not None:
            return outcome.query.is_sample
        ruling = self._ruling()
        try:
            said = self._parse(body).attributes.context_extensions
        except IncompleteRequest:
            return False
        if ruling is None or EXTENSION_SAMPLED not in said:
            return False
        listener = ruling.mesh.listeners.get(said.get(EXTENSION_LISTENER, ""))
        return listener is not None and listener.owner == peer  # who asks about another's is on record

    def _headers(self, body: bytes, read: Collection[str]) -> Mapping[str, str]:
        return headers_of(self._parse(body).attributes.request.http, read)

    def _parse(self, body: bytes) -> Any:
        if len(body) > MAX_CHECK_BYTES:
            raise IncompleteRequest(f"a check has at most {MAX_CHECK_BYTES} bytes, this one {len(body)}")
        try:
            return self._message.FromString(body)
        except DecodeError as error:
            raise IncompleteRequest("the check is no CheckRequest") from error


def _reply(outcome: Outcome, decision_id: str) -> bytes:
    match outcome.status:
        case 200:
            return reply.allow(decision_id, outcome.policy)
        case 403:
            return reply.deny(decision_id, outcome.policy)
        case 400:
            return reply.refuse_path(decision_id)
        case 401:
            return reply.refuse_token(decision_id)
        case _:
            return reply.fail(decision_id)


# ---- the gRPC shell


def add_to_server(authorizer: Authorizer, server: grpc.Server, message: Message) -> None:
    """Serve `Authorization/Check` on a synchronous server with mutual TLS."""

    def check(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        try:
            peer = spiffe_peer(cast("Facts", context.auth_context()))
        except PolicydError as error:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, error.message)
        body = message(messages, context, peer)
        metadata = cast("Callable[[], Metadata]", context.invocation_metadata)
        return authorizer.check(body, peer, context.time_remaining(), metadata)

    # no (de)serialiser: the bytes are read where their size has been looked at, and the replies are bytes already;
    # the same on the wire as a call of one message, for which gRPC would wait before it asked us, and without an end
    handlers: dict[str, Any] = {"Check": grpc.stream_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
