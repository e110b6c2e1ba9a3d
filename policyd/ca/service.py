"""The certificate services on the wire: Attestation for who has no identity yet, Agents for those who have.

Law: the caller is the certificate of the connection, nothing in a message. What goes wrong becomes a status whose
text gives nothing away: neither why a token failed, nor what policies say, nor anything of the inside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, NoReturn, Protocol, TypeVar

import grpc
import structlog

from policyd._pb import agent_pb2, agent_pb2_grpc
from policyd.ca.assignment import Registration, entries_for, instances_for, may_obtain
from policyd.ca.authority import Svid
from policyd.ca.changes import Changes
from policyd.ca.entries import Entry
from policyd.ca.health import MAX_REPORTED, probes_for, said_by
from policyd.ca.holdings import Holding, checked
from policyd.ca.issuance import AnyOrder, Evidence
from policyd.ca.issuer import Issuer
from policyd.ca.peer import Peer, address_of, peer_of
from policyd.ca.tokens import Refused, Tokens
from policyd.errors import (
    CsrError,
    IdentityError,
    IssuanceDenied,
    PolicydError,
    RotationError,
    SpiffeIdError,
    TokenError,
)
from policyd.mesh.model import Mesh
from policyd.peer import check_tls
from policyd.rate import Rate, RateLimit
from policyd.spiffe import MAX_ID_BYTES, SpiffeId
from policyd.svid.bundle import JWT_SVID, Bundle, write

ATTEST_RATE: Final = Rate(per_second=2.0, burst=20)  # for each address; a token is 256 random bits anyway
SIGN_RATE: Final = Rate(per_second=50.0, burst=500)  # for each agent; all sidecars of a node at its start
REPORT_RATE: Final = Rate(per_second=5.0, burst=50)  # for each agent; it puts changes together
MAX_SECRET: Final = 128  # characters; a longer text is no secret of ours, however it begins
MAX_SELECTORS: Final = 256  # of one process; it may be in many groups
MAX_SELECTOR: Final = 4200  # characters; a path has at most 4096
MAX_WATCHES: Final = 4  # of one agent; a new one may come before the old one is known to be dead
ATTESTATION_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 32 * 1024),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.so_reuseport", 0),  # a port in use is an error, never shared
)

Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here
Result = TypeVar("Result")

_log = structlog.get_logger("policyd.ca")


class Run(Protocol):
    """How calls are made that end with a record: others may be made while the medium works."""

    def __call__(self, call: Callable[[], Result], /) -> Awaitable[Result]:
        """What `call` returns or raises."""


async def at_once(call: Callable[[], Result]) -> Result:
    """Make `call`; nothing else meanwhile."""
    return call()


class Refusal(Exception):
    """A status and a text for the caller."""

    def __init__(self, status: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of ours into a Refusal, and a fault of the program into one that tells nothing."""
    try:
        yield
    except Refusal:
        raise
    except (CsrError, SpiffeIdError, RotationError) as error:
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
    except (TokenError, IssuanceDenied) as error:
        raise Refusal(grpc.StatusCode.PERMISSION_DENIED, error.message) from error
    except PolicydError as error:
        _log.warning("certificate not issued", code=error.code, error=str(error))
        raise Refusal(grpc.StatusCode.UNAVAILABLE, "no certificate can be issued now") from error
    except Exception as error:
        _log.exception("certificate not issued")
        raise Refusal(grpc.StatusCode.INTERNAL, "no certificate can be issued now") from error


async def refused(context: Context, refusal: Refusal) -> NoReturn:
    """End the call with the refusal's status."""
    await context.abort(refusal.status, refusal.text)
    raise AssertionError("abort raises")


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


