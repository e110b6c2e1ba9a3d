"""Joining: who has no identity yet gets one for evidence of who it is.

Law: a token is used only if the certificate was issued, and why one was refused is on record, not in the reply. Who
comes back proves it by the key that he had, and is told what is wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeAlias

import grpc
import structlog

from policyd._pb import agent_pb2, agent_pb2_grpc
from policyd.ca.assignment import Registration
from policyd.ca.authority import Svid
from policyd.ca.issuance import Evidence
from policyd.ca.issuer import Issuer
from policyd.ca.peer import address_of, network_of
from policyd.ca.serving.messages import bundle_message, svid_message
from policyd.ca.serving.proving import Proving
from policyd.ca.serving.refusals import Context, Refusal, refused, translated
from policyd.ca.tokens import Refused, Tokens
from policyd.errors import IdentityError, IssuanceDenied, TokenError
from policyd.peer import check_tls
from policyd.rate import Rate, RateLimit
from policyd.spiffe import SpiffeId
from policyd.svid import comeback

ATTEST_RATE: Final = Rate(per_second=2.0, burst=20)  # for each network_of; a token is 256 random bits anyway
COME_BACK_WITHIN: Final = timedelta(hours=24)
MAX_SECRET: Final = 128  # characters; a longer text is no secret of ours, however it begins
ATTESTATION_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 32 * 1024),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.so_reuseport", 0),  # a port in use is an error, never shared
)

Beside: TypeAlias = Callable[[Callable[[], Any]], Awaitable[Any]]  # makes a call that waits, in another thread

_log = structlog.get_logger("policyd.ca")


class AttestationService(agent_pb2_grpc.AttestationServicer):
    """Served on a port of its own with server authentication only.

    `agents_address` is where the Agents service is (`host:port`); `clock` counts seconds and never goes back. An agent
    may come back `within` that time after its SVID has ended.
    """

    def __init__(
        self,
        issuer: Issuer,
        tokens: Tokens,
        *,
        agents_address: str,
        clock: Callable[[], float],
        rate: Rate = ATTEST_RATE,
        within: Callable[[], timedelta] = lambda: COME_BACK_WITHIN,
        proving: Proving | None = None,
        beside: Beside | None = None,
    ) -> None:
        self._issuer = issuer
        self._tokens = tokens
        self._agents_address = agents_address
        self._limit = RateLimit(rate, clock)
        self._within = within
        self._proving = proving
        self._beside = beside

    async def Attest(self, request: agent_pb2.AttestRequest, context: Context) -> agent_pb2.Svid:  # noqa: N802
        """Exchange a join token for the agent's own SVID; a token is used only if the certificate was issued."""
        return await self._answer(context, lambda source: self._attest(request, source))

    async def ComeBack(self, request: agent_pb2.ComeBackRequest, context: Context) -> agent_pb2.Svid:  # noqa: N802
        """A new SVID for a registered agent whose last one ended while policyd was away."""
        return await self._answer(context, lambda source: self._come_back(request, source))

    async def Challenge(  # noqa: N802
        self, _request: agent_pb2.ChallengeRequest, context: Context
    ) -> agent_pb2.ChallengeReply:
        """What is to be signed with the key of a certificate that is shown."""
        try:
            with translated():
                self._admit(context)
                return agent_pb2.ChallengeReply(challenge=self._proofs().challenge())
        except Refusal as refusal:
            await refused(context, refusal)

    async def Prove(self, request: agent_pb2.ProveRequest, context: Context) -> agent_pb2.Svid:  # noqa: N802
        """An SVID of a workload, for evidence; others are answered while a cluster is asked."""
        try:
            with translated():
                source, proving = self._admit(context), self._proofs()
                judge = partial(proving.judge, request)
                judged = await self._beside(judge) if self._beside else judge()
                return svid_message(proving.issue(request, judged, source), bundle_message(self._issuer.bundle))
        except Refusal as refusal:
            await refused(context, refusal)

    def _proofs(self) -> Proving:
        if self._proving is None:
            raise Refusal(grpc.StatusCode.UNIMPLEMENTED, "no evidence is taken here")
        return self._proving

    def _admit(self, context: Context) -> str:
        """The address of the caller, who may ask now; raises Refusal."""
        _require_tls(context)
        source = address_of(context.peer())
        if not self._limit.allow(network_of(source)):
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many attempts, wait a little")
        return source

    async def _answer(self, context: Context, issue: Callable[[str], Svid]) -> agent_pb2.Svid:
        try:
            with translated():
                reply = svid_message(issue(self._admit(context)), bundle_message(self._issuer.bundle))
                reply.agents_address = self._agents_address
                return reply
        except Refusal as refusal:
            await refused(context, refusal)

    def _come_back(self, request: agent_pb2.ComeBackRequest, source: str) -> Svid:
        """What has ended is no evidence of TLS, so that its key signs; policies see since when it is over."""
        authority, now = self._issuer.authority, self._issuer.now()
        signed = (request.chain, request.csr, request.at, request.signature)
        try:
            found = comeback.check(
                *signed, roots=authority.roots, trust_domain=authority.trust_domain, now=now, within=self._within()
            )
        except IdentityError as error:
            _log.warning("agent.not_back", error=str(error), source=source)
            raise Refusal(grpc.StatusCode.PERMISSION_DENIED, str(error)) from error
        agent = found.spiffe_id.agent_name or ""
        evidence = Evidence("renewal", (f"x509:{found.spiffe_id}", f"ended:{found.ended:%FT%TZ}"))
        order = self._issuer.order(found.spiffe_id, None, evidence, source=source)
        if self._tokens.registration(agent) is None or self._issuer.is_revoked_serial(found.serial):
            denied = IssuanceDenied("this agent is not registered, or its certificate is revoked: it joins anew")
            self._issuer.refuse(order, denied, agent=agent)
            raise denied
        return self._issuer.issue(order, request.csr, kind="attestation", agent=agent)

    def _attest(self, request: agent_pb2.AttestRequest, source: str) -> Svid:
        with self._tokens.claim(request.token[:MAX_SECRET], self._issuer.now()) as claimed:
            if isinstance(claimed, Registration):
                trust_domain = self._issuer.authority.trust_domain
                identity = SpiffeId.agent(trust_domain, claimed.agent)
                evidence = Evidence("join_token", (f"join_token:agent:{claimed.agent}",))
                order = self._issuer.order(identity, None, evidence, source=source)
                return self._issuer.issue(order, request.csr, kind="attestation", agent=claimed.agent)
        self._note(claimed, source)
        raise TokenError("the join token is not accepted")

    def _note(self, refused: Refused, source: str) -> None:
        self._issuer.refuse_attestation(source, refused.reason, refused.agent)
        _log.warning("token.refused", reason=refused.reason, agent=refused.agent, source=source)


def _require_tls(context: Context) -> None:
    try:
        check_tls(context.auth_context())
    except IdentityError as error:
        raise Refusal(grpc.StatusCode.UNAUTHENTICATED, str(error)) from error
