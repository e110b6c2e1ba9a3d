"""The agents' own service: what they run, what their instances say, what they hold, and what they have signed."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol, TypeVar

import grpc

from policyd._pb import agent_pb2, agent_pb2_grpc
from policyd.ca.assignment import Registration, instances_for
from policyd.ca.changes import Changes
from policyd.ca.health import MAX_REPORTED, own_of, probes_for, said_by
from policyd.ca.holdings import Holding, checked
from policyd.ca.serving.levels import NOTHING, Asked
from policyd.ca.serving.messages import bundle_message
from policyd.ca.serving.names import captured_messages
from policyd.ca.serving.refusals import Context, Refusal, refused, translated
from policyd.ca.serving.signing import Signing
from policyd.ca.tokens import Tokens
from policyd.mesh.model import Mesh
from policyd.rate import Rate, RateLimit
from policyd.svid.bundle import Bundle

REPORT_RATE: Final = Rate(per_second=5.0, burst=50)  # for each agent; it puts changes together
MAX_WATCHES: Final = 4  # of one agent; a new one may come before the old one is known to be dead
Result = TypeVar("Result")


class Run(Protocol):
    """How calls are made that end with a record: others may be made while the medium works."""

    def __call__(self, call: Callable[[], Result], /) -> Awaitable[Result]:
        """What `call` returns or raises."""


class Turn(Protocol):
    """How callers are led away from instances that leave, and to those that are back."""

    def __call__(self, leaving: Collection[str], back: Collection[str], /) -> Awaitable[object]:
        """Return when callers' proxies have confirmed it, or soon."""


async def at_once(call: Callable[[], Result]) -> Result:
    """Make `call`; nothing else meanwhile."""
    return call()