class AgentsService(agent_pb2_grpc.AgentsServicer):
    """Served over mutual TLS to agents that have joined.

    `changes` is announced after each change of `mesh`; `xds_address` is `host:port`; `clock` counts seconds and
    never goes back, `wall` tells the time in UTC. `hear` is told which instances answer, and why others do not, `hold`
    which bundles agents hold; `tainted` are the authorities by which nothing is to be signed any more. `run` makes the
    calls that issue. `federated` are the bundles of other trust domains, `crls` the lists of revoked certificates that
    Envoys are to look at.
    """

    def __init__(
        self,
        issuer: Issuer,
        tokens: Tokens,
        *,
        mesh: Callable[[], Mesh],
        changes: Changes,
        xds_address: str,
        clock: Callable[[], float],
        wall: Callable[[], datetime],
        hear: Callable[[Mapping[str, tuple[bool, str]]], object],
        entries: Callable[[], tuple[Entry, ...]] = tuple,
        rate: Rate = SIGN_RATE,
        run: Run = at_once,
        federated: Callable[[], Sequence[Bundle]] = tuple,
        hold: Callable[[Holding], object] = lambda holding: None,
        tainted: Callable[[], Collection[bytes]] = tuple,
        crls: Callable[[], Sequence[bytes]] = tuple,
    ) -> None:
        self._issuer = issuer
        self._tokens = tokens
        self._run = run
        self._federated = federated
        self._hold = hold
        self._tainted = tainted
        self._crls = crls
        self._bundles = BundleMessages()
        self._mesh = mesh
        self._changes = changes
        self._xds_address = xds_address
        self._wall = wall
        self._entries = entries
        self._hear = hear
        self._limit = RateLimit(rate, clock)
        self._reports = RateLimit(REPORT_RATE, clock)
        self._watches: Counter[str] = Counter()
        self._closed = False

    def close(self) -> None:
        """End every watch, and refuse new ones; agents keep what they have and come back."""
        self._closed = True
        self._changes.announce()

    def connected(self) -> tuple[str, ...]:
        """The agents that watch now, by name."""
        return tuple(sorted(name for name, count in self._watches.items() if count))

    async def admit(self, context: Context) -> str:
        """The name of the agent that calls; the call ends here for anybody else."""
        try:
            with translated():
                name = self._admit(context)[0].agent
                self._limited(name)
                return name
        except Refusal as refusal:
            await refused(context, refusal)

    async def Sign(self, request: agent_pb2.SignRequest, context: Context) -> agent_pb2.Svid:  # noqa: N802
        """An SVID for the agent itself, or for a declared workload that it may obtain."""
        try:
            with translated():
                registration, agent = self._admit(context)
                self._limited(registration.agent)
                source = address_of(context.peer())
                svid = await self._run(lambda: self._sign(request, registration, agent, source))
                return svid_message(svid, self._bundles.of(self._issuer.bundle))
        except Refusal as refusal:
            await refused(context, refusal)

    async def SignJwt(self, request: agent_pb2.SignJwtRequest, context: Context) -> agent_pb2.JwtSvid:  # noqa: N802
        """A JWT-SVID for a process on the agent's machine that is a workload."""
        try:
            with translated():
                registration, agent = self._admit(context)
                self._limited(registration.agent)
                return await self._run(lambda: self._sign_jwt(request, registration, agent))
        except Refusal as refusal:
            await refused(context, refusal)

    async def Report(self, request: agent_pb2.HealthReport, context: Context) -> agent_pb2.HealthReply:  # noqa: N802
        """Hear which of the agent's own instances answer; a word about another's is refused, and so is all of it."""
        try:
            with translated():
                registration, _ = self._admit(context)
                if not self._reports.allow(registration.agent):
                    raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many reports, wait a little")
                if len(request.instances) > MAX_REPORTED:
                    raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"a report is of at most {MAX_REPORTED} instances")
                self._hear(said_by(registration, request, self._mesh(), self._tokens.agents()))
                return agent_pb2.HealthReply()
        except Refusal as refusal:
            await refused(context, refusal)

    async def Hold(self, request: agent_pb2.Holding, context: Context) -> agent_pb2.HoldingReply:  # noqa: N802
        """Hear which bundle the agent and its Envoys hold, and certificates of which authorities they use."""
        try:
            with translated():
                agent = self._admit(context)[0].agent
                if not self._reports.allow(agent):
                    raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many reports, wait a little")
                heard = int(self._wall().timestamp())
                self._hold(checked(agent, request.sequence, request.behind, request.authorities, heard))
                return agent_pb2.HoldingReply()
        except Refusal as refusal:
            await refused(context, refusal)

    async def Watch(  # noqa: N802
        self, _request: agent_pb2.WatchRequest, context: Context
    ) -> AsyncIterator[agent_pb2.Assignment]:
        """What the agent runs, at once and again after every change that concerns it."""
        try:
            with translated():
                name = self._admit(context)[0].agent
                self._limited(name)
                if self._watches[name] >= MAX_WATCHES:
                    raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "this agent watches already")
            self._watches[name] += 1
            try:
                async for assignment in self._assignments(context):
                    yield assignment
            finally:
                self._watches[name] -= 1
                if not self._watches[name]:
                    del self._watches[name]
        except Refusal as refusal:
            await refused(context, refusal)

    async def _assignments(self, context: Context) -> AsyncIterator[agent_pb2.Assignment]:
        sent: agent_pb2.Assignment | None = None
        while True:
            seen = self._changes.number
            with translated():
                if self._closed:
                    raise Refusal(grpc.StatusCode.UNAVAILABLE, "policyd is shutting down")
                registration, _ = self._admit(context)  # it may have expired, or been forgotten, since
                assignment = self._assignment(registration)
            if assignment != sent:
                yield assignment
                sent = assignment
            await self._changes.after(seen)

    def _admit(self, context: Context) -> tuple[Registration, Peer]:
        """The agent that calls; raises Refusal for anybody else."""
        try:
            peer = peer_of(context.auth_context(), self._wall())
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

    def _limited(self, agent: str) -> None:
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
        elif found and not any(one.spiffe_id == order.identity and one.fits(found) for one in self._of(registration)):
            error = IssuanceDenied(f"no entry makes this process `{order.identity}`")
        if error is not None:
            self._issuer.refuse(order, error, agent=registration.agent)
            raise error

    def _of(self, registration: Registration) -> tuple[Entry, ...]:
        return entries_for(registration, self._mesh(), self._tokens.agents(), self._entries())

    def _assignment(self, registration: Registration) -> agent_pb2.Assignment:
        authority = self._issuer.authority
        instances = instances_for(registration, self._mesh(), self._tokens.agents())
        sidecars = [
            agent_pb2.Sidecar(instance=one.name, spiffe_id=str(one.workload), cluster=one.service) for one in instances
        ]
        return agent_pb2.Assignment(
            agent=registration.agent,
            sidecars=sidecars,
            probes=probes_for(instances),
            pages=[
                agent_pb2.Page(instance=one.name, host=one.metrics.host, port=one.metrics.port, path=one.metrics.path)
                for one in instances
                if one.metrics is not None
            ],
            bundle=self._bundles.of(self._issuer.bundle),
            xds_address=self._xds_address,
            server_id=str(SpiffeId.server(authority.trust_domain)),
            registrations=[
                agent_pb2.Registration(spiffe_id=str(one.spiffe_id), selectors=sorted(one.selectors), hint=one.hint)
                for one in self._of(registration)
            ],
            federated=map(bundle_message, self._federated()),
            tainted=sorted(self._tainted()),
            crls=self._crls(),
        )


