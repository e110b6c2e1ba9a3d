"""The administration API: what the owner of the folder may ask and do, over a Unix socket in a private folder.

Law: whoever reaches the socket is the owner, because nobody else can enter its folder; every change that is made here
is on record before it takes effect.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import grpc
from cryptography.hazmat.primitives.serialization import Encoding

from policyd import __version__, admin_levels, admin_traces
from policyd import admin_facts as told
from policyd._pb import admin_pb2 as pb
from policyd._pb import admin_pb2_grpc
from policyd.admin_facts import Addresses, Facts
from policyd.admin_mesh import Forbidden, MeshDesk
from policyd.admin_visit import visited
from policyd.audit.record import Entry
from policyd.ca.assignment import Registration, instances_for
from policyd.ca.issuance import Evidence
from policyd.ca.issuer import Issuer
from policyd.ca.ledger import Ledger
from policyd.ca.serving.levels import Levels
from policyd.ca.serving.refusals import Refusal, refused, translated
from policyd.ca.tokens import DEFAULT_TTL, Tokens
from policyd.environment import Level
from policyd.errors import (
    DecisionError,
    IncompleteRequest,
    InvalidInput,
    IssuanceDenied,
    JournalError,
    PolicydError,
    StateError,
    TokenError,
    UnacceptablePath,
)
from policyd.join_token import JoinToken, format_token
from policyd.policy.request_form import parse_form, resolve_at
from policyd.spiffe import SpiffeId
from policyd.telemetry.traces_window import Window
from policyd.xds.inspection.service import KINDS, SHOWN, NotShown
from policyd.xds.snapshot import SHORT_NAMES, Snapshot
from policyd.xds.status import ProxyStatus

Code = grpc.StatusCode
Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here
MAX_WORKLOADS: Final = 10_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER: Final = 100 * 365 * 86_400  # seconds


@dataclass(frozen=True, slots=True)
class Parts:
    """What the API works on."""

    facts: Facts
    addresses: Addresses
    issuer: Issuer
    tokens: Tokens
    ledger: Ledger
    record: Callable[[Entry], object]
    random: Callable[[int], bytes] = field(repr=False)
    started_at: datetime
    stop: Callable[[], None]
    restart: Callable[[], Awaitable[None]]
    inspect: Callable[[str, str, str], Awaitable[bytes]]  # agent, instance, kind; raises NotShown
    sent: Callable[[str], Snapshot | None]  # what an instance's proxy is sent
    mesh: MeshDesk
    policies: Callable[[pb.ApplyPoliciesRequest], Awaitable[pb.ApplyPoliciesReply]]  # as admin_policies.applied
    window: Window
    speak: Callable[[Level | None], Awaitable[Level]]  # log from a level on; None: from that of the settings
    levels: Levels  # of agents


class AdminService(admin_pb2_grpc.AdminServicer):
    """One method an RPC of proto/policyd/v1/admin.proto."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def Status(self, _request: pb.StatusRequest, _context: Context) -> pb.StatusReply:  # noqa: N802
        """What is in force, where it listens, and what is wrong."""
        parts, live = self._parts, self._parts.facts.live
        counts, not_ready = parts.facts.counts(), parts.facts.not_ready()
        return pb.StatusReply(
            version=__version__,
            trust_domain=live.settings.trust_domain,
            ready=not not_ready,
            not_ready_because=not_ready,
            revision=live.ruling.revision,
            config=live.config,
            refused=[told.refusal(problem) for problem in parts.facts.refused],
            decisions=counts.decisions,
            denials=counts.denials,
            errors=counts.errors,
            policies=len(live.ruling.policy_set.policies),
            http_address=parts.addresses.http,
            xds_address=parts.addresses.xds,
            authz_address=parts.addresses.authz,
            attestation_address=parts.addresses.attestation,
            started_at=int(parts.started_at.timestamp()),
            pid=os.getpid(),
            warnings=list(parts.facts.warnings()),
            shadow=told.shadow(live, parts.facts.shadow_counts()),
            deciders=[told.decider(one) for one in parts.facts.deciders()],
        )

    async def Shutdown(self, _request: pb.ShutdownRequest, _context: Context) -> pb.ShutdownReply:  # noqa: N802
        """End the server as SIGTERM would, after this reply."""
        with suppress(JournalError):  # a full disk must not keep anybody from ending it
            self._record("shutdown", {})
        self._parts.stop()
        return pb.ShutdownReply()

    async def RestartDeciders(  # noqa: N802
        self, _request: pb.RestartDecidersRequest, context: Context
    ) -> pb.RestartDecidersReply:
        """Replace the decision processes one at a time, without a failed request."""
        try:
            with _answered():
                self._record("deciders.restart", {})
                await self._parts.restart()
        except Refusal as refusal:
            await refused(context, refusal)
        return pb.RestartDecidersReply(deciders=[told.decider(one) for one in self._parts.facts.deciders()])

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenReply:  # noqa: N802
        """A one-use join token for an agent; its text is never kept, nor logged."""
        try:
            with _answered():
                return self._create_token(request)
        except Refusal as refusal:
            await refused(context, refusal)

    def _create_token(self, request: pb.CreateTokenRequest) -> pb.CreateTokenReply:
        parts, mesh = self._parts, self._parts.facts.live.mesh
        if len(request.workloads) > MAX_WORKLOADS:
            raise TokenError(f"a join token names at most {MAX_WORKLOADS} workloads", remedy="name none for all")
        workloads = frozenset(SpiffeId.parse(text) for text in request.workloads)
        for unknown in sorted(workloads - mesh.workloads.keys()):
            raise TokenError(f"`{unknown}` is no workload of this mesh", remedy="declare it in workloads.yaml")
        if not workloads:
            self._check_rest_is_free(request.agent)
        ttl = _length(request.ttl_seconds) or DEFAULT_TTL
        registration = Registration(request.agent, workloads)
        made = parts.tokens.create(registration, now=parts.issuer.now(), random=parts.random, ttl=ttl)
        self._record("token.create", {"agent": request.agent, "expires_at": f"{made.expires_at:%FT%TZ}"})
        authority = parts.issuer.authority
        token = JoinToken(
            address=parts.addresses.attestation,
            root_sha256=authority.anchor_sha256,
            agent=request.agent,
            trust_domain=authority.trust_domain,
            secret=made.secret,
        )
        return pb.CreateTokenReply(token=format_token(token), expires_at=int(made.expires_at.timestamp()))

    def _check_rest_is_free(self, agent: str) -> None:
        """Two agents that run everything would start every sidecar twice, on the same ports."""
        connected = set(self._parts.facts.agents())
        for other in self._parts.tokens.agents():
            if not other.workloads and other.agent != agent and other.agent in connected:
                message = f"the agent `{other.agent}` runs all that no other agent's registration names"
                raise TokenError(message, remedy=f"name with --workload what `{agent}` is to run")

    async def ShowCa(self, _request: pb.ShowCaRequest, _context: Context) -> pb.ShowCaReply:  # noqa: N802
        """The authority's certificates."""
        authority = self._parts.issuer.authority
        root, intermediate = authority.root, authority.intermediate
        return pb.ShowCaReply(
            trust_domain=authority.trust_domain,
            root_pem=root.public_bytes(Encoding.PEM).decode(),
            intermediate_pem=intermediate.public_bytes(Encoding.PEM).decode(),
            root_sha256=authority.root_sha256,
            root_not_after=int(root.not_valid_after_utc.timestamp()),
            intermediate_not_after=int(intermediate.not_valid_after_utc.timestamp()),
            issued=self._parts.ledger.total(),
        )

    async def Issue(self, request: pb.IssueRequest, context: Context) -> pb.IssueReply:  # noqa: N802
        """A certificate for a declared workload, by CSR; policies decide as for agents."""
        try:
            with _answered():
                return self._issue(request)
        except Refusal as refusal:
            await refused(context, refusal)

    def _issue(self, request: pb.IssueRequest) -> pb.IssueReply:
        parts, live = self._parts, self._parts.facts.live
        identity = SpiffeId.parse(request.spiffe_id)
        evidence = Evidence("unix", (f"unix:uid:{os.getuid()}",))
        order = parts.issuer.order(identity, None, evidence, ttl=_length(request.ttl_seconds))
        if identity not in live.mesh.workloads:
            error = IssuanceDenied(f"`{identity}` is no workload of this mesh", remedy="declare it in workloads.yaml")
            parts.issuer.refuse(order, error)
            raise error
        svid = parts.issuer.issue(order, request.csr, kind="operator")
        return pb.IssueReply(chain=svid.chain, roots=parts.issuer.bundle.roots)

    async def Instances(self, _request: pb.InstancesRequest, _context: Context) -> pb.InstancesReply:  # noqa: N802
        """Where each instance is, with the secrets that its application needs."""
        instances = self._parts.facts.live.mesh.instances
        troubles = self._parts.facts.troubles()
        return pb.InstancesReply(
            instances=[told.place(instance, troubles.get(name, "")) for name, instance in sorted(instances.items())]
        )

    async def Proxies(self, _request: pb.ProxiesRequest, _context: Context) -> pb.ProxiesReply:  # noqa: N802
        """Every proxy that is declared, connected or not."""
        known = {proxy.instance: proxy for proxy in self._parts.facts.proxies()}
        instances = self._parts.facts.live.mesh.instances
        agents = self._agents()
        return pb.ProxiesReply(
            proxies=[
                told.proxy(known.get(name) or ProxyStatus(name, str(instance.workload)), agents.get(name, ""))
                for name, instance in sorted(instances.items())
            ]
        )

    def _agents(self) -> dict[str, str]:
        """Which agent runs which instance."""
        mesh, joined = self._parts.facts.live.mesh, self._parts.tokens.agents()
        return {one.name: each.agent for each in joined for one in instances_for(each, mesh, joined)}

    async def Inspect(self, request: pb.InspectRequest, context: Context) -> pb.InspectReply:  # noqa: N802
        """What a proxy holds, as its agent shows it, and what it was sent."""
        instance, kind = request.instance, request.kind
        agent = self._agents().get(instance, "")
        if kind not in SHOWN or instance not in self._parts.facts.live.mesh.instances:
            near = "" if kind in SHOWN else f"known are {', '.join(SHOWN)}"
            what = f"no instance is called `{instance[:80]}`" if kind in SHOWN else f"`{kind[:40]}` is no kind; {near}"
            await refused(context, Refusal(Code.INVALID_ARGUMENT, what))
        if not agent:
            await refused(context, Refusal(Code.FAILED_PRECONDITION, f"no agent runs `{instance}`"))
        try:
            held = await self._parts.inspect(agent, instance, kind)
        except NotShown as error:
            await refused(context, Refusal(Code.FAILED_PRECONDITION, str(error)))
        sent = request.sent and kind in KINDS
        return pb.InspectReply(held=held, sent=list(self._sent(instance, kind)) if sent else [])

    def _sent(self, instance: str, kind: str) -> Iterable[pb.SentResource]:
        """What a proxy was sent of a kind; of secrets only which."""
        snapshot = self._parts.sent(instance)
        type_url = next(url for url, name in SHORT_NAMES.items() if name == kind)
        for name, one in sorted(snapshot.of(type_url).items()) if snapshot else ():
            yield pb.SentResource(name=name, version=one.version, body=b"" if kind == "secrets" else one.body)

    async def Resources(self, request: pb.ResourcesRequest, context: Context) -> pb.ResourcesReply:  # noqa: N802
        """The resources of the mesh that are in force."""
        try:
            return pb.ResourcesReply(resources=list(self._parts.mesh.resources(request.kind, request.name)))
        except InvalidInput as error:
            await refused(context, Refusal(Code.INVALID_ARGUMENT, str(error)))

    async def ChangeMesh(self, request: pb.ChangeMeshRequest, context: Context) -> pb.ChangeMeshReply:  # noqa: N802
        """Write resources into the folder's mesh, or take some out of it: all or nothing."""
        try:
            return await self._parts.mesh.change(request)
        except Forbidden as error:
            await refused(context, Refusal(Code.PERMISSION_DENIED, str(error)))
        except (JournalError, StateError, DecisionError) as error:
            await refused(context, Refusal(Code.FAILED_PRECONDITION, str(error)))

    async def Visit(self, request: pb.VisitRequest, context: Context) -> pb.VisitReply:  # noqa: N802
        """Whether somebody may look."""
        parts = self._parts
        try:
            return visited(request, parts.facts.live, parts.issuer.now(), parts.record)
        except InvalidInput as error:
            await refused(context, Refusal(Code.INVALID_ARGUMENT, str(error)))
        except (JournalError, DecisionError) as error:
            await refused(context, Refusal(Code.FAILED_PRECONDITION, str(error)))

    async def ApplyPolicies(  # noqa: N802
        self, request: pb.ApplyPoliciesRequest, context: Context
    ) -> pb.ApplyPoliciesReply:
        """Write a file of policies that was edited in the console, and enforce it."""
        try:
            return await self._parts.policies(request)
        except InvalidInput as error:
            await refused(context, Refusal(Code.INVALID_ARGUMENT, str(error)))
        except Forbidden as error:
            await refused(context, Refusal(Code.PERMISSION_DENIED, str(error)))
        except (JournalError, StateError, DecisionError) as error:
            await refused(context, Refusal(Code.FAILED_PRECONDITION, str(error)))

    async def Decide(self, request: pb.DecideRequest, context: Context) -> pb.DecideReply:  # noqa: N802
        """What a request that reaches an instance now would be answered."""
        try:
            return self._decide(request)
        except (InvalidInput, UnacceptablePath, IncompleteRequest) as error:
            await refused(context, Refusal(Code.INVALID_ARGUMENT, str(error)))
        except DecisionError as error:
            await refused(context, Refusal(Code.FAILED_PRECONDITION, str(error)))

    async def SetLogLevel(  # noqa: N802
        self, request: pb.SetLogLevelRequest, context: Context
    ) -> pb.SetLogLevelReply:
        """How much is said from now on, by the server, by an agent or by its Envoys."""
        parts = self._parts
        try:
            detail = admin_levels.checked(request, [one.agent for one in parts.tokens.agents()])
            with _answered():
                self._record("log.level", detail)
        except Refusal as refusal:
            await refused(context, refusal)
        if not admin_levels.of_agent(request):
            return pb.SetLogLevelReply(level=await parts.speak(admin_levels.level(request)))
        parts.levels.ask(request.agent, request.level, envoys=request.envoys)
        return pb.SetLogLevelReply(level=request.level)

    async def Traces(self, request: pb.TracesRequest, _context: Context) -> pb.TracesReply:  # noqa: N802
        """The traces of the last while that fit."""
        return admin_traces.found(self._parts.window, request)

    async def Trace(self, request: pb.TraceRequest, context: Context) -> pb.TraceReply:  # noqa: N802
        """One trace, as a tree is read."""
        reply = admin_traces.shown(self._parts.window, request.id)
        if reply is None:
            what = f"no trace `{request.id[:40]}` is in the window; it was not sampled, or had to make room"
            await refused(context, Refusal(Code.NOT_FOUND, what))
        return reply

    def _decide(self, request: pb.DecideRequest) -> pb.DecideReply:
        ruling, now = self._parts.facts.live.ruling, self._parts.issuer.now()
        facts = resolve_at(parse_form(request.request), request.instance, ruling.mesh, now, dict(request.headers))
        decision = ruling.decide(ruling.request(facts))
        known = {proxy.instance: proxy for proxy in self._parts.facts.proxies()}
        proxy = known.get(request.instance) or ProxyStatus(request.instance)
        return pb.DecideReply(
            revision=ruling.revision,
            decision=decision.word,
            reasons=decision.reasons,
            time_us=(now - EPOCH) // timedelta(microseconds=1),
            proxy=told.proxy(proxy, ""),
        )

    def _record(self, operation: str, detail: dict[str, Any]) -> None:
        self._parts.record(
            Entry(
                time=self._parts.issuer.now(),
                kind="operation",
                decision="allow",
                principal=f'Operator::"unix:{os.getuid()}"',
                detail={"operation": operation, **detail},
            )
        )


@contextmanager
def _answered() -> Any:
    """As `translated`, but the owner is told everything."""
    try:
        with translated():
            yield
    except Refusal as refusal:
        cause = refusal.__cause__
        if isinstance(cause, PolicydError):
            raise Refusal(refusal.status, str(cause)) from cause
        raise


def _length(seconds: int) -> timedelta | None:
    """None for 0; what no clock could add to the time becomes the longest that is refused for its length."""
    return timedelta(seconds=min(max(seconds, -FOREVER), FOREVER)) if seconds else None


def handler(server: grpc.aio.Server, service: AdminService) -> None:
    """Serve the API on a server."""
    admin_pb2_grpc.add_AdminServicer_to_server(service, server)  # type: ignore[no-untyped-call]
