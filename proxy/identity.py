"""The agent's side of an identity: make a key, ask for a certificate, check what came back, know when to renew.

Law: a key is made here and goes nowhere but to its own Envoy; nothing that came over the network is used before it
was checked against the key, the id asked for and the bundle held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from policyd.errors import IdentityError
from policyd.spiffe import SpiffeId
from policyd.svid import bundle as jwk_set
from policyd.svid import x509 as x509_svid
from policyd.svid.x509 import MAX_CHAIN, parse

MAX_ROOTS = 64
MAX_CRL_BYTES = 1 << 19  # of all lists together
HALF_LIFE = 0.5
JITTER = 0.1  # of the half
LEAST_GAP = timedelta(seconds=1)  # between two renewals, however short the life


@dataclass(frozen=True, slots=True)
class Bundle:
    """The roots (DER) that vouch for `trust_domain`; a larger `sequence` is newer.

    `jwt_keys` is SPIFFE's JWK set of those that sign its tokens, b"" where none is known.
    """

    trust_domain: str
    roots: tuple[bytes, ...]
    sequence: int = 0
    jwt_keys: bytes = b""

    def pem(self) -> bytes:
        """The roots, one PEM block after another."""
        return b"".join(_pem(root) for root in self.roots)


@dataclass(frozen=True, slots=True)
class Svid:
    """A checked X.509-SVID with its key: `chain` is DER, leaf first, without the root; times are in UTC.

    `not_after` is the earliest end in the whole chain, so an SVID never outlives the authority that signed it.
    """

    id: SpiffeId
    key_pem: bytes = field(repr=False)  # PKCS#8, unencrypted
    chain: tuple[bytes, ...] = field(repr=False)
    not_before: datetime
    not_after: datetime
    serial: int

    def chain_pem(self) -> bytes:
        """The chain, one PEM block after another, leaf first."""
        return b"".join(_pem(certificate) for certificate in self.chain)


def make_key() -> ec.EllipticCurvePrivateKey:
    """Return a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a PKCS#10 request in DER; it names nobody, because of a request only the key counts."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def check_bundle(bundle: Bundle, trust_domain: str) -> Bundle:
    """Return `bundle` if it is that of `trust_domain` and each root is a CA's certificate, else raise IdentityError."""
    if bundle.trust_domain != trust_domain:
        raise IdentityError(f"the bundle is of trust domain `{bundle.trust_domain}`, not `{trust_domain}`")
    if not 1 <= len(bundle.roots) <= MAX_ROOTS:
        raise IdentityError(f"a bundle has 1 to {MAX_ROOTS} roots, this one {len(bundle.roots)}")
    for root in map(parse, bundle.roots):
        if not _is_ca(root):
            raise IdentityError("a root of the bundle is not the certificate of an authority")
    if bundle.jwt_keys:
        jwk_set.read(bundle.jwt_keys, trust_domain)
    return bundle


def check_crls(crls: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the lists of revoked certificates (DER) if each is one, else raise IdentityError."""
    if len(crls) > MAX_ROOTS or sum(map(len, crls)) > MAX_CRL_BYTES:
        raise IdentityError(f"at most {MAX_ROOTS} lists of revoked certificates of {MAX_CRL_BYTES} bytes are taken")
    try:
        for one in crls:
            x509.load_der_x509_crl(one)
    except ValueError:
        raise IdentityError("a list of revoked certificates cannot be read") from None
    return tuple(crls)


def check_svid(
    key: ec.EllipticCurvePrivateKey,
    wanted: SpiffeId,
    chain: Sequence[bytes],
    bundle: Bundle,
    now: datetime,
    *,
    by: str = "policyd",
) -> Svid:
    """Return the SVID if `chain` (DER, leaf first) proves `wanted` with our `key` under `bundle` at `now`.

    Raises IdentityError, saying what is wrong. The rules are those of policyd.svid.x509. `by` has signed it just now;
    "": some time ago.
    """
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise IdentityError(f"a certificate chain has 1 to {MAX_CHAIN} certificates, this one {len(chain)}")
    certificates = [parse(der) for der in chain]
    leaf = certificates[0]
    if _public_bytes(leaf.public_key()) != _public_bytes(key.public_key()):
        raise IdentityError("the certificate is for another key than the one that was sent")
    _check_name(leaf, wanted)
    check_bundle(bundle, wanted.trust_domain)
    x509_svid.verify(certificates, [parse(root) for root in bundle.roots], wanted.trust_domain, now, by=by)
    return Svid(
        id=wanted,
        key_pem=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        chain=tuple(chain),
        not_before=leaf.not_valid_before_utc,
        not_after=min(certificate.not_valid_after_utc for certificate in certificates),
        serial=leaf.serial_number,
    )


def renewal(svid: Svid, since: datetime, now: datetime, spread: float) -> datetime:
    """When to renew: at half of life, ± 10 % by `spread` (-1 to 1), after `now`, but never later than its end.

    Life is from `since`, when it was issued: `not_before` is some minutes earlier, for clocks that differ, which is
    more than all of a short life. Law: `now` < result <= `not_after` for every SVID that is valid at `now`.
    """
    share = HALF_LIFE * (1 + JITTER * max(-1.0, min(1.0, spread)))
    moment = since + (svid.not_after - since) * share
    return min(max(moment, now + LEAST_GAP), svid.not_after)


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Read a P-256 key that `Svid.key_pem` held; raises IdentityError for any other."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise IdentityError("the key cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError("the key is no P-256 key")
    return key


def _check_name(leaf: x509.Certificate, wanted: SpiffeId) -> None:
    named = x509_svid.read_identity(leaf)
    if named != wanted:
        raise IdentityError(f"the certificate names `{named}`, not `{wanted}`")


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _public_bytes(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return b""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _pem(der: bytes) -> bytes:
    return parse(der).public_bytes(serialization.Encoding.PEM)
