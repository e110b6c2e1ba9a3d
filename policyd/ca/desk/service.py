"""The desk as a gRPC service, and what it tells of the authority itself."""

from __future__ import annotations

import grpc

from policyd._pb import authority_pb2 as pb
from policyd._pb import authority_pb2_grpc
from policyd.ca.desk.answers import Context, answered, length
from policyd.ca.desk.entries import EntryClerk
from policyd.ca.desk.federating import FederationClerk
from policyd.ca.desk.revoking import RevocationClerk
from policyd.ca.desk.tokens import TokenClerk
from policyd.ca.issuance import Evidence
from policyd.ca.open import expiry_warnings
from policyd.errors import IssuanceDenied
from policyd.spiffe import SpiffeId
from policyd.svid import bundle


class Desk(
    EntryClerk,
    RevocationClerk,
    TokenClerk,
    FederationClerk,
    authority_pb2_grpc.CertificateAuthorityServicer,
):
    """One method an RPC of proto/policyd/v1/authority.proto."""

    async def CaStatus(self, _request: pb.CaStatusRequest, context: Context) -> pb.CaStatusReply:  # noqa: N802
        """All that can end, and when."""
        async with answered(context):
            return self._status()

    async def IssueJwt(self, request: pb.IssueJwtRequest, context: Context) -> pb.IssueJwtReply:  # noqa: N802
        """A token for a declared workload."""
        async with answered(context):
            return self._issue_jwt(request)

    async def ShowBundle(self, _request: pb.ShowBundleRequest, _context: Context) -> pb.ShowBundleReply:  # noqa: N802
        """What verifiers of the trust domain hold."""
        held = self.issuer.bundle
        return pb.ShowBundleReply(trust_domain=held.trust_domain, document=bundle.write(held))

    def _status(self) -> pb.CaStatusReply:
        parts, authority, now = self.parts, self.issuer.authority, self.issuer.now()
        elements = [
            pb.Element(
                name=one.name,
                id=one.id,
                state=one.state,
                begins=int(one.begins.timestamp()),
                ends=int(one.ends.timestamp()),
            )
            for one in parts.elements()
        ]
        return pb.CaStatusReply(
            trust_domain=authority.trust_domain,
            elements=elements,
            sequence=self.issuer.bundle.sequence,
            issued=parts.ledger.total(),
            entries=len(parts.entries.all()),
            warnings=expiry_warnings(authority, now),
        )

    def _issue_jwt(self, request: pb.IssueJwtRequest) -> pb.IssueJwtReply:
        identity = SpiffeId.parse(request.spiffe_id)
        ttl = length(request.ttl_seconds)
        evidence = Evidence("unix", (f"unix:uid:{self.parts.uid}",))
        order = self.issuer.order_jwt(identity, None, evidence, tuple(request.audiences), ttl=ttl)
        if identity not in self.parts.mesh().workloads:
            error = IssuanceDenied(f"`{identity}` is no workload of this mesh", remedy="declare it in workloads.yaml")
            self.issuer.refuse(order, error)
            raise error
        token = self.issuer.issue_jwt(order, kind="operator")
        return pb.IssueJwtReply(token=token.text, expires_at=int(token.not_after.timestamp()), jti=token.jti)


def handler(server: grpc.aio.Server, desk: Desk) -> None:
    """Serve the desk on a server that only the owner reaches."""
    authority_pb2_grpc.add_CertificateAuthorityServicer_to_server(desk, server)  # type: ignore[no-untyped-call]
