"""Joining: who has no identity yet gets one for evidence of who it is.

Law: a token is used only if the certificate was issued, and why one was refused is on record, not in the reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import grpc
import structlog

from policyd._pb import agent_pb2, agent_pb2_grpc
from policyd.ca.assignment import Registration
from policyd.ca.authority import Svid
from policyd.ca.issuance import Evidence
from policyd.ca.issuer import Issuer
from policyd.ca.peer import address_of
from policyd.ca.serving.messages import bundle_message, svid_message
from policyd.ca.serving.refusals import Context, Refusal, refused, translated
from policyd.ca.tokens import Refused, Tokens
from policyd.errors import IdentityError, TokenError
from policyd.peer import check_tls
from policyd.rate import Rate, RateLimit
from policyd.spiffe import SpiffeId

ATTEST_RATE: Final = Rate(per_second=2.0, burst=20)  # for each address; a token is 256 random bits anyway
MAX_SECRET: Final = 128  # characters; a longer text is no secret of ours, however it begins
ATTESTATION_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 32 * 1024),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.so_reuseport", 0),  # a port in use is an error, never shared
)

_log = structlog.get_logger("policyd.ca")


class AttestationService(agent_pb2_grpc.AttestationServicer):
    """Served on a port of its own with server authentication only.

    `agents_address` is where the Agents service is (`host:port`); `clock` counts seconds and never goes back.
    """

    def __init__(
        self,
        issuer: Issuer,
        tokens: Tokens,
        *,
        agents_address: str,
        clock: Callable[[], float],
        rate: Rate = ATTEST_RATE,
    ) -> None:
        self._issuer = issuer
        self._tokens = tokens
        self._agents_address = agents_address
        self._limit = RateLimit(rate, clock)

    async def Attest(self, request: agent_pb2.AttestRequest, context: Context) -> agent_pb2.Svid:  # noqa: N802
        """Exchange a join token for the agent's own SVID; a token is used only if the certificate was issued."""
        try:
            with translated():
                _require_tls(context)
                source = address_of(context.peer())
                if not self._limit.allow(source):
                    raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many attempts, wait a little")
                reply = svid_message(self._attest(request, source), bundle_message(self._issuer.bundle))
                reply.agents_address = self._agents_address
                return reply
        except Refusal as refusal:
            await refused(context, refusal)

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
        _log.warning("join token refused", reason=refused.reason, agent=refused.agent, source=source)


def _require_tls(context: Context) -> None:
    try:
        check_tls(context.auth_context())
    except IdentityError as error:
        raise Refusal(grpc.StatusCode.UNAUTHENTICATED, str(error)) from error
