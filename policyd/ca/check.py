"""Does a certificate say what the rules demand? Asked of each one before it leaves, and at every start.

Law: every MUST of X509-SVID sections 2 to 5, and of RFC 5280 what concerns us, is checked here, by our own
code where libraries are lax (several URI SANs, no key usage), and beyond it what our own certificates are; what
verifies those of anybody is policyd.svid.x509. A check raises IdentityError or has passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from policyd.ca.template import PublicKey
from policyd.errors import IdentityError
from policyd.spiffe import SpiffeId
from policyd.svid import x509 as verifier
from policyd.svid.clocks import check_times
from policyd.svid.x509 import critical, extension, extensions, read_trust_domain

LEAST_RSA_BITS: Final = 2048
MOST_RSA_BITS: Final = 8192  # a larger key costs its verifiers too much time
RSA_EXPONENT: Final = 65537

_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_KNOWN: Final = frozenset(
    {
        x509.SubjectAlternativeName.oid,
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.ExtendedKeyUsage.oid,
        x509.SubjectKeyIdentifier.oid,
        x509.AuthorityKeyIdentifier.oid,
    }
)


def check_key(key: object) -> PublicKey:
    """Return `key` if it is one that the mesh's TLS can use: ECDSA P-256 or P-384, RSA of 2048 to 8192 bits.

    Ed25519 and P-521 are refused: Envoy's and gRPC's TLS do not offer them, so a peer could not be verified.
    """
    match key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1() | ec.SECP384R1()):
            return key
        case ec.EllipticCurvePublicKey():
            raise IdentityError(f"the curve `{key.curve.name}` is not accepted", remedy="use P-256 or P-384")
        case rsa.RSAPublicKey():
            return _check_rsa(key)
        case _:
            raise IdentityError("a key of this kind is not accepted", remedy="use ECDSA with P-256")


def check_root(root: x509.Certificate, trust_domain: str, now: datetime) -> None:
    """Check the self-signed root of `trust_domain`; raises IdentityError."""
    _check_authority(root, root, trust_domain, path_length=1)
    _check_time(root, now)


def check_intermediate(
    intermediate: x509.Certificate, root: x509.Certificate, trust_domain: str, now: datetime
) -> None:
    """Check the certificate that signs leaves, against its root; raises IdentityError."""
    _check_authority(intermediate, root, trust_domain, path_length=0)
    _check_nested(intermediate, root)
    _check_time(intermediate, now)


def check_svid(chain: Sequence[x509.Certificate], root: x509.Certificate, now: datetime) -> SpiffeId:
    """Check an X.509-SVID (`chain`: leaf, intermediate) and return its identity; raises IdentityError."""
    if len(chain) != 2:
        raise IdentityError("a chain holds the leaf and its intermediate, nothing else")
    spiffe_id = check_leaf(chain[0], chain[1], read_trust_domain(root), now)
    _check_path(chain, root, now)
    return spiffe_id


def check_leaf(leaf: x509.Certificate, issuer: x509.Certificate, trust_domain: str, now: datetime) -> SpiffeId:
    """Check a leaf of `trust_domain` against its issuer, which was checked itself; raises IdentityError.

    What does not change is checked once: that the issuer chains to its root is `check_intermediate`'s.
    """
    spiffe_id = read_identity(leaf)
    _check_form(leaf, issuer)
    if critical(leaf, x509.BasicConstraints).ca:
        raise IdentityError("a leaf's basic constraints say cA=false")
    usage = critical(leaf, x509.KeyUsage)
    if usage.key_cert_sign or usage.crl_sign:
        raise IdentityError("a leaf signs no certificates and no revocation lists")
    if not usage.digital_signature or usage.content_commitment or usage.data_encipherment:
        raise IdentityError("a leaf's key is for signatures and the agreement on keys")
    if set(extension(leaf, x509.ExtendedKeyUsage).value) != {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }:
        raise IdentityError("a leaf's extended key usage is server and client authentication")
    if spiffe_id.trust_domain != trust_domain:
        raise IdentityError(f"`{spiffe_id}` is not of the trust domain that signs it")
    check_life(leaf, issuer, now)
    _check_path([leaf], issuer, now)
    return spiffe_id


def check_life(leaf: x509.Certificate, issuer: x509.Certificate, now: datetime) -> None:
    """Both are valid at `now`, and the leaf's life lies within its issuer's; raises IdentityError."""
    _check_nested(leaf, issuer)
    for certificate in (leaf, issuer):
        _check_time(certificate, now)


def check_serial(certificate: x509.Certificate) -> None:
    """RFC 5280 section 4.1.2.2; raises IdentityError."""
    if not 0 < certificate.serial_number < 1 << 159:
        raise IdentityError("a serial number is positive and has at most 20 bytes")


def read_identity(leaf: x509.Certificate) -> SpiffeId:
    """The one SPIFFE ID, with a path, of a leaf of ours (X509-SVID sections 2, 3.1, 5.2); raises IdentityError."""
    spiffe_id = verifier.read_identity(leaf)
    names = extension(leaf, x509.SubjectAlternativeName).value
    if not all(isinstance(name, x509.UniformResourceIdentifier | x509.DNSName) for name in names):
        raise IdentityError("a leaf bears a SPIFFE ID and DNS names, no other kind of name")
    if not spiffe_id.path:
        raise IdentityError(f"`{spiffe_id}` is a trust domain's own identity, a leaf's has a path")
    return spiffe_id


def same_key(one: object, other: object) -> bool:
    """Are these two public keys the same?"""
    return one == other


def _check_rsa(key: rsa.RSAPublicKey) -> rsa.RSAPublicKey:
    if not LEAST_RSA_BITS <= key.key_size <= MOST_RSA_BITS:
        raise IdentityError(
            f"an RSA key has {LEAST_RSA_BITS} to {MOST_RSA_BITS} bits, this one {key.key_size}",
            remedy="use ECDSA with P-256",
        )
    if key.public_numbers().e != RSA_EXPONENT:
        raise IdentityError(f"an RSA key has the public exponent {RSA_EXPONENT}")
    return key


def _check_authority(
    certificate: x509.Certificate, issuer: x509.Certificate, trust_domain: str, *, path_length: int
) -> None:
    own = read_trust_domain(certificate)
    if own != trust_domain:
        raise IdentityError(f"the certificate is of the trust domain `{own}`, not `{trust_domain}`")
    _check_form(certificate, issuer)
    _check_signature(certificate, issuer)
    if not isinstance(check_key(_key_of(certificate)), ec.EllipticCurvePublicKey):
        raise IdentityError("an authority's key is an elliptic one")
    if not list(certificate.subject):
        raise IdentityError("an authority has a subject, by which its issued certificates name it")
    constraints = critical(certificate, x509.BasicConstraints)
    if not constraints.ca or constraints.path_length != path_length:
        raise IdentityError(f"the basic constraints say cA=true with the path length {path_length}")
    usage = critical(certificate, x509.KeyUsage)
    if not usage.key_cert_sign or usage.digital_signature:
        raise IdentityError("an authority's key signs certificates and authenticates nobody")


def _key_of(certificate: x509.Certificate) -> object:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IdentityError("the certificate's key cannot be read") from error


def _check_form(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Version, serial, extensions, key, key identifiers and hash, common to all three kinds."""
    if certificate.version is not x509.Version.v3:
        raise IdentityError("a certificate has version 3")
    check_serial(certificate)
    unknown = [e.oid.dotted_string for e in extensions(certificate) if e.oid not in _KNOWN]
    if unknown:
        raise IdentityError(f"the extension `{unknown[0]}` has no place in our certificates")
    _check_key_identifiers(certificate, check_key(_key_of(certificate)), issuer)
    try:
        known = isinstance(certificate.signature_hash_algorithm, _HASHES)
    except UnsupportedAlgorithm:
        known = False
    if not known:
        raise IdentityError("a certificate is signed with SHA-256, SHA-384 or SHA-512")


