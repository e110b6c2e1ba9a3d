"""The administration API as a gRPC service: which call is answered by which module, and how one ends that is not."""

from __future__ import annotations

import os
from contextlib import suppress

import grpc

from policyd import __version__
from policyd._pb import admin_pb2 as pb
from policyd._pb import admin_pb2_grpc
from policyd.admin import certificates, levels, proxies, traces
from policyd.admin import facts as told
from policyd.admin.answers import Code, Context, answered
from policyd.admin.parts import Parts
from policyd.admin.visit import visited
from policyd.ca.desk.answers import answered as certified
from policyd.ca.serving.refusals import Refusal
from policyd.errors import JournalError


class AdminService(admin_pb2_grpc.AdminServicer):
    """One method an RPC of proto/policyd/v1/admin.proto."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    # ---- the server itself

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
            self._parts.note("shutdown", {})
        self._parts.stop()
        return pb.ShutdownReply()

    async def RestartDeciders(  # noqa: N802
        self, _request: pb.RestartDecidersRequest, context: Context
    ) -> pb.RestartDecidersReply:
        """Replace the decision processes one at a time, without a failed request."""
        async with answered(context):
            self._parts.note("deciders.restart", {})
            await self._parts.restart()
        return pb.RestartDecidersReply(deciders=[told.decider(one) for one in self._parts.facts.deciders()])

    async def SetLogLevel(  # noqa: N802
        self, request: pb.SetLogLevelRequest, context: Context
    ) -> pb.SetLogLevelReply:
        """How much is said from now on, by the server, by an agent or by its Envoys."""
        parts = self._parts
        async with answered(context):
            detail = levels.checked(request, [one.agent for one in parts.tokens.agents()])
            parts.note("log.level", detail)
        if not levels.of_agent(request):
            return pb.SetLogLevelReply(level=await parts.speak(levels.level(request)))
        parts.levels.ask(request.agent, request.level, envoys=request.envoys)
        return pb.SetLogLevelReply(level=request.level)

    # ---- the authority

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenReply:  # noqa: N802
        """A one-use join token for an agent; its text is never kept, nor logged."""
        async with certified(context):
            return certificates.invited(request, self._parts)

    async def ShowCa(self, _request: pb.ShowCaRequest, _context: Context) -> pb.ShowCaReply:  # noqa: N802
        """The authority's certificates."""
        return certificates.shown(self._parts)

    async def Issue(self, request: pb.IssueRequest, context: Context) -> pb.IssueReply:  # noqa: N802
        """A certificate for a declared workload, by CSR; policies decide as for agents."""
        async with certified(context):
            return certificates.issued(request, self._parts)

    # ---- instances and their proxies

    async def Instances(self, _request: pb.InstancesRequest, _context: Context) -> pb.InstancesReply:  # noqa: N802
        """Where each instance is, with the secrets that its application needs."""
        return proxies.instances(self._parts)

    async def Proxies(self, _request: pb.ProxiesRequest, _context: Context) -> pb.ProxiesReply:  # noqa: N802
        """Every proxy that is declared, connected or not."""
        return proxies.listed(self._parts)

    async def Inspect(self, request: pb.InspectRequest, context: Context) -> pb.InspectReply:  # noqa: N802
        """What a proxy holds, as its agent shows it, and what it was sent."""
        async with answered(context):
            return await proxies.inspected(request, self._parts)

    async def Decide(self, request: pb.DecideRequest, context: Context) -> pb.DecideReply:  # noqa: N802
        """What a request that reaches an instance now would be answered."""
        async with answered(context):
            return proxies.decided(request, self._parts)

    # ---- the folder

    async def Resources(self, request: pb.ResourcesRequest, context: Context) -> pb.ResourcesReply:  # noqa: N802
        """The resources of the mesh that are in force."""
        async with answered(context):
            return pb.ResourcesReply(resources=list(self._parts.mesh.resources(request.kind, request.name)))

    async def ChangeMesh(self, request: pb.ChangeMeshRequest, context: Context) -> pb.ChangeMeshReply:  # noqa: N802
        """Write resources into the folder's mesh, or take some out of it: all or nothing."""
        async with answered(context):
            return await self._parts.mesh.change(request)

    async def ApplyPolicies(  # noqa: N802
        self, request: pb.ApplyPoliciesRequest, context: Context
    ) -> pb.ApplyPoliciesReply:
        """Write a file of policies that was edited in the console, and enforce it."""
        async with answered(context):
            return await self._parts.policies(request)

    # ---- the console

    async def Visit(self, request: pb.VisitRequest, context: Context) -> pb.VisitReply:  # noqa: N802
        """Whether somebody may look."""
        parts = self._parts
        async with answered(context):
            return visited(request, parts.facts.live, parts.issuer.now(), parts.record)

    async def Traces(self, request: pb.TracesRequest, _context: Context) -> pb.TracesReply:  # noqa: N802
        """The traces of the last while that fit."""
        return traces.found(self._parts.window, request)

    async def Trace(self, request: pb.TraceRequest, context: Context) -> pb.TraceReply:  # noqa: N802
        """One trace, as a tree is read."""
        async with answered(context):
            reply = traces.shown(self._parts.window, request.id)
            if reply is None:
                what = f"no trace `{request.id[:40]}` is in the window; it was not sampled, or had to make room"
                raise Refusal(Code.NOT_FOUND, what)
            return reply


def handler(server: grpc.aio.Server, service: AdminService) -> None:
    """Serve the API on a server."""
    admin_pb2_grpc.add_AdminServicer_to_server(service, server)  # type: ignore[no-untyped-call]
