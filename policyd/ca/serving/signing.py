"""What agents have signed: certificates of their own and of their workloads, and tokens.

Law: an agent obtains what it is registered for and nothing else, and a process what an entry says of it. What is here
neither waits nor knows which kind of server it is asked by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Final, cast

import grpc
from google.protobuf.message import DecodeError, Message

from policyd._pb import agent_pb2
from policyd.ca.assignment import Registration, entries_for, may_obtain
from policyd.ca.authority import Svid
from policyd.ca.entries import Entry
from policyd.ca.issuance import AnyOrder, Evidence
from policyd.ca.issuer import Issuer
from policyd.ca.peer import Peer, address_of, peer_of
from policyd.ca.serving.messages import BundleMessages, svid_message
from policyd.ca.serving.refusals import Refusal, translated
from policyd.ca.tokens import Tokens
from policyd.errors import CsrError, IdentityError, IssuanceDenied, SpiffeIdError
from policyd.mesh.model import Mesh
from policyd.peer import Facts
from policyd.rate import Rate, RateLimit
from policyd.spiffe import MAX_ID_BYTES, SpiffeId

SERVICE: Final = agent_pb2.DESCRIPTOR.services_by_name["Agents"].full_name
SIGN_RATE: Final = Rate(per_second=50.0, burst=500)  # for each agent; all sidecars of a node at its start
MAX_TOGETHER: Final = 16  # requests of one call
MAX_SELECTORS: Final = 256  # of one process; it may be in many groups
MAX_SELECTOR: Final = 4200  # characters; a path has at most 4096

Call = Callable[[], agent_pb2.Signed]
OneMessage = Callable[[Iterator[bytes], grpc.ServicerContext, SpiffeId], bytes]
Together = Callable[[Sequence[Call]], Sequence[agent_pb2.Signed]]  # makes calls of which each may wait


class Signing:
    """Answers agents that have joined. Safe for concurrent use.

    `clock` counts seconds and never goes back, `wall` tells the time in UTC; `entries` are those of processes.
    """

    def __init__(
        self,
        issuer: Issuer,
        tokens: Tokens,
        *,
        mesh: Callable[[], Mesh],
        clock: Callable[[], float],
        wall: Callable[[], datetime],
        entries: Callable[[], tuple[Entry, ...]] = tuple,
        rate: Rate = SIGN_RATE,
    ) -> None:
        self._issuer = issuer
        self._tokens = tokens
        self._mesh = mesh
        self._wall = wall
        self._entries = entries
        self._limit = RateLimit(rate, clock)
        self._bundles = BundleMessages()

    def sign(self, request: agent_pb2.SignRequest, facts: Facts, source: str) -> agent_pb2.Svid:
        """An SVID for the agent itself, or for a declared workload that it may obtain; raises Refusal.

        `facts` are those of the connection, `source` is the peer as gRPC names it.
        """
        with translated():
            registration, agent = self.admit(facts)
            self.take(registration.agent)
            svid = self._sign(request, registration, agent, address_of(source))
            return svid_message(svid, self.bundle())

    def orders(self, request: agent_pb2.SignAllRequest, facts: Facts, source: str) -> list[Call]:
        """What answers each of several requests, as `sign` does, to be called in any order; raises Refusal for all."""
        if not 0 < len(request.requests) <= MAX_TOGETHER:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"1 to {MAX_TOGETHER} requests are made at once")
        with translated():
            self.admit(facts)
        return [partial(self._signed, one, facts, source) for one in request.requests]

    def _signed(self, request: agent_pb2.SignRequest, facts: Facts, source: str) -> agent_pb2.Signed:
        try:
            return agent_pb2.Signed(svid=self.sign(request, facts, source))
        except Refusal as refusal:
            number, _ = refusal.status.value
            return agent_pb2.Signed(refused=agent_pb2.Refused(status=number, text=refusal.text))

    def sign_jwt(self, request: agent_pb2.SignJwtRequest, facts: Facts) -> agent_pb2.JwtSvid:
        """A JWT-SVID for a process on the agent's machine that is a workload; raises Refusal."""
        with translated():
            registration, agent = self.admit(facts)
            self.take(registration.agent)
            return self._sign_jwt(request, registration, agent)

    @property
    def server_id(self) -> SpiffeId:
        """Who we are to agents."""
        return SpiffeId.server(self._issuer.authority.trust_domain)

    def bundle(self) -> agent_pb2.Bundle:
        """What verifies identities of this trust domain."""
        return self._bundles.of(self._issuer.bundle)

    def admit(self, facts: Facts) -> tuple[Registration, Peer]:
        """The agent that calls; raises Refusal for anybody else."""
        try:
            peer = peer_of(facts, self._wall())
        except IdentityError as error:
            raise Refusal(grpc.StatusCode.UNAUTHENTICATED, str(error)) from error
        if self._issuer.is_revoked(peer.spiffe_id):
            raise Refusal(grpc.StatusCode.PERMISSION_DENIED, "this agent is revoked")
        if self._issuer.is_revoked_serial(peer.serial):
            raise Refusal(grpc.StatusCode.PERMISSION_DENIED, "this certificate is revoked, the agent joins anew")
        name = peer.spiffe_id.agent_name
        if name is None or peer.spiffe_id.trust_domain != self._issuer.authority.trust_domain:
            raise Refusal(grpc.StatusCode.PERMISSION_DENIED, "this service is for agents")
        registration = self._tokens.registration(name)
        if registration is None:
            raise Refusal(grpc.StatusCode.PERMISSION_DENIED, "this agent is not registered, it joins with a new token")
        return registration, peer

    def take(self, agent: str) -> None:
        """Count a request of this agent; raises Refusal for one too many."""
        if not self._limit.allow(agent):
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests, wait a little")

    def _sign(self, request: agent_pb2.SignRequest, registration: Registration, agent: Peer, source: str) -> Svid:
        own = agent.spiffe_id
        identity = _identity(request.spiffe_id) if request.spiffe_id else own
        itself = identity == own
        evidence = _evidence(request.selectors) or Evidence("renewal" if itself else "x509", (f"x509:{own}",))
        order = self._issuer.order(identity, own, evidence, source=source)
        if not itself or request.selectors:
            self._check_registered(order, registration, request.selectors)
        return self._issuer.issue(order, request.csr, kind="agent" if itself else "workload", agent=registration.agent)

    def _sign_jwt(
        self, request: agent_pb2.SignJwtRequest, registration: Registration, agent: Peer
    ) -> agent_pb2.JwtSvid:
        evidence = _evidence(request.selectors)
        if evidence is None:
            raise CsrError("a token is for a process, of which nothing was said")
        try:
            order = self._issuer.order_jwt(
                _identity(request.spiffe_id), agent.spiffe_id, evidence, tuple(request.audiences)
            )
        except IdentityError as error:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        self._check_registered(order, registration, request.selectors)
        token = self._issuer.issue_jwt(order, kind="workload", agent=registration.agent)
        return agent_pb2.JwtSvid(token=token.text, expires_at=int(token.not_after.timestamp()))

    def _check_registered(self, order: AnyOrder, registration: Registration, selectors: Iterable[str]) -> None:
        """An agent obtains what it may, for processes only what they are registered for; raises IssuanceDenied."""
        error = None
        found = tuple(selectors)
        if not may_obtain(registration, order.identity, self._mesh()):
            error = IssuanceDenied(f"`{order.identity}` is not registered to this agent")
        elif found and not any(
            one.spiffe_id == order.identity and one.fits(found) for one in self.entries_of(registration)
        ):
            error = IssuanceDenied(f"no entry makes this process `{order.identity}`")
        if error is not None:
            self._issuer.refuse(order, error, agent=registration.agent)
            raise error

    def entries_of(self, registration: Registration) -> tuple[Entry, ...]:
        """Which processes on the agent's machine are which workload."""
        return entries_for(registration, self._mesh(), self._tokens.agents(), self._entries())