class AgentsService(agent_pb2_grpc.AgentsServicer):
    """Served over mutual TLS to agents that have joined, which `signing` knows; it signs here too.

    `changes` is announced after each change of `mesh`; `xds_address` and `signing_address` are `host:port`; `clock`
    counts seconds and never goes back, `wall` tells the time in UTC. `hear` is told which instances answer, and why
    others do not, `turn` who leaves and who is back, `hold` which bundles agents hold; `tainted` are the authorities
    by which nothing is to be signed any more. `run` makes the calls that issue. `federated` are the bundles of other
    trust domains, `crls` the lists of revoked certificates that Envoys are to look at, `levels` how much an agent is to
    say of itself.
    """

    def __init__(
        self,
        signing: Signing,
        tokens: Tokens,
        *,
        mesh: Callable[[], Mesh],
        changes: Changes,
        xds_address: str,
        signing_address: str = "",
        clock: Callable[[], float],
        wall: Callable[[], datetime],
        hear: Callable[[Mapping[str, tuple[bool, str]]], object],
        turn: Turn,
        run: Run = at_once,
        federated: Callable[[], Sequence[Bundle]] = tuple,
        hold: Callable[[Holding], object] = lambda holding: None,
        tainted: Callable[[], Collection[bytes]] = tuple,
        crls: Callable[[], Sequence[bytes]] = tuple,
        levels: Callable[[str], Asked] = lambda agent: NOTHING,
    ) -> None:
        self._signing = signing
        self._tokens = tokens
        self._run = run
        self._federated = federated
        self._hold = hold
        self._tainted = tainted
        self._crls = crls
        self._levels = levels
        self._mesh = mesh
        self._changes = changes
        self._xds_address = xds_address
        self._signing_address = signing_address
        self._wall = wall
        self._hear = hear
        self._turn = turn
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
                name = self._signing.admit(context.auth_context())[0].agent
                self._signing.take(name)
                return name
        except Refusal as refusal:
            await refused(context, refusal)

    async def runs(self, context: Context, instance: str) -> str:
        """The name of the agent that calls, which runs that instance; the call ends here for anybody else."""
        try:
            with translated():
                registration, _ = self._signing.admit(context.auth_context())
                own = instances_for(registration, self._mesh(), self._tokens.agents())
                if all(one.name != instance for one in own) and instance in self._mesh().instances:
                    raise Refusal(grpc.StatusCode.PERMISSION_DENIED, "this agent does not run that instance")
                return registration.agent
        except Refusal as refusal:
            await refused(context, refusal)

    async def Sign(self, request: agent_pb2.SignRequest, context: Context) -> agent_pb2.Svid:  # noqa: N802
        """An SVID for the agent itself, or for a declared workload that it may obtain."""
        facts, source = context.auth_context(), context.peer()
        try:
            return await self._run(lambda: self._signing.sign(request, facts, source))
        except Refusal as refusal:
            await refused(context, refusal)

    async def SignAll(self, request: agent_pb2.SignAllRequest, context: Context) -> agent_pb2.SignAllReply:  # noqa: N802
        """Several SVIDs, each refused for itself."""
        try:
            orders = self._signing.orders(request, context.auth_context(), context.peer())
        except Refusal as refusal:
            await refused(context, refusal)
        return agent_pb2.SignAllReply(signed=[await self._run(order) for order in orders])

    async def SignJwt(self, request: agent_pb2.SignJwtRequest, context: Context) -> agent_pb2.JwtSvid:  # noqa: N802
        """A JWT-SVID for a process on the agent's machine that is a workload."""
        facts = context.auth_context()
        try:
            return await self._run(lambda: self._signing.sign_jwt(request, facts))
        except Refusal as refusal:
            await refused(context, refusal)

    async def Report(self, request: agent_pb2.HealthReport, context: Context) -> agent_pb2.HealthReply:  # noqa: N802
        """Hear which of the agent's own instances answer; a word about another's is refused, and so is all of it."""
        try:
            with translated():
                registration, _ = self._signing.admit(context.auth_context())
                if not self._reports.allow(registration.agent):
                    raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many reports, wait a little")
                if len(request.instances) > MAX_REPORTED:
                    raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"a report is of at most {MAX_REPORTED} instances")
                self._hear(said_by(registration, request, self._mesh(), self._tokens.agents()))
                return agent_pb2.HealthReply()
        except Refusal as refusal:
            await refused(context, refusal)

    async def Leave(self, request: agent_pb2.Leaving, context: Context) -> agent_pb2.LeavingReply:  # noqa: N802
        """Lead callers away from those of the agent's own instances that end, and to those that are back."""
        try:
            with translated():
                registration, _ = self._signing.admit(context.auth_context())
                if not self._reports.allow(registration.agent):
                    raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many reports, wait a little")
                if len(request.leaving) + len(request.back) > 2 * MAX_REPORTED:
                    raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"a report is of at most {MAX_REPORTED} instances")
                mesh, agents = self._mesh(), self._tokens.agents()
                leaving, back = (own_of(said, registration, mesh, agents) for said in (request.leaving, request.back))
        except Refusal as refusal:
            await refused(context, refusal)
        await self._turn(leaving, back)
        return agent_pb2.LeavingReply()

    async def Hold(self, request: agent_pb2.Holding, context: Context) -> agent_pb2.HoldingReply:  # noqa: N802
        """Hear which bundle the agent and its Envoys hold, and certificates of which authorities they use."""
        try:
            with translated():
                agent = self._signing.admit(context.auth_context())[0].agent
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
                name = self._signing.admit(context.auth_context())[0].agent
                self._signing.take(name)
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
                registration, _ = self._signing.admit(
                    context.auth_context()
                )  # it may have expired, or been forgotten, since
                assignment = self._assignment(registration)
            if assignment != sent:
                yield assignment
                sent = assignment
            await self._changes.after(seen)

    def _assignment(self, registration: Registration) -> agent_pb2.Assignment:
        instances = instances_for(registration, self._mesh(), self._tokens.agents())
        sidecars = [
            agent_pb2.Sidecar(
                instance=one.name, spiffe_id=str(one.workload), cluster=one.service, proxyless=one.proxyless
            )
            for one in instances
        ]
        levels = self._levels(registration.agent)
        return agent_pb2.Assignment(
            agent=registration.agent,
            sidecars=sidecars,
            probes=probes_for(instances),
            pages=[
                agent_pb2.Page(instance=one.name, host=one.metrics.host, port=one.metrics.port, path=one.metrics.path)
                for one in instances
                if one.metrics is not None
            ],
            bundle=self._signing.bundle(),
            xds_address=self._xds_address,
            signing_address=self._signing_address,
            server_id=str(self._signing.server_id),
            registrations=[
                agent_pb2.Registration(spiffe_id=str(one.spiffe_id), selectors=sorted(one.selectors), hint=one.hint)
                for one in self._signing.entries_of(registration)
            ],
            federated=map(bundle_message, self._federated()),
            tainted=sorted(self._tainted()),
            crls=self._crls(),
            log_level=levels.agent,
            envoy_log_level=levels.envoys,
            captured=captured_messages(self._mesh(), instances),
        )
