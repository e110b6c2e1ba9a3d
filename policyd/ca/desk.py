"""The authority's desk: what the owner of the folder may ask of it, over the administration socket.

Law: whoever reaches the socket is the owner, because nobody else can enter its folder; policies decide what is issued
even so, and every answer that gives somebody an identity is on record first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

import grpc
from pydantic import ValidationError

from policyd._pb import authority_pb2 as pb
from policyd._pb import authority_pb2_grpc
from policyd.audit import record as audit
from policyd.ca.crl import RevokedSerial
from policyd.ca.entries import ID_BYTES, Entries, Entry, check_entry
from policyd.ca.expiry import Element
from policyd.ca.issuance import Evidence
from policyd.ca.issuer import Issuer
from policyd.ca.ledger import Ledger
from policyd.ca.open import expiry_warnings
from policyd.ca.revocations import Revocation, Revocations
from policyd.ca.revoked_serials import RevokedSerials
from policyd.ca.serving.refusals import Refusal, refused, translated
from policyd.ca.template import Random
from policyd.ca.tokens import Tokens
from policyd.config import FederatedSettings
from policyd.errors import (
    EntryError,
    FederationError,
    IdentityError,
    IssuanceDenied,
    PolicydError,
    RevocationError,
    TokenError,
)
from policyd.mesh.model import Mesh
from policyd.spiffe import SpiffeId
from policyd.svid import bundle

Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here
LONGEST_ASKED: Final = 366 * 86_400  # seconds; what is longer is refused as this is


class Relations(Protocol):
    """The other trust domains that a command named; whatever is done is done once `record` is."""

    def all(self) -> Sequence[FederatedSettings]:
        """Every one."""

    def create(self, relation: FederatedSettings, record: Callable[[], object]) -> None:
        """Know another one; raises FederationError."""

    def delete(self, trust_domain: str, record: Callable[[], object]) -> None:
        """Let its workloads be strangers again; raises FederationError."""


class Federation(Protocol):
    """The other trust domains that are known here."""

    def all(self) -> Sequence[pb.Federated]:
        """What is at hand of each."""

    def brought(
        self, trust_domain: str, document: bytes, record: Callable[[str, Mapping[str, object]], object]
    ) -> pb.Federated:
        """Take a bundle that was brought by hand, once `record` is done; raises FederationError."""

    async def refreshed(self, trust_domain: str) -> pb.Federated:
        """Ask for one now; raises FederationError where there is nothing to ask."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the desk works on; `uid` is the owner's.

    `changed` is called after agents have something new to hear; `elements` are all that can end; `enforce` puts
    revocations in force, and says why decisions do not know them yet, "" where they do; `crls` are the lists of revoked
    certificates, at which proxies look where `looks_at_serials`.
    """

    issuer: Issuer
    entries: Entries
    tokens: Tokens
    revocations: Revocations
    enforce: Callable[[], Awaitable[str]]
    ledger: Ledger
    elements: Callable[[], Iterable[Element]]
    mesh: Callable[[], Mesh]
    record: Callable[[audit.Entry], object]
    changed: Callable[[], object]
    random: Random
    uid: int
    federation: Federation | None = None
    relations: Relations | None = None
    serials: RevokedSerials | None = None
    crls: Callable[[], Sequence[bytes]] = tuple
    looks_at_serials: Callable[[], bool] = lambda: False


class Desk(authority_pb2_grpc.CertificateAuthorityServicer):
    """One method an RPC of proto/policyd/v1/authority.proto."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._issuer = parts.issuer

    async def CaStatus(self, _request: pb.CaStatusRequest, context: Context) -> pb.CaStatusReply:  # noqa: N802
        """All that can end, and when."""
        try:
            with _answered():
                return self._status()
        except Refusal as refusal:
            await refused(context, refusal)

    async def IssueJwt(self, request: pb.IssueJwtRequest, context: Context) -> pb.IssueJwtReply:  # noqa: N802
        """A token for a declared workload."""
        try:
            with _answered():
                return self._issue_jwt(request)
        except Refusal as refusal:
            await refused(context, refusal)

    async def ShowBundle(self, _request: pb.ShowBundleRequest, _context: Context) -> pb.ShowBundleReply:  # noqa: N802
        """What verifiers of the trust domain hold."""
        held = self._issuer.bundle
        return pb.ShowBundleReply(trust_domain=held.trust_domain, document=bundle.write(held))

    def _status(self) -> pb.CaStatusReply:
        parts, authority, now = self._parts, self._issuer.authority, self._issuer.now()
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
            sequence=self._issuer.bundle.sequence,
            issued=parts.ledger.total(),
            entries=len(parts.entries.all()),
            warnings=expiry_warnings(authority, now),
        )

    def _issue_jwt(self, request: pb.IssueJwtRequest) -> pb.IssueJwtReply:
        identity = SpiffeId.parse(request.spiffe_id)
        ttl = _length(request.ttl_seconds)
        evidence = Evidence("unix", (f"unix:uid:{self._parts.uid}",))
        order = self._issuer.order_jwt(identity, None, evidence, tuple(request.audiences), ttl=ttl)
        if identity not in self._parts.mesh().workloads:
            error = IssuanceDenied(f"`{identity}` is no workload of this mesh", remedy="declare it in workloads.yaml")
            self._issuer.refuse(order, error)
            raise error
        token = self._issuer.issue_jwt(order, kind="operator")
        return pb.IssueJwtReply(token=token.text, expires_at=int(token.not_after.timestamp()), jti=token.jti)

    async def CreateEntry(self, request: pb.CreateEntryRequest, context: Context) -> pb.Entry:  # noqa: N802
        """Let processes that have all selectors be a declared workload."""
        try:
            with _answered():
                return self._create_entry(request)
        except Refusal as refusal:
            await refused(context, refusal)

    async def ListEntries(self, _request: pb.ListEntriesRequest, _context: Context) -> pb.ListEntriesReply:  # noqa: N802
        """Every entry."""
        return pb.ListEntriesReply(entries=[_entry(one) for one in self._parts.entries.all()])

    async def DeleteEntry(self, request: pb.DeleteEntryRequest, context: Context) -> pb.Entry:  # noqa: N802
        """Let those processes be nobody again; what they hold ends by itself."""
        try:
            with _answered():
                return self._delete_entry(request.id)
        except Refusal as refusal:
            await refused(context, refusal)

    async def Revoke(self, request: pb.RevokeRequest, context: Context) -> pb.RevokeReply:  # noqa: N802
        """Let nobody have or use an identity, or one certificate, any more."""
        try:
            with _answered():
                if request.serial:
                    self._revoke_serial(request)
                    return pb.RevokeReply(pending=await self._parts.enforce())
                identity = SpiffeId.parse(request.spiffe_id)
                known = identity in self._parts.mesh().workloads or identity.agent_name is not None
                if not known or identity.trust_domain != self._issuer.authority.trust_domain:
                    remedy = "name a declared workload, or an agent as `spiffe://…/agent/NAME`"
                    raise RevocationError(f"`{identity}` is no identity of this mesh", remedy=remedy)
                revocation = Revocation(identity, int(self._issuer.now().timestamp()), request.reason)
                detail = {"spiffe_id": str(identity), "reason": request.reason}
                self._parts.revocations.add(revocation, lambda: self._note("identity.revoke", detail))
        except Refusal as refusal:
            await refused(context, refusal)
        return pb.RevokeReply(pending=await self._parts.enforce())

    async def Unrevoke(self, request: pb.RevokeRequest, context: Context) -> pb.RevokeReply:  # noqa: N802
        """Take a revocation back."""
        try:
            with _answered():
                if request.serial:
                    detail = {"serial": request.serial}
                    self._serials().remove(request.serial, lambda: self._note("certificate.unrevoke", detail))
                    return pb.RevokeReply(pending=await self._parts.enforce())
                identity = SpiffeId.parse(request.spiffe_id)
                detail = {"spiffe_id": str(identity)}
                self._parts.revocations.remove(identity, lambda: self._note("identity.unrevoke", detail))
        except Refusal as refusal:
            await refused(context, refusal)
        return pb.RevokeReply(pending=await self._parts.enforce())

    async def ListRevoked(self, _request: pb.ListRevokedRequest, _context: Context) -> pb.ListRevokedReply:  # noqa: N802
        """Every identity and every certificate that is revoked, and the lists of these."""
        found = self._parts.revocations.all()
        return pb.ListRevokedReply(
            revoked=[pb.Revoked(spiffe_id=str(one.spiffe_id), since=one.since, reason=one.reason) for one in found],
            serials=[
                pb.RevokedSerial(
                    serial=one.serial, spiffe_id=one.spiffe_id, since=one.since, ends=one.ends, reason=one.reason
                )
                for one in (self._parts.serials.all() if self._parts.serials else ())
            ],
            crls=self._parts.crls(),
        )

    async def ListTokens(self, _request: pb.ListTokensRequest, _context: Context) -> pb.ListTokensReply:  # noqa: N802
        """Every join token that is kept, without its secret."""
        return pb.ListTokensReply(
            tokens=[
                pb.Token(
                    id=one.id,
                    agent=one.agent,
                    workloads=sorted(map(str, one.workloads)),
                    created_at=one.created_at,
                    expires_at=one.expires_at,
                    used_at=one.used_at or 0,
                )
                for one in self._parts.tokens.all()
            ]
        )

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Context) -> pb.RevokeTokenReply:  # noqa: N802
        """Make an unused join token worthless."""
        try:
            with _answered():

                def record(agent: str) -> None:
                    self._note("token.revoke", {"token": request.id, "agent": agent})

                agent = self._parts.tokens.revoke(request.id, self._issuer.now(), record)
        except Refusal as refusal:
            await refused(context, refusal)
        return pb.RevokeTokenReply(agent=agent)

    async def ListFederation(  # noqa: N802
        self, _request: pb.ListFederationRequest, context: Context
    ) -> pb.ListFederationReply:
        """Every other trust domain that is known here."""
        try:
            with _answered():
                created = {one.trust_domain for one in self._parts.relations.all()} if self._parts.relations else ()
                found = self._federation().all()
                for one in found:
                    one.created = one.trust_domain in created
                return pb.ListFederationReply(federated=found)
        except Refusal as refusal:
            await refused(context, refusal)

    async def ImportBundle(self, request: pb.ImportBundleRequest, context: Context) -> pb.Federated:  # noqa: N802
        """Know the workloads of another trust domain by a bundle that was brought by hand."""
        try:
            with _answered():
                return self._federation().brought(request.trust_domain, request.document, self._note)
        except Refusal as refusal:
            await refused(context, refusal)

    async def RefreshFederation(  # noqa: N802
        self, request: pb.RefreshFederationRequest, context: Context
    ) -> pb.Federated:
        """Ask for another trust domain's bundle now."""
        try:
            with _answered():
                return await self._federation().refreshed(request.trust_domain)
        except Refusal as refusal:
            await refused(context, refusal)

    async def CreateFederation(  # noqa: N802
        self, request: pb.CreateFederationRequest, context: Context
    ) -> pb.Federated:
        """Know the workloads of another trust domain, by its first bundle if that is given along."""
        try:
            with _answered():
                relation = relation_of(request, self._issuer.authority.trust_domain)
                if any(one.trust_domain == relation.trust_domain for one in self._federation().all()):
                    raise FederationError(f"`{relation.trust_domain}` is known already")
                if request.document:
                    bundle.read(request.document, relation.trust_domain)
                detail = relation.model_dump(exclude_none=True)
                self._relations().create(relation, lambda: self._note("federation.create", detail))
                await self._in_force()
                if request.document:
                    return self._federation().brought(relation.trust_domain, request.document, self._note)
                return self._known(relation.trust_domain)
        except Refusal as refusal:
            await refused(context, refusal)

    async def DeleteFederation(  # noqa: N802
        self, request: pb.DeleteFederationRequest, context: Context
    ) -> pb.Federated:
        """Let the workloads of another trust domain be strangers again."""
        try:
            with _answered():
                name = request.trust_domain
                before = (
                    self._known(name) if any(one.trust_domain == name for one in self._federation().all()) else None
                )
                self._relations().delete(name, lambda: self._note("federation.delete", {"trust_domain": name}))
                await self._in_force()
                return before or pb.Federated(trust_domain=name)
        except Refusal as refusal:
            await refused(context, refusal)

    async def _in_force(self) -> None:
        if pending := await self._parts.enforce():
            raise FederationError(f"it is kept, and not in force yet: {pending}")

    def _known(self, trust_domain: str) -> pb.Federated:
        return next(one for one in self._federation().all() if one.trust_domain == trust_domain)

    def _relations(self) -> Relations:
        assert self._parts.relations is not None, "the server gives them"
        return self._parts.relations

    def _revoke_serial(self, request: pb.RevokeRequest) -> None:
        if not self._parts.looks_at_serials():
            remedy = "write `ca: {revokeSerials: true}` in policyd.yaml, or revoke the identity"
            raise RevocationError("proxies do not look at serial numbers", remedy=remedy)
        identity = SpiffeId.parse(request.spiffe_id)
        if identity.trust_domain != self._issuer.authority.trust_domain:
            raise RevocationError(f"`{identity}` is no identity of this mesh", remedy="its own authority revokes it")
        now = int(self._issuer.now().timestamp())
        revoked = RevokedSerial(request.serial, str(identity), now, request.ends, request.reason)
        detail = {"serial": revoked.serial, "spiffe_id": revoked.spiffe_id, "reason": revoked.reason}
        self._serials().add(revoked, lambda: self._note("certificate.revoke", detail))

    def _serials(self) -> RevokedSerials:
        assert self._parts.serials is not None, "the server gives them"
        return self._parts.serials

    def _federation(self) -> Federation:
        assert self._parts.federation is not None, "the server gives one"
        return self._parts.federation

    def _create_entry(self, request: pb.CreateEntryRequest) -> pb.Entry:
        identity = SpiffeId.parse(request.spiffe_id)
        if identity not in self._parts.mesh().workloads:
            raise EntryError(f"`{identity}` is no workload of this mesh", remedy="declare it in workloads.yaml")
        name = self._parts.random(ID_BYTES).hex()
        entry = check_entry(Entry(identity, frozenset(request.selectors), request.hint, name))
        now = int(self._issuer.now().timestamp())
        self._parts.entries.create(entry, now, lambda: self._record("entry.create", entry))
        self._parts.changed()
        return _entry(entry)

    def _delete_entry(self, identifier: str) -> pb.Entry:
        deleted = self._parts.entries.delete(identifier, lambda entry: self._record("entry.delete", entry))
        if deleted is None:
            raise EntryError(f"`{identifier[:80]}` is no entry", remedy="look at `policyd ca entry list`")
        self._parts.changed()
        return _entry(deleted)

    def _record(self, operation: str, entry: Entry) -> None:
        selectors = sorted(entry.selectors)
        self._note(operation, {"entry": entry.id, "spiffe_id": str(entry.spiffe_id), "selectors": selectors})

    def _note(self, operation: str, detail: Mapping[str, object]) -> None:
        self._parts.record(
            audit.Entry(
                time=self._issuer.now(),
                kind="operation",
                decision="allow",
                principal=f'Operator::"unix:{self._parts.uid}"',
                detail={"operation": operation, **detail},
            )
        )