@lru_cache(maxsize=4096)
def _identity(text: str) -> SpiffeId:
    if len(text) > MAX_ID_BYTES:
        raise SpiffeIdError(f"a SPIFFE ID has at most {MAX_ID_BYTES} bytes")
    return SpiffeId.parse(text)


def _evidence(selectors: Sequence[str]) -> Evidence | None:
    """What an agent has found out about a process; None where it asks for no process."""
    if not selectors:
        return None
    if len(selectors) > MAX_SELECTORS or any(len(one) > MAX_SELECTOR or not one.isprintable() for one in selectors):
        raise CsrError(f"a process has at most {MAX_SELECTORS} selectors of {MAX_SELECTOR} printable characters")
    return Evidence("unix", tuple(sorted(set(selectors))))


# ---- the shell of a synchronous server


def _while_heard(context: grpc.ServicerContext, order: Call) -> agent_pb2.Signed:
    """Nothing for who has given up: where signing takes long it has asked again, and what is for nobody delays all."""
    return order() if context.is_active() else agent_pb2.Signed()


def add_to_server(signing: Signing, server: grpc.Server, together: Together, message: OneMessage) -> None:
    """Serve what signs, and nothing else of the Agents service, on a synchronous server with mutual TLS.

    `message` waits for the one message of a call, as long as it bears with its peer.
    """

    def sign(request: agent_pb2.SignRequest, context: grpc.ServicerContext) -> agent_pb2.Svid:
        return signing.sign(request, _facts(context), context.peer())

    def sign_all(request: agent_pb2.SignAllRequest, context: grpc.ServicerContext) -> agent_pb2.SignAllReply:
        orders = signing.orders(request, _facts(context), context.peer())
        return agent_pb2.SignAllReply(signed=together([partial(_while_heard, context, order) for order in orders]))

    def sign_jwt(request: agent_pb2.SignJwtRequest, context: grpc.ServicerContext) -> agent_pb2.JwtSvid:
        return signing.sign_jwt(request, _facts(context))

    def handler(answer: Callable[[Any, grpc.ServicerContext], Message], kind: type[Message]) -> Any:
        """On the wire a call of one message, for which gRPC itself would wait without an end, in a thread."""

        def answered(messages: Iterator[bytes], context: grpc.ServicerContext) -> Message:
            try:
                with translated():
                    _, peer = signing.admit(_facts(context))
                return answer(kind.FromString(message(messages, context, peer.spiffe_id)), context)
            except DecodeError:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this is no request of an agent")
            except Refusal as refusal:
                context.abort(refusal.status, refusal.text)

        return grpc.stream_unary_rpc_method_handler(answered, None, lambda reply: reply.SerializeToString())

    handlers = {
        "Sign": handler(sign, agent_pb2.SignRequest),
        "SignAll": handler(sign_all, agent_pb2.SignAllRequest),
        "SignJwt": handler(sign_jwt, agent_pb2.SignJwtRequest),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


def _facts(context: grpc.ServicerContext) -> Facts:
    return cast("Facts", context.auth_context())
