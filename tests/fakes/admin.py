"""The administration API, answering what it is told to, on a Unix socket."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from policyd._pb import admin_pb2 as pb
from policyd._pb import admin_pb2_grpc, authority_pb2_grpc, rotation_pb2, rotation_pb2_grpc
from policyd._pb import authority_pb2 as ca


class FakeAdmin(admin_pb2_grpc.AdminServicer, authority_pb2_grpc.CertificateAuthorityServicer):
    """Replies by the method's name; keeps the requests it got.

    A `failure` is what every call ends with, `failures` what those of one name do.
    """

    def __init__(self, **replies: Any) -> None:
        self.replies = {
            "Status": pb.StatusReply(version="0.1.0", trust_domain="cluster.local", ready=True, pid=4711),
            "Shutdown": pb.ShutdownReply(),
            "CreateToken": pb.CreateTokenReply(token="policyd1.e30", expires_at=1795435200),
            "ShowCa": pb.ShowCaReply(trust_domain="cluster.local"),
            "Issue": pb.IssueReply(),
            "Instances": pb.InstancesReply(),
            "Proxies": pb.ProxiesReply(),
            "Decide": pb.DecideReply(),
            "Inspect": pb.InspectReply(),
            "Resources": pb.ResourcesReply(),
            "ChangeMesh": pb.ChangeMeshReply(),
            "SetLogLevel": pb.SetLogLevelReply(level="debug"),
            "Traces": pb.TracesReply(),
            "Trace": pb.TraceReply(),
            "Visit": pb.VisitReply(allowed=True, reasons=["owner"]),
            "ApplyPolicies": pb.ApplyPoliciesReply(revision="4711" * 16),
            "RotationStatus": rotation_pb2.RotationReply(sequence=1),
            "IssueJwt": ca.IssueJwtReply(token="e30.e30.e30", expires_at=1795435200, jti="0a"),
            "ShowBundle": ca.ShowBundleReply(trust_domain="cluster.local", document=b'{"keys": []}'),
            "CaStatus": ca.CaStatusReply(trust_domain="cluster.local"),
            "CreateEntry": ca.Entry(id="0a1b"),
            "ListEntries": ca.ListEntriesReply(),
            "DeleteEntry": ca.Entry(id="0a1b"),
            "Revoke": ca.RevokeReply(),
            "Unrevoke": ca.RevokeReply(),
            "ListRevoked": ca.ListRevokedReply(),
            "ListTokens": ca.ListTokensReply(),
            "RevokeToken": ca.RevokeTokenReply(agent="vm-1"),
        } | replies
        self.requests: list[tuple[str, Any]] = []
        self.failure: tuple[grpc.StatusCode, str] | None = None
        self.failures: dict[str, tuple[grpc.StatusCode, str]] = {}

    def _answer(self, name: str, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append((name, request))
        failure = self.failures.get(name) or self.failure
        if failure is not None:
            context.abort(*failure)
        reply = self.replies[name]
        return reply(request) if callable(reply) else reply

    def Status(self, request: Any, context: Any) -> Any:  # noqa: N802 - names of the API
        return self._answer("Status", request, context)

    def Shutdown(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("Shutdown", request, context)

    def CreateToken(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("CreateToken", request, context)

    def ShowCa(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ShowCa", request, context)

    def Issue(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("Issue", request, context)

    def Instances(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("Instances", request, context)

    def Proxies(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("Proxies", request, context)

    def Inspect(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("Inspect", request, context)

    def Resources(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("Resources", request, context)

    def ChangeMesh(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ChangeMesh", request, context)

    def Decide(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("Decide", request, context)

    def SetLogLevel(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("SetLogLevel", request, context)

    def Traces(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("Traces", request, context)

    def Visit(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("Visit", request, context)

    def Trace(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("Trace", request, context)

    def ApplyPolicies(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ApplyPolicies", request, context)

    def RotationStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("RotationStatus", request, context)

    def RotationStep(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("RotationStep", request, context)

    def IssueJwt(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("IssueJwt", request, context)

    def ShowBundle(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ShowBundle", request, context)

    def CaStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("CaStatus", request, context)

    def CreateEntry(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("CreateEntry", request, context)

    def ListEntries(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ListEntries", request, context)

    def DeleteEntry(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("DeleteEntry", request, context)

    def Revoke(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("Revoke", request, context)

    def Unrevoke(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("Unrevoke", request, context)

    def ListRevoked(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ListRevoked", request, context)

    def ListTokens(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ListTokens", request, context)

    def ListFederation(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ListFederation", request, context)

    def RefreshFederation(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("RefreshFederation", request, context)

    def CreateFederation(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("CreateFederation", request, context)

    def DeleteFederation(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("DeleteFederation", request, context)

    def ImportBundle(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ImportBundle", request, context)

    def RevokeToken(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("RevokeToken", request, context)


@contextmanager
def serving(fake: FakeAdmin, socket: Path) -> Iterator[FakeAdmin]:
    """Serve `fake` on `socket` for the length of a block."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    admin_pb2_grpc.add_AdminServicer_to_server(fake, server)
    authority_pb2_grpc.add_CertificateAuthorityServicer_to_server(fake, server)
    rotation_pb2_grpc.add_RotationServicer_to_server(fake, server)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    try:
        yield fake
    finally:
        server.stop(0).wait()
