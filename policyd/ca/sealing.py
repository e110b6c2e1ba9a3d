"""The key that the journal is sealed with: made in memory, vouched for by the authority, checked against its root.

Law: the key never touches the disk, so that nobody who reads or writes the folder can seal; it lives as long as its
certificate. Who verifies trusts a chain only if it bears the journal's identity and was valid when it sealed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from policyd.ca.authority import Svid
from policyd.ca.check import check_svid
from policyd.errors import IdentityError
from policyd.spiffe import SpiffeId
from policyd.svid.x509 import parse, read_identity, read_trust_domain, verify

MARGIN = timedelta(minutes=1)  # before its end a key is not used any more


@dataclass(frozen=True, slots=True)
class SealingKey:
    """A key for seals and its certificates, DER, leaf first."""

    chain: tuple[bytes, ...]
    not_before: datetime
    not_after: datetime
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, DER."""
        return self.key.sign(data, ec.ECDSA(hashes.SHA256()))


class SealingKeys:
    """Gives a key that is valid now; `issue` has it vouched for, and is asked again only when the last one ends."""

    def __init__(self, issue: Callable[[ec.EllipticCurvePublicKey], Svid], clock: Callable[[], datetime]) -> None:
        self._issue = issue
        self._clock = clock
        self._current: SealingKey | None = None

    def __call__(self) -> SealingKey:
        """The key in force; raises what issuing raises."""
        now, current = self._clock(), self._current
        if current is None or not current.not_before <= now < current.not_after - MARGIN:
            key = ec.generate_private_key(ec.SECP256R1())
            svid = self._issue(key.public_key())
            current = SealingKey(svid.chain, svid.leaf.not_valid_before_utc, svid.not_after, key)
            self._current = current
        return current


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A sealing key that was checked."""

    leaf: x509.Certificate

    def verify(self, signature: bytes, data: bytes, time: datetime) -> None:
        """Raise IdentityError unless `data` was signed with it, while it was valid."""
        if not self.leaf.not_valid_before_utc <= time <= self.leaf.not_valid_after_utc:
            raise IdentityError("the certificate was not valid then")
        key = self.leaf.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey), "it was checked"
        try:
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise IdentityError("the signature does not fit") from error


@dataclass(frozen=True, slots=True)
class JournalTrust:
    """Trusts what one of the roots vouches for as its journal: `root`, or those `others` that were before or after."""

    root: x509.Certificate
    others: tuple[x509.Certificate, ...] = ()

    def __call__(self, chain: tuple[bytes, ...], time: datetime) -> TrustedKey:
        """The key of a chain; raises IdentityError."""
        certificates = [parse(one) for one in chain]
        identity = self._verified(certificates, time)
        if identity != SpiffeId.journal(identity.trust_domain):
            raise IdentityError(f"`{identity}` is not the journal")
        leaf = certificates[0]
        if not isinstance(leaf.public_key(), ec.EllipticCurvePublicKey):
            raise IdentityError("it is no elliptic key")
        return TrustedKey(leaf)

    def _verified(self, certificates: list[x509.Certificate], time: datetime) -> SpiffeId:
        try:
            issuer = certificates[-1].issuer if certificates else None
        except ValueError:  # names are read when they are asked for
            raise IdentityError("a certificate cannot be read") from None
        root = next((one for one in self.others if one.subject == issuer), self.root)
        if _is_ours(root):
            return check_svid(certificates, root, time)
        if not certificates:
            raise IdentityError("it has no certificate")
        return verify(certificates, (root,), read_identity(certificates[0]).trust_domain, time)


def _is_ours(root: x509.Certificate) -> bool:
    try:
        return bool(read_trust_domain(root))
    except IdentityError:
        return False


def read_roots(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The root certificates in PEM, at least one; raises IdentityError."""
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise IdentityError("this is no certificate in PEM") from error


def fingerprint(root: x509.Certificate) -> str:
    """The SHA-256 of a certificate's DER, in hex."""
    return root.fingerprint(hashes.SHA256()).hex()
