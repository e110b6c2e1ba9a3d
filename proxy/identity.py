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
from cryptography.x509 import verification

from policyd.errors import IdentityError
from policyd.spiffe import SpiffeId

MAX_CHAIN = 8
MAX_ROOTS = 64
MAX_CERTIFICATE_BYTES = 16 * 1024
HALF_LIFE = 0.5
JITTER = 0.1  # of the half
LEAST_GAP = timedelta(seconds=1)  # between two renewals, however short the life


@dataclass(frozen=True, slots=True)
class Bundle:
    """The roots (DER) that vouch for `trust_domain`; a larger `sequence` is newer."""

    trust_domain: str
    roots: tuple[bytes, ...]
    sequence: int = 0

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
    for root in map(_parse, bundle.roots):
        if not _is_ca(root):
            raise IdentityError("a root of the bundle is not the certificate of an authority")
    return bundle


def check_svid(
    key: ec.EllipticCurvePrivateKey, wanted: SpiffeId, chain: Sequence[bytes], bundle: Bundle, now: datetime
) -> Svid:
    """Return the SVID if `chain` (DER, leaf first) proves `wanted` with our `key` under `bundle` at `now`.

    Raises IdentityError, saying what is wrong. The rules are those of X509-SVID, section 4 and 5.
    """
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise IdentityError(f"a certificate chain has 1 to {MAX_CHAIN} certificates, this one {len(chain)}")
    certificates = [_parse(der) for der in chain]
    leaf = certificates[0]
    if _public_bytes(leaf.public_key()) != _public_bytes(key.public_key()):
        raise IdentityError("the certificate is for another key than the one that was sent")
    _check_name(leaf, wanted)
    _check_usage(leaf)
    _check_times(certificates, now)
    _check_chain(certificates, bundle, wanted.trust_domain, now)
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
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        raise IdentityError("the certificate has no subject alternative name") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if uris != [str(wanted)]:
        shown = ", ".join(f"`{uri[:200]}`" for uri in uris[:3]) or "no URI"
        raise IdentityError(f"the certificate names {shown}, not `{wanted}`")


def _check_usage(leaf: x509.Certificate) -> None:
    if _is_ca(leaf):
        raise IdentityError("the certificate is that of an authority, not of a workload")
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        raise IdentityError("the certificate has no key usage") from None
    if not usage.digital_signature:
        raise IdentityError("the certificate may not be used for signatures, which TLS needs")


def _check_times(certificates: Sequence[x509.Certificate], now: datetime) -> None:
    for certificate in certificates:
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not start <= now < end:
            raise IdentityError(
                f"a certificate of the chain is valid from {start:%FT%TZ} to {end:%FT%TZ}, and here it is {now:%FT%TZ}",
                remedy="compare the clocks of the two machines",
            )


def _check_chain(certificates: Sequence[x509.Certificate], bundle: Bundle, trust_domain: str, now: datetime) -> None:
    check_bundle(bundle, trust_domain)
    store = verification.Store([_parse(root) for root in bundle.roots])
    verifier = verification.PolicyBuilder().store(store).time(now).build_client_verifier()
    try:
        verifier.verify(certificates[0], list(certificates[1:]))
    except (verification.VerificationError, ValueError) as error:
        raise IdentityError(f"the certificate does not chain to the bundle: {str(error)[:300]}") from None


def _parse(der: bytes) -> x509.Certificate:
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise IdentityError(f"a certificate has at most {MAX_CERTIFICATE_BYTES} bytes, this one {len(der)}")
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError:
        raise IdentityError("a certificate cannot be read") from None


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
    return _parse(der).public_bytes(serialization.Encoding.PEM)
