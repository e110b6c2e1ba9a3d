"""A certificate signing request (PKCS#10, RFC 2986) from the network: only its key counts.

Law: what it asks for besides is not ignored but refused, so that nobody believes to have got it. The key is
judged before its signature is computed, since that is what costs time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import SignatureAlgorithmOID

from policyd.ca import check
from policyd.ca.der import bounds, content
from policyd.ca.template import PublicKey
from policyd.errors import CsrError, IdentityError
from policyd.spiffe import SpiffeId

MAX_BYTES: Final = 8192  # with an RSA key of 8192 bits a request has about 2200
_NOBODY: Final = bytes.fromhex("3000")  # an empty name
_NOTHING: Final = bytes.fromhex("a000")  # no attributes
_EXTENSION_REQUEST: Final = x509.ObjectIdentifier("1.2.840.113549.1.9.14")
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_SCHEMES: Final[Mapping[type[hashes.HashAlgorithm], ec.ECDSA]] = {one: ec.ECDSA(one()) for one in _HASHES}
_ECDSA: Final = frozenset(
    {
        SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        SignatureAlgorithmOID.ECDSA_WITH_SHA512,
    }
)


@dataclass(frozen=True, slots=True)
class Csr:
    """What remains of an accepted request: its key, and the SHA-256 of its bytes in hex for the record."""

    key: PublicKey
    sha256: str


def parse_csr(der: bytes, spiffe_id: SpiffeId, *, own_keys: Iterable[object] = ()) -> Csr:
    """Accept a request for `spiffe_id`, which it may name as its only URI SAN, or raise CsrError.

    `own_keys` are public keys of the authority, which nobody else may claim.
    """
    if len(der) > MAX_BYTES:
        raise CsrError(f"a certificate signing request has at most {MAX_BYTES} bytes, this one {len(der)}")
    request, key = _load(der)
    if any(check.same_key(key, own) for own in own_keys):
        raise CsrError("the authority's own key is nobody else's")
    asked = request.tbs_certrequest_bytes
    _check_signature(request, key, asked)
    if not _asks_for_nothing(asked):
        _check_names(request, spiffe_id)
    return Csr(key, fingerprint(der))


def fingerprint(der: bytes) -> str:
    """The SHA-256 of a request's bytes, as records have it; of refused ones too."""
    return hashlib.sha256(der).hexdigest()


def _load(der: bytes) -> tuple[x509.CertificateSigningRequest, PublicKey]:
    try:
        request = x509.load_der_x509_csr(der)
        return request, check.check_key(request.public_key())
    except IdentityError as error:
        raise CsrError(error.message, remedy=error.remedy) from error
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise CsrError("the certificate signing request cannot be read", remedy="send PKCS#10 in DER") from error


def _check_signature(request: x509.CertificateSigningRequest, key: PublicKey, asked: bytes) -> None:
    """Proof that the sender holds the key."""
    try:
        hashed = request.signature_hash_algorithm
        good = isinstance(hashed, _HASHES) and _is_signed(request, key, hashed, asked)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        good = False
    if not good:
        raise CsrError("the certificate signing request is not signed by its key (with SHA-256 or better)")


def _is_signed(
    request: x509.CertificateSigningRequest, key: PublicKey, hashed: hashes.HashAlgorithm, asked: bytes
) -> bool:
    """The library would read an elliptic key a second time, which takes as long as all the rest of a request."""
    if isinstance(key, rsa.RSAPublicKey):
        return request.is_signature_valid
    try:
        key.verify(request.signature, asked, _SCHEMES[type(hashed)])
    except InvalidSignature:
        return False
    return request.signature_algorithm_oid in _ECDSA


def _asks_for_nothing(asked: bytes) -> bool:
    """Whether it has neither a subject nor attributes, as those of agents: `_check_names` reads what has."""
    found = bounds(asked, content(asked, 0), len(asked))
    return asked[found[1] : found[2]] == _NOBODY and asked[found[3] :] == _NOTHING


def _check_names(request: x509.CertificateSigningRequest, spiffe_id: SpiffeId) -> None:
    try:
        subject, attributes = list(request.subject), list(request.attributes)
        extensions = list(request.extensions)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise CsrError("the extensions of the certificate signing request cannot be read") from error
    if subject:
        raise CsrError("a certificate signing request names no subject", remedy="leave it empty: `-subj /`")
    for attribute in attributes:
        if attribute.oid != _EXTENSION_REQUEST:
            raise CsrError(f"the attribute `{attribute.oid.dotted_string}` is not accepted")
    for extension in extensions:
        if not isinstance(extension.value, x509.SubjectAlternativeName):
            name, number = type(extension.value).__name__, extension.oid.dotted_string  # the library's is X.509's own
            known = "" if isinstance(extension.value, x509.UnrecognizedExtension) else f" ({name})"
            raise CsrError(f"the extension `{number}`{known} is not accepted", remedy="policyd decides them all")
        if list(extension.value) != [x509.UniformResourceIdentifier(str(spiffe_id))]:
            raise CsrError(
                "the certificate signing request asks for other names than its identity",
                remedy=f"name `{spiffe_id}`, or nothing",
            )