def relation_of(request: pb.CreateFederationRequest, own: str) -> FederatedSettings:
    """The relation that is asked for; raises FederationError where it is none, or one with this trust domain itself."""
    try:
        relation = FederatedSettings.model_validate(
            {
                "trust_domain": request.trust_domain,
                "bundle_endpoint": request.bundle_endpoint or None,
                "profile": request.profile or "https_spiffe",
                "endpoint_id": request.endpoint_id or None,
            }
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise FederationError(str(first["msg"]).removeprefix("Value error, ")[:500]) from None
    if relation.trust_domain == own:
        raise FederationError(f"`{own}` is this trust domain itself")
    return relation


def handler(server: grpc.aio.Server, desk: Desk) -> None:
    """Serve the desk on a server that only the owner reaches."""
    authority_pb2_grpc.add_CertificateAuthorityServicer_to_server(desk, server)  # type: ignore[no-untyped-call]


def _entry(entry: Entry) -> pb.Entry:
    return pb.Entry(id=entry.id, spiffe_id=str(entry.spiffe_id), selectors=sorted(entry.selectors), hint=entry.hint)


@contextmanager
def _answered() -> Iterator[None]:
    """As `translated`, but the owner is told everything."""
    try:
        with translated():
            yield
    except Refusal as refusal:
        cause = refusal.__cause__
        if not isinstance(cause, PolicydError):
            raise
        ours = type(cause) in (
            IdentityError,
            EntryError,
            FederationError,
            RevocationError,
            TokenError,
        )  # not what the owner may do, but what was asked for
        status = grpc.StatusCode.INVALID_ARGUMENT if ours else refusal.status
        raise Refusal(status, str(cause)) from cause


def _length(seconds: int) -> timedelta | None:
    return timedelta(seconds=min(max(seconds, -LONGEST_ASKED), LONGEST_ASKED)) if seconds else None
