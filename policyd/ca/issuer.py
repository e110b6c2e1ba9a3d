"""The one way to a certificate or a token: request checked, policy asked, signed, checked, recorded, handed over.

Law: neither leaves without its record, and no refusal either. Of whoever asks, only the key is
taken.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding

from policyd.audit.record import Entry, Fault, Outcome
from policyd.ca import jwt, template
from policyd.ca.alike import Alike
from policyd.ca.authority import Authority, Svid
from policyd.ca.csr import Csr, fingerprint, parse_csr
from policyd.ca.issuance import X509, AnyOrder, Entities, Evidence, JwtOrder, Order, cedar_request, principal_uid
from policyd.ca.jwt_keys import JwtKeys
from policyd.ca.template import PublicKey, Random
from policyd.cedar.model import Decision, Request, Uid
from policyd.errors import DecisionError, IdentityError, IssuanceDenied, PolicydError
from policyd.mesh.model import Mesh
from policyd.spiffe import SpiffeId
from policyd.svid.bundle import REFRESH_HINT, Bundle
from policyd.svid.jwt import check_audiences

SERVER_DNS_NAME: Final = "policyd"


@dataclass(frozen=True, slots=True)
class Ports:
    """What an Issuer needs from outside.

    `decide` asks the issuance policies in force (of `revision`), `record` appends to the journal or raises
    JournalError, `count` adds to the number of certificates of a kind, `refused` to that of refusals with a code,
    `revoked` tells whether an identity is that, `revoked_serial` whether a certificate is, `token_issuer` is what
    tokens bear as `iss`, "" for none, `random` gives unpredictable bytes, `jwt_keys` those that sign tokens now.
    """

    mesh: Callable[[], Mesh]
    decide: Callable[[Request], Decision]
    record: Callable[[Entry], object]
    count: Callable[[str], object]
    clock: Callable[[], datetime]
    random: Random
    jwt_keys: Callable[[], JwtKeys]
    revision: Callable[[], str] = lambda: ""
    ttl: Callable[[], timedelta] = lambda: template.LEAF_LIFE
    refused: Callable[[str], object] = lambda code: None
    revoked: Callable[[SpiffeId], bool] = lambda spiffe_id: False
    token_issuer: Callable[[], str] = lambda: ""
    revoked_serial: Callable[[str], bool] = lambda serial: False


class Issuer:
    """Issues the certificates of one authority; another value of `authority` is in force from the next call on."""

    def __init__(self, authority: Authority, ports: Ports) -> None:
        self.authority = authority
        self._ports = ports
        self._entities = Entities()
        self._alike = Alike(self._entities)
        self._published: tuple[Authority, JwtKeys, Bundle] | None = None  # made of these

    def now(self) -> datetime:
        """The time of its clock, in UTC."""
        return self._ports.clock()

    def order(
        self,
        identity: SpiffeId,
        principal: SpiffeId | None,
        evidence: Evidence,
        *,
        source: str = "",
        ttl: timedelta | None = None,
    ) -> Order:
        """An order of now; what is no IP address is no `source`."""
        now = self._ports.clock().replace(microsecond=0)  # what a certificate can say, and what policies are told
        return Order(identity, principal, evidence, ttl or self._ports.ttl(), now, source=_address(source))

    def issue(self, order: Order, csr: bytes, *, kind: str, agent: str = "") -> Svid:
        """An SVID as ordered, for the key of `csr` (PKCS#10, DER); `kind` is what it counts as, `agent` who carries it.

        Raises CsrError, IssuanceDenied, DecisionError where policies give no answer, IdentityError where the
        authority cannot sign, JournalError or StateError where the certificate could not be recorded.
        """
        detail = {"agent": agent, "csr_sha256": fingerprint(csr), "requested_by": kind}
        revision = self._ports.revision()  # by which is decided, however long signing takes
        asked = self._alike.of(order, self._ports.mesh(), revision)
        request, decision = asked.request, Decision(False)
        try:
            accepted = self._accept(csr, order.identity)
            decision = asked.decided(self._ports.decide)
            self._check_granted(decision, order)
            svid = self._sign(order, accepted.key)
        except (IdentityError, DecisionError) as error:
            self._record(order, decision, detail, request.context, error, revision=revision)
            raise
        self._record(order, decision, detail | _described(svid), request.context, revision=revision)
        self._ports.count(kind)
        return svid

    def order_jwt(
        self,
        identity: SpiffeId,
        principal: SpiffeId | None,
        evidence: Evidence,
        audiences: tuple[str, ...],
        *,
        ttl: timedelta | None = None,
    ) -> JwtOrder:
        """An order of now for a token; raises IdentityError for audiences that are none."""
        wanted = ttl or jwt.DEFAULT_LIFE
        return JwtOrder(identity, principal, evidence, wanted, self._ports.clock(), check_audiences(audiences))

    def issue_jwt(self, order: JwtOrder, *, kind: str, agent: str = "") -> jwt.Token:
        """A JWT-SVID as ordered; `kind` and `agent` as for `issue`, which raises the same."""
        detail = {"agent": agent, "requested_by": kind}
        revision = self._ports.revision()
        request = cedar_request(order, self._ports.mesh(), self._entities)
        decision = Decision(False)
        try:
            decision = self._ports.decide(request)
            self._check_granted(decision, order)
            key = self._ports.jwt_keys().signing(order.time)
            token = jwt.sign(
                order.identity,
                order.audiences,
                key,
                now=order.time,
                ttl=order.ttl,
                random=self._ports.random,
                issuer=self._ports.token_issuer(),
            )
        except (IdentityError, DecisionError) as error:
            self._record(order, decision, detail, request.context, error, revision=revision)
            raise
        described = {"jti": token.jti, "kid": token.kid, "not_after": f"{token.not_after:%FT%TZ}"}
        self._record(order, decision, detail | described, request.context, revision=revision)
        self._ports.count("jwt")
        return token

    @property
    def bundle(self) -> Bundle:
        """What verifiers of this trust domain hold, as it is published now."""
        authority, keys = self.authority, self._ports.jwt_keys()
        if self._published is not None and self._published[0] is authority and self._published[1] is keys:
            return self._published[2]
        sequence = authority.bundle_sequence + keys.sequence  # each only grows, so a change of either shows
        roots = tuple(root.public_bytes(Encoding.DER) for root in authority.roots)
        bundle = Bundle(authority.trust_domain, roots, keys.public, sequence, REFRESH_HINT)
        self._published = (authority, keys, bundle)
        return bundle

    def refuse(self, order: AnyOrder, error: PolicydError, **detail: str) -> None:
        """Record that an order was refused before the policies were asked; the caller then raises `error`."""
        self._record(order, Decision(False), detail, {}, error)

    def refuse_attestation(self, source: str, reason: str, agent: str) -> None:
        """Record that a join token was not accepted, and why, which its bearer is not told."""
        detail = {"evidence": {"kind": "join_token"}, "reason": reason, "agent": agent, "source": _address(source)}
        fault = Fault(source="token", message=f"the join token is {reason}")
        self._append("deny", principal=str(principal_uid(None)), errors=(fault,), detail=_filled(detail))
        self._ports.refused(fault.source)

    def issue_server(self, key: PublicKey) -> Svid:
        """policyd's own SVID, with the DNS name that our clients expect; recorded, but no policy can take it away."""
        return self._issue_own(SpiffeId.server(self.authority.trust_domain), key, "server", (SERVER_DNS_NAME,))

    def issue_journal(self, key: PublicKey) -> Svid:
        """The SVID of a key that seals the journal; recorded, but no policy can take it away."""
        return self._issue_own(SpiffeId.journal(self.authority.trust_domain), key, "journal")

    def _issue_own(self, spiffe_id: SpiffeId, key: PublicKey, kind: str, dns_names: tuple[str, ...] = ()) -> Svid:
        order = Order(spiffe_id, spiffe_id, Evidence("self"), template.LEAF_LIFE, self._ports.clock(), dns_names)
        svid = self._sign(order, key, own=kind == "server")
        self._record(order, Decision(True), {"requested_by": kind} | _described(svid), {})
        self._ports.count(kind)
        return svid

    def is_revoked(self, spiffe_id: SpiffeId) -> bool:
        """Whether nobody may have, or use, this identity any more."""
        return self._ports.revoked(spiffe_id)

    def is_revoked_serial(self, serial: str) -> bool:
        """Whether nobody is to believe the certificate with this serial number any more."""
        return self._ports.revoked_serial(serial)

    def _check_granted(self, decision: Decision, order: AnyOrder) -> None:
        for one in (order.identity, order.principal):
            if one is not None and self._ports.revoked(one):
                raise IssuanceDenied(f"`{one}` is revoked", remedy="look at `policyd ca revoked`")
        if not decision.allowed:
            raise IssuanceDenied(f"`{order.identity}` is not granted", remedy="look at the issuance policies")

    def _accept(self, csr: bytes, identity: SpiffeId) -> Csr:
        own = (self.authority.root.public_key(), self.authority.intermediate.public_key())
        return parse_csr(csr, identity, own_keys=own)

    def _sign(self, order: Order, key: PublicKey, *, own: bool = False) -> Svid:
        return self.authority.sign(
            order.identity,
            key,
            now=order.time,
            random=self._ports.random,
            ttl=order.ttl,
            dns_names=order.dns_names,
            own=own,
        )

    def _record(
        self,
        order: AnyOrder,
        decision: Decision,
        detail: Mapping[str, Any],
        context: Mapping[str, Any],
        error: PolicydError | None = None,
        *,
        revision: str | None = None,
    ) -> None:
        faults = [Fault(source=one.policy, message=one.message) for one in decision.errors]
        faults += [Fault(source=error.code, message=error.message)] if error else []
        evidence = {"kind": order.evidence.kind, "selectors": list(order.evidence.selectors)}
        self._append(
            _outcome(error),
            action=str(order.action),
            principal=str(principal_uid(order.principal)),
            resource=str(Uid("Workload", str(order.identity))),
            reasons=decision.reasons,
            errors=tuple(faults),
            context=context,
            detail=_filled({"spiffe_id": str(order.identity), "evidence": evidence, **detail}),
            revision=revision,
        )
        if error is not None:
            self._ports.refused(error.code)

    def _append(self, outcome: Outcome, *, action: str = str(X509), revision: str | None = None, **fields: Any) -> None:
        entry = Entry(
            time=self._ports.clock(),
            kind="issuance",
            decision=outcome,
            action=action,
            revision=self._ports.revision() if revision is None else revision,
            **fields,
        )
        self._ports.record(entry)


def _outcome(error: PolicydError | None) -> Outcome:
    """Refused by rule is a denial; a bad request or an authority that cannot sign is an error."""
    if error is None:
        return "allow"
    return "deny" if isinstance(error, IssuanceDenied) else "error"


def _described(svid: Svid) -> dict[str, Any]:
    return {"serial": svid.serial, "not_after": _stamp(svid.not_after)}


@lru_cache(maxsize=256)
def _stamp(moment: datetime) -> str:
    return f"{moment:%FT%TZ}"


def _filled(detail: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in detail.items() if value != ""}


@lru_cache(maxsize=4096)
def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
