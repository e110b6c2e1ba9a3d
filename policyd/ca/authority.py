"""The mesh's certificate authority as a value: it signs, and checks what it signed before it lets go of it.

Law: nothing leaves `sign` that check.py would refuse. The root's key is not needed here: it signs the
intermediate and rests.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from policyd.ca import check, mould, template
from policyd.ca.signed import Ordered, check_signed
from policyd.ca.template import PublicKey, Random
from policyd.errors import IdentityError
from policyd.spiffe import SpiffeId
from policyd.svid import x509 as verifier

NEVER_ISSUED: Final = 1  # the serial number of a certificate that is verified and thrown away


@dataclass(frozen=True, slots=True)
class Material:
    """All that an authority is made of, as it is kept: both certificates and both keys.

    Without `root_key` the root is another's, as a company's; `above` are the certificates between it and ours.
    """

    root: x509.Certificate
    root_key: ec.EllipticCurvePrivateKey | None = field(repr=False)
    intermediate: x509.Certificate
    intermediate_key: ec.EllipticCurvePrivateKey = field(repr=False)
    above: tuple[x509.Certificate, ...] = ()


@dataclass(frozen=True, slots=True)
class Svid:
    """A signed identity: the leaf, as it was read and in DER, its intermediate, and what is between that and the root,
    without the root.
    """

    spiffe_id: SpiffeId
    leaf: x509.Certificate
    der: bytes
    intermediate: x509.Certificate
    above: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> tuple[bytes, ...]:
        """DER, leaf first."""
        return self.der, *map(_der, (self.intermediate, *self.above))

    @property
    def serial(self) -> str:
        """The serial number in lower-case hex, as logs and `ca inspect` show it."""
        return f"{self.leaf.serial_number:032x}"

    @property
    def not_after(self) -> datetime:
        """When it ends, in UTC."""
        return self.leaf.not_valid_after_utc


@dataclass(frozen=True, slots=True)
class Bridge:
    """The key that signs, vouched for by the root before as well: who trusts that root alone can verify even so."""

    certificate: x509.Certificate
    root: x509.Certificate


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs X.509-SVIDs of one trust domain with the intermediate's key.

    While its root is new there is a `bridge` from the root before: policyd itself always shows it, and with `bridging`
    so do all. `others` are trusted besides the root; `sequence` is that of the trusted roots, 0 while there was only
    ever one.
    """

    trust_domain: str
    root: x509.Certificate
    intermediate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    bridge: Bridge | None = None
    bridging: bool = False
    others: tuple[x509.Certificate, ...] = ()
    sequence: int = 0
    above: tuple[x509.Certificate, ...] = ()

    def sign(
        self,
        spiffe_id: SpiffeId,
        key: PublicKey,
        *,
        now: datetime,
        random: Random,
        ttl: timedelta = template.LEAF_LIFE,
        dns_names: tuple[str, ...] = (),
        own: bool = False,
    ) -> Svid:
        """An SVID for `spiffe_id` and `key`, from two minutes before `now` (UTC) until `ttl` after it.

        `own` is policyd's, which even those have to verify that have missed a new root.

        It ends with its chain at the latest. Raises IdentityError for an identity of another trust domain, for the
        authority's own keys, where less than five minutes would remain, and where what was signed fails its check.
        """
        if spiffe_id.trust_domain != self.trust_domain:
            raise IdentityError(f"`{spiffe_id}` is not of the trust domain `{self.trust_domain}`")
        if any(check.same_key(key, own.public_key()) for own in (self.root, self.intermediate)):
            raise IdentityError("the authority's own key is nobody else's")
        issuer, above = self.intermediate, self.above
        if self.bridge and (own or self.bridging):
            issuer, above = self.bridge.certificate, ()
        life = template.validity(now, ttl, within=template.life_of(issuer, *above))
        serial = template.serial_number(random)
        der = mould.leaf(issuer, spiffe_id, key, life, serial, self.key, dns_names)
        leaf = check_signed(der, issuer, Ordered(spiffe_id, key, dns_names), self.trust_domain, now)
        return Svid(spiffe_id, leaf, der, issuer, above)

    @property
    def anchor(self) -> x509.Certificate:
        """The root that policyd's own chain ends at: what a join token pins."""
        return self.bridge.root if self.bridge else self.root

    @property
    def anchor_sha256(self) -> str:
        """Of its DER, in lower-case hex."""
        return hashlib.sha256(self.anchor.public_bytes(Encoding.DER)).hexdigest()

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """All that are trusted, that of the key which signs first."""
        return (self.root, *self.others)

    @property
    def root_sha256(self) -> str:
        """Of the root's DER, in lower-case hex."""
        return hashlib.sha256(self.root_der).hexdigest()

    @property
    def root_der(self) -> bytes:
        """The root certificate in DER."""
        return self.root.public_bytes(Encoding.DER)

    @property
    def bundle_sequence(self) -> int:
        """Grows with every change of the trusted roots; of the first root: the second from which it is valid."""
        return self.sequence or int(self.root.not_valid_before_utc.timestamp())


@lru_cache(maxsize=64)
def _der(certificate: x509.Certificate) -> bytes:
    """Of one that signs: the same goes out with every leaf."""
    return certificate.public_bytes(Encoding.DER)


def new_material(trust_domain: str, *, now: datetime, random: Random) -> Material:
    """A new root and intermediate with new keys (ECDSA P-256, from the operating system's randomness)."""
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = template.root(trust_domain, root_key.public_key(), now, random).sign(root_key, hashes.SHA256())
    key = ec.generate_private_key(ec.SECP256R1())
    order = template.intermediate(root, trust_domain, key.public_key(), now, random)
    material = Material(root, root_key, order.sign(root_key, hashes.SHA256()), key)
    authority_of(material, trust_domain, now=now)
    return material


def authority_of(material: Material, trust_domain: str, *, now: datetime) -> Authority:
    """The authority of `material`; raises IdentityError unless its parts are valid and belong together."""
    if material.root_key is None:
        return _under_another(material, trust_domain, now)
    check.check_root(material.root, trust_domain, now)
    check.check_intermediate(material.intermediate, material.root, trust_domain, now)
    for certificate, key, name in (
        (material.root, material.root_key, "root"),
        (material.intermediate, material.intermediate_key, "intermediate"),
    ):
        if not check.same_key(certificate.public_key(), key.public_key()):
            raise IdentityError(f"the {name}'s key is not that of its certificate")
    return Authority(trust_domain, material.root, material.intermediate, material.intermediate_key)


def _under_another(material: Material, trust_domain: str, now: datetime) -> Authority:
    """The authority whose root is another's: what it would sign is signed once, and verified by all of its chain."""
    signer, key = material.intermediate, material.intermediate_key
    if not check.same_key(signer.public_key(), key.public_key()):
        raise IdentityError("the key is not that of the certificate", remedy="ours comes first in the file")
    check.check_key(key.public_key())
    within = template.life_of(signer, *material.above, material.root)
    life = template.validity(now, template.LEAF_LIFE, within=within)
    nobody = SpiffeId.server(trust_domain)
    anybody = ec.generate_private_key(ec.SECP256R1()).public_key()
    probe = verifier.parse(mould.leaf(signer, nobody, anybody, life, NEVER_ISSUED, key))
    chain = (probe, signer, *material.above)
    check.check_leaf(chain[0], signer, trust_domain, now)
    verifier.verify(chain, (material.root,), trust_domain, now)
    return Authority(trust_domain, material.root, signer, key, above=material.above)