class BundleMessages:
    """Bundles as they are sent; the last one is kept, since it goes out with every certificate."""

    def __init__(self) -> None:
        self._last: tuple[Bundle, agent_pb2.Bundle] | None = None

    def of(self, bundle: Bundle) -> agent_pb2.Bundle:
        """The message of `bundle`."""
        if self._last is None or self._last[0] is not bundle:
            self._last = (bundle, bundle_message(bundle))
        return self._last[1]


def svid_message(svid: Svid, bundle: agent_pb2.Bundle) -> agent_pb2.Svid:
    """An SVID with what its peers are verified by."""
    return agent_pb2.Svid(spiffe_id=str(svid.spiffe_id), chain=svid.chain, bundle=bundle)


def bundle_message(bundle: Bundle) -> agent_pb2.Bundle:
    """What verifies identities of the trust domain."""
    return agent_pb2.Bundle(
        trust_domain=bundle.trust_domain,
        roots=bundle.roots,
        sequence=bundle.sequence,
        jwt_keys=write(bundle, (JWT_SVID,)),
    )


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


def _require_tls(context: Context) -> None:
    try:
        check_tls(context.auth_context())
    except IdentityError as error:
        raise Refusal(grpc.StatusCode.UNAUTHENTICATED, str(error)) from error
