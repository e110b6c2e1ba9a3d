"""The administration API as commands and the console call it: a Unix socket, a deadline on each call, errors as ours.

Law: whoever asks the server through that API asks here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from policyd._pb import admin_pb2 as pb
from policyd._pb import admin_pb2_grpc, authority_pb2_grpc, rotation_pb2, rotation_pb2_grpc
from policyd._pb import authority_pb2 as ca
from policyd.errors import InvalidInput, NotFound, NotRunning, PolicydError, Problem

RESTART_SECONDS: Final = 300.0  # for all decision processes, one after another
CALL_SECONDS: Final = 10.0
CHANGE_SECONDS: Final = 120.0  # a large mesh is checked twice
INSPECT_SECONDS: Final = 20.0  # for a large proxy, by way of its agent
MAX_REPLY: Final = 16 << 20  # bytes; a large mesh's proxies
OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_REPLY),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a new client is a new connection, also after a restart
)


class RefusedError(PolicydError):
    """The server answered, and refused."""

    code = "refused"


class AdminClient:
    """A connection to the server behind `socket`; calls raise NotRunning, InvalidInput, NotFound and RefusedError."""

    def __init__(self, socket: Path, directory: Path, *, seconds: float = CALL_SECONDS) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=OPTIONS)
        self._stub: Any = admin_pb2_grpc.AdminStub(self._channel)  # type: ignore[no-untyped-call]
        self._authority: Any = authority_pb2_grpc.CertificateAuthorityStub(self._channel)  # type: ignore[no-untyped-call]
        self._rotation: Any = rotation_pb2_grpc.RotationStub(self._channel)  # type: ignore[no-untyped-call]
        self._directory = directory
        self._seconds = seconds

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def status(self) -> pb.StatusReply:
        """What is in force, and whether the server is ready."""
        reply: pb.StatusReply = self._call(self._stub.Status, pb.StatusRequest())
        return reply

    def shutdown(self) -> None:
        """Ask the server to end, as SIGTERM would."""
        self._call(self._stub.Shutdown, pb.ShutdownRequest())

    def restart_deciders(self) -> pb.RestartDecidersReply:
        """Replace the decision processes one at a time, which takes a few seconds each."""
        reply: pb.RestartDecidersReply = self._call(
            self._stub.RestartDeciders, pb.RestartDecidersRequest(), seconds=RESTART_SECONDS
        )
        return reply

    def create_token(self, agent: str, workloads: Sequence[str] = (), ttl_seconds: int = 0) -> pb.CreateTokenReply:
        """A one-use join token; `workloads` are SPIFFE IDs, none means all; a `ttl_seconds` of 0 is ten minutes."""
        request = pb.CreateTokenRequest(agent=agent, workloads=workloads, ttl_seconds=ttl_seconds)
        reply: pb.CreateTokenReply = self._call(self._stub.CreateToken, request)
        return reply

    def show_ca(self) -> pb.ShowCaReply:
        """The certificate authority's chain."""
        reply: pb.ShowCaReply = self._call(self._stub.ShowCa, pb.ShowCaRequest())
        return reply

    def issue(self, spiffe_id: str, csr: bytes, ttl_seconds: int = 0) -> pb.IssueReply:
        """A certificate for the key of `csr` (DER); a `ttl_seconds` of 0 is the server's default."""
        request = pb.IssueRequest(spiffe_id=spiffe_id, csr=csr, ttl_seconds=ttl_seconds)
        reply: pb.IssueReply = self._call(self._stub.Issue, request)
        return reply

    def issue_jwt(self, spiffe_id: str, audiences: Sequence[str], ttl_seconds: int = 0) -> ca.IssueJwtReply:
        """A JWT-SVID; a `ttl_seconds` of 0 is five minutes."""
        request = ca.IssueJwtRequest(spiffe_id=spiffe_id, audiences=audiences, ttl_seconds=ttl_seconds)
        reply: ca.IssueJwtReply = self._call(self._authority.IssueJwt, request)
        return reply

    def ca_status(self) -> ca.CaStatusReply:
        """All of the certificate authority that can end."""
        reply: ca.CaStatusReply = self._call(self._authority.CaStatus, ca.CaStatusRequest())
        return reply

    def rotation(self) -> rotation_pb2.RotationReply:
        """How far a rotation of the authority is."""
        request = rotation_pb2.RotationStatusRequest()
        reply: rotation_pb2.RotationReply = self._call(self._rotation.RotationStatus, request)
        return reply

    def rotate(
        self, step: str, what: str = "", without: Sequence[str] = (), *, early: bool = False
    ) -> rotation_pb2.RotationReply:
        """Make one step of it."""
        request = rotation_pb2.RotationStepRequest(step=step, what=what, without=without, early=early)
        reply: rotation_pb2.RotationReply = self._call(self._rotation.RotationStep, request)
        return reply

    def bundle(self) -> ca.ShowBundleReply:
        """What verifiers of the trust domain hold."""
        reply: ca.ShowBundleReply = self._call(self._authority.ShowBundle, ca.ShowBundleRequest())
        return reply

    def federated(self) -> Sequence[ca.Federated]:
        """The other trust domains that are known."""
        reply: ca.ListFederationReply = self._call(self._authority.ListFederation, ca.ListFederationRequest())
        return reply.federated

    def import_bundle(self, trust_domain: str, document: bytes) -> ca.Federated:
        """Know another trust domain by a bundle (SPIFFE's JWK set)."""
        request = ca.ImportBundleRequest(trust_domain=trust_domain, document=document)
        reply: ca.Federated = self._call(self._authority.ImportBundle, request)
        return reply

    def refresh_federation(self, trust_domain: str) -> ca.Federated:
        """Ask for another trust domain's bundle now."""
        request = ca.RefreshFederationRequest(trust_domain=trust_domain)
        reply: ca.Federated = self._call(self._authority.RefreshFederation, request)
        return reply

    def create_federation(self, request: ca.CreateFederationRequest) -> ca.Federated:
        """Know the workloads of another trust domain."""
        reply: ca.Federated = self._call(self._authority.CreateFederation, request)
        return reply

    def delete_federation(self, trust_domain: str) -> ca.Federated:
        """Let the workloads of another trust domain be strangers again."""
        request = ca.DeleteFederationRequest(trust_domain=trust_domain)
        reply: ca.Federated = self._call(self._authority.DeleteFederation, request)
        return reply

    def create_entry(self, spiffe_id: str, selectors: Sequence[str], hint: str = "") -> ca.Entry:
        """Let processes that have all selectors be a workload."""
        request = ca.CreateEntryRequest(spiffe_id=spiffe_id, selectors=selectors, hint=hint)
        reply: ca.Entry = self._call(self._authority.CreateEntry, request)
        return reply

    def revoke(self, spiffe_id: str, reason: str = "", *, serial: str = "", ends: int = 0) -> str:
        """Let nobody have or use an identity any more, or with `serial` one certificate of it, which `ends` by itself.

        Returns why decisions do not know it yet, "" where they do.
        """
        request = ca.RevokeRequest(spiffe_id=spiffe_id, reason=reason, serial=serial, ends=ends)
        reply: ca.RevokeReply = self._call(self._authority.Revoke, request)
        return reply.pending

    def unrevoke(self, spiffe_id: str, *, serial: str = "") -> str:
        """Take a revocation back; returns as `revoke`."""
        request = ca.RevokeRequest(spiffe_id=spiffe_id, serial=serial)
        reply: ca.RevokeReply = self._call(self._authority.Unrevoke, request)
        return reply.pending

    def revoked(self) -> Sequence[ca.Revoked]:
        """Every identity that is revoked."""
        return self.revocations().revoked

    def revocations(self) -> ca.ListRevokedReply:
        """Every identity and every certificate that is revoked, and the lists of these."""
        reply: ca.ListRevokedReply = self._call(self._authority.ListRevoked, ca.ListRevokedRequest())
        return reply

    def tokens(self) -> Sequence[ca.Token]:
        """Every join token that is kept, the newest first."""
        reply: ca.ListTokensReply = self._call(self._authority.ListTokens, ca.ListTokensRequest())
        return reply.tokens

    def revoke_token(self, identifier: str) -> str:
        """Make an unused join token worthless; returns whose it was."""
        reply: ca.RevokeTokenReply = self._call(self._authority.RevokeToken, ca.RevokeTokenRequest(id=identifier))
        return reply.agent

    def entries(self) -> Sequence[ca.Entry]:
        """Every registration entry, by identity."""
        reply: ca.ListEntriesReply = self._call(self._authority.ListEntries, ca.ListEntriesRequest())
        return reply.entries

    def delete_entry(self, identifier: str) -> ca.Entry:
        """Forget a registration entry."""
        reply: ca.Entry = self._call(self._authority.DeleteEntry, ca.DeleteEntryRequest(id=identifier))
        return reply

    def instances(self) -> Sequence[pb.InstancePlace]:
        """Where each instance is, by name."""
        reply: pb.InstancesReply = self._call(self._stub.Instances, pb.InstancesRequest())
        return sorted(reply.instances, key=lambda place: place.name)

    def proxies(self) -> Sequence[pb.ProxyStatus]:
        """Each Envoy as the control plane sees it, by instance."""
        reply: pb.ProxiesReply = self._call(self._stub.Proxies, pb.ProxiesRequest())
        return sorted(reply.proxies, key=lambda proxy: proxy.instance)

    def inspect(self, instance: str, kind: str, *, sent: bool = False) -> pb.InspectReply:
        """What a proxy holds of a kind, and what it was sent of it."""
        asked = pb.InspectRequest(instance=instance, kind=kind, sent=sent)
        reply: pb.InspectReply = self._call(self._stub.Inspect, asked, seconds=INSPECT_SECONDS)
        return reply

    def resources(self, kind: str = "", name: str = "") -> Sequence[pb.MeshResource]:
        """The resources of the mesh that are in force."""
        reply: pb.ResourcesReply = self._call(self._stub.Resources, pb.ResourcesRequest(kind=kind, name=name))
        return reply.resources

    def change_mesh(self, apply: str, remove: Sequence[tuple[str, str]], *, dry_run: bool) -> pb.ChangeMeshReply:
        """Put resources (YAML) into the mesh, and take some out by kind and name."""
        names = [pb.ResourceName(kind=kind, name=name) for kind, name in remove]
        asked = pb.ChangeMeshRequest(apply=apply, remove=names, dry_run=dry_run)
        reply: pb.ChangeMeshReply = self._call(self._stub.ChangeMesh, asked, seconds=CHANGE_SECONDS)
        return reply

    def decide(self, instance: str, request: str, headers: Mapping[str, str]) -> pb.DecideReply:
        """What a request that reaches an instance now would be answered."""
        asked = pb.DecideRequest(instance=instance, request=request, headers=headers)
        reply: pb.DecideReply = self._call(self._stub.Decide, asked)
        return reply

    def set_log_level(self, level: str, agent: str = "", *, envoys: bool = False) -> str:
        """Have the server's processes, or an agent, or its Envoys log from a level on ("": as the settings say, or as
        it was started); returns the one that holds now.
        """
        asked = pb.SetLogLevelRequest(level=level, agent=agent, envoys=envoys)
        reply: pb.SetLogLevelReply = self._call(self._stub.SetLogLevel, asked)
        return reply.level

    def traces(self, wanted: pb.TracesRequest) -> pb.TracesReply:
        """The traces of the last while that fit, the newest first."""
        reply: pb.TracesReply = self._call(self._stub.Traces, wanted)
        return reply

    def apply_policies(self, who: str, file: str, text: str, before: str) -> pb.ApplyPoliciesReply:
        """Write and enforce a file of policies, of which `before` is the hash of the text that was edited."""
        request = pb.ApplyPoliciesRequest(who=who, file=file, text=text, before=before)
        reply: pb.ApplyPoliciesReply = self._call(self._stub.ApplyPolicies, request, seconds=CHANGE_SECONDS)
        return reply

    def visit(self, who: str, act: str, operation: str = "") -> pb.VisitReply:
        """Whether an operator may look; with an `operation` it is recorded."""
        asked = pb.VisitRequest(who=who, act=act, operation=operation)
        reply: pb.VisitReply = self._call(self._stub.Visit, asked)
        return reply

    def trace(self, trace_id: str) -> pb.TraceReply:
        """One trace, as a tree is read."""
        reply: pb.TraceReply = self._call(self._stub.Trace, pb.TraceRequest(id=trace_id))
        return reply

    def _call(self, method: Any, request: Any, seconds: float | None = None) -> Any:
        try:
            return method(request, timeout=seconds or self._seconds)
        except grpc.RpcError as error:
            raise self._failure(error) from None

    def _failure(self, error: Any) -> PolicydError:
        detail = (error.details() or error.code().name.lower())[:1000]
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):  # it ends, or has ended
            return not_running(self._directory)
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return NotRunning(
                f"the server of `{self._directory}` did not answer within {self._seconds:g} s",
                remedy=f"look at its log in `{self._directory / '.policyd' / 'run' / 'serve.log'}`",
            )
        message, _, remedy = detail.partition("; ")
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return NotFound(message, remedy=remedy)
        if error.code() is grpc.StatusCode.INVALID_ARGUMENT:  # as where files say so
            return InvalidInput([Problem("request", message, remedy=remedy)])
        return RefusedError(message, remedy=remedy)


def not_running(directory: Path) -> NotRunning:
    """Return the error of a folder for which nothing runs."""
    return NotRunning(f"nothing is running for `{directory}`", remedy=f"start it with `policyd up {directory}`")


@contextmanager
def admin(socket: Path, directory: Path, *, seconds: float = CALL_SECONDS) -> Iterator[AdminClient]:
    """Connect for the length of a block."""
    client = AdminClient(socket, directory, seconds=seconds)
    try:
        yield client
    finally:
        client.close()