def _check_signature(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError) as error:
        raise IdentityError("the certificate was not signed by its issuer") from error


def _check_key_identifiers(certificate: x509.Certificate, key: PublicKey, issuer: x509.Certificate) -> None:
    subject_id = extension(certificate, x509.SubjectKeyIdentifier).value.digest
    if subject_id != x509.SubjectKeyIdentifier.from_public_key(key).digest:
        raise IdentityError("the subject key identifier is not that of the key")
    if extension(certificate, x509.AuthorityKeyIdentifier).value.key_identifier != (
        extension(issuer, x509.SubjectKeyIdentifier).value.digest
    ):
        raise IdentityError("the authority key identifier is not that of the issuer")


def _check_nested(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    if certificate.not_valid_after_utc > issuer.not_valid_after_utc:
        raise IdentityError("a certificate ends no later than its issuer's")
    if certificate.not_valid_before_utc < issuer.not_valid_before_utc:
        raise IdentityError("a certificate begins no earlier than its issuer's")


def _check_time(certificate: x509.Certificate, now: datetime) -> None:
    check_times("the certificate", certificate.not_valid_before_utc, certificate.not_valid_after_utc, now)


def _check_path(chain: Sequence[x509.Certificate], anchor: x509.Certificate, now: datetime) -> None:
    """RFC 5280 path validation by the library, signatures too, besides our own checks (X509-SVID section 5.1)."""
    verifier = PolicyBuilder().store(Store([anchor])).time(now).build_client_verifier()
    try:
        verifier.verify(chain[0], list(chain[1:]))
    except VerificationError as error:
        _check_signature(chain[0], chain[1] if chain[1:] else anchor)
        raise IdentityError("no valid path leads from the certificate to its authority") from error
