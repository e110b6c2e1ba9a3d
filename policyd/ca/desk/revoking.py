"""Identities and single certificates that nobody is to believe any more."""

from __future__ import annotations

from policyd._pb import authority_pb2 as pb
from policyd.ca.crl import RevokedSerial
from policyd.ca.desk.answers import Context, answered
from policyd.ca.desk.parts import Clerk
from policyd.ca.revocations import Revocation
from policyd.ca.revoked_serials import RevokedSerials
from policyd.errors import NotFound, RevocationError
from policyd.spiffe import SpiffeId


class RevocationClerk(Clerk):
    """Revokes, and takes revocations back."""

    async def Revoke(self, request: pb.RevokeRequest, context: Context) -> pb.RevokeReply:  # noqa: N802
        """Let nobody have or use an identity, or one certificate, any more."""
        async with answered(context):
            if request.serial:
                self._revoke_serial(request)
                return pb.RevokeReply(pending=await self.parts.enforce())
            identity = SpiffeId.parse(request.spiffe_id)
            known = identity in self.parts.mesh().workloads or identity.agent_name is not None
            if not known or identity.trust_domain != self.issuer.authority.trust_domain:
                remedy = "name a declared workload, or an agent as `spiffe://…/agent/NAME`"
                raise NotFound(f"`{identity}` is no identity of this mesh", remedy=remedy)
            revocation = Revocation(identity, int(self.issuer.now().timestamp()), request.reason)
            detail = {"spiffe_id": str(identity), "reason": request.reason}
            self.parts.revocations.add(revocation, lambda: self.note("identity.revoke", detail))
        return pb.RevokeReply(pending=await self.parts.enforce())

    async def Unrevoke(self, request: pb.RevokeRequest, context: Context) -> pb.RevokeReply:  # noqa: N802
        """Take a revocation back."""
        async with answered(context):
            if request.serial:
                detail = {"serial": request.serial}
                self._serials().remove(request.serial, lambda: self.note("certificate.unrevoke", detail))
                return pb.RevokeReply(pending=await self.parts.enforce())
            identity = SpiffeId.parse(request.spiffe_id)
            detail = {"spiffe_id": str(identity)}
            self.parts.revocations.remove(identity, lambda: self.note("identity.unrevoke", detail))
        return pb.RevokeReply(pending=await self.parts.enforce())

    async def ListRevoked(self, _request: pb.ListRevokedRequest, _context: Context) -> pb.ListRevokedReply:  # noqa: N802
        """Every identity and every certificate that is revoked, and the lists of these."""
        found = self.parts.revocations.all()
        return pb.ListRevokedReply(
            revoked=[pb.Revoked(spiffe_id=str(one.spiffe_id), since=one.since, reason=one.reason) for one in found],
            serials=[
                pb.RevokedSerial(
                    serial=one.serial, spiffe_id=one.spiffe_id, since=one.since, ends=one.ends, reason=one.reason
                )
                for one in (self.parts.serials.all() if self.parts.serials else ())
            ],
            crls=self.parts.crls(),
        )

    def _revoke_serial(self, request: pb.RevokeRequest) -> None:
        if not self.parts.looks_at_serials():
            remedy = "write `ca: {revokeSerials: true}` in policyd.yaml, or revoke the identity"
            raise RevocationError("proxies do not look at serial numbers", remedy=remedy)
        identity = SpiffeId.parse(request.spiffe_id)
        if identity.trust_domain != self.issuer.authority.trust_domain:
            raise RevocationError(f"`{identity}` is no identity of this mesh", remedy="its own authority revokes it")
        now = int(self.issuer.now().timestamp())
        revoked = RevokedSerial(request.serial, str(identity), now, request.ends, request.reason)
        detail = {"serial": revoked.serial, "spiffe_id": revoked.spiffe_id, "reason": revoked.reason}
        self._serials().add(revoked, lambda: self.note("certificate.revoke", detail))

    def _serials(self) -> RevokedSerials:
        assert self.parts.serials is not None, "the server gives them"
        return self.parts.serials
