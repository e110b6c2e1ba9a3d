"""Is this chain of certificates an X.509-SVID, and whose (X509-SVID specification, sections 2 to 5)?

Law: what the X.509 library lets pass (several URI SANs, no basic constraints, a signing certificate that names a
workload) is checked here; path validation by RFC 5280 is the library's. A check raises IdentityError or has passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, TypeVar, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from policyd.errors import IdentityError, SpiffeIdError
from policyd.spiffe import SCHEME, SpiffeId
from policyd.svid.clocks import check_times

MAX_CHAIN: Final = 8
MAX_CERTIFICATE_BYTES: Final = 16 * 1024

_PURPOSES: Final = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def verify(
    chain: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    trust_domain: str,
    now: datetime,
    *,
    by: str = "",
) -> SpiffeId:
    """Whom `chain` (leaf first) proves under the `roots` of `trust_domain` at `now`; raises IdentityError.

    The roots are those of that trust domain alone: bundles are never merged (SPIFFE Federation, section 4.2). `by` is
    who has signed it just now, where that is so.
    """
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise IdentityError(f"a certificate chain has 1 to {MAX_CHAIN} certificates, this one {len(chain)}")
    if not roots:
        raise IdentityError(f"no root vouches for `{trust_domain}`: every certificate of it is untrusted")
    spiffe_id = check_leaf(chain[0])
    if spiffe_id.trust_domain != trust_domain:
        raise IdentityError(f"`{spiffe_id}` is not of the trust domain `{trust_domain}`")
    for issuer in (*chain[1:], *roots):
        check_signing(issuer, trust_domain)
    _check_times(chain, now, by)
    _check_path(chain, roots, now)
    return spiffe_id


def check_leaf(leaf: x509.Certificate) -> SpiffeId:
    """The identity of a leaf that may authenticate; raises IdentityError."""
    spiffe_id = read_identity(leaf)
    if not spiffe_id.path:
        raise IdentityError(f"`{spiffe_id}` is a trust domain's own identity, a leaf's has a path")
    if extension(leaf, x509.BasicConstraints).value.ca:
        raise IdentityError("the certificate is that of an authority, not of a workload")
    usage = critical(leaf, x509.KeyUsage)
    if usage.key_cert_sign or usage.crl_sign:
        raise IdentityError("a leaf signs no certificates and no revocation lists")
    if not usage.digital_signature:
        raise IdentityError("the certificate may not be used for signatures, which TLS needs")
    purposes = _optional(leaf, x509.ExtendedKeyUsage)
    if purposes is not None and not set(purposes) >= _PURPOSES:
        raise IdentityError("a leaf's extended key usage has server and client authentication")
    return spiffe_id


def check_signing(certificate: x509.Certificate, trust_domain: str) -> None:
    """Check the certificate of an authority that signs for `trust_domain`; raises IdentityError.

    One without a SPIFFE ID is none of SPIFFE's, as the root of a company may be, and is held to RFC 5280 alone.
    """
    if not extension(certificate, x509.BasicConstraints).value.ca:
        raise IdentityError("a signing certificate's basic constraints say cA=true")
    usage = extension(certificate, x509.KeyUsage)
    if not usage.value.key_cert_sign:
        raise IdentityError("a signing certificate's key usage has keyCertSign")
    uris = _uris(certificate)
    if not any(uri.lower().startswith(SCHEME) for uri in uris):
        return
    if not usage.critical:
        raise IdentityError("the extension KeyUsage is critical")
    own = read_trust_domain(certificate)
    if own != trust_domain:
        raise IdentityError(f"the signing certificate is of the trust domain `{own}`, not `{trust_domain}`")


def read_identity(certificate: x509.Certificate) -> SpiffeId:
    """The one SPIFFE ID that a certificate bears (section 2); raises IdentityError for none, or more URIs."""
    alternative = extension(certificate, x509.SubjectAlternativeName)
    if not alternative.critical and not list(certificate.subject):
        raise IdentityError("without a subject the alternative name is critical")
    return _one(alternative.value.get_values_for_type(x509.UniformResourceIdentifier))


def read_trust_domain(authority: x509.Certificate) -> str:
    """The trust domain that a signing certificate bears as its own SPIFFE ID; raises IdentityError."""
    names = extension(authority, x509.SubjectAlternativeName).value
    spiffe_id = _one(names.get_values_for_type(x509.UniformResourceIdentifier))
    if spiffe_id.path:
        raise IdentityError(f"`{spiffe_id}` has a path, a signing certificate's identity has none")
    return spiffe_id.trust_domain


def parse(der: bytes) -> x509.Certificate:
    """A certificate from DER of a bounded size; raises IdentityError."""
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise IdentityError(f"a certificate has at most {MAX_CERTIFICATE_BYTES} bytes, this one {len(der)}")
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise IdentityError("a certificate cannot be read") from None


def extensions(certificate: x509.Certificate) -> x509.Extensions:
    """All extensions; raises IdentityError for those that cannot be read, or stand there twice."""
    try:
        return certificate.extensions
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise IdentityError("the certificate's extensions cannot be read") from error


def extension(certificate: x509.Certificate, kind: type[_Extension]) -> x509.Extension[_Extension]:
    """The extension of that kind; raises IdentityError where there is none."""
    for each in extensions(certificate):
        if each.oid == kind.oid:
            return cast("x509.Extension[_Extension]", each)
    raise IdentityError(f"the certificate lacks the extension {kind.__name__}")


def critical(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension:
    """The value of an extension that has to be critical; raises IdentityError."""
    found = extension(certificate, kind)
    if not found.critical:
        raise IdentityError(f"the extension {kind.__name__} is critical")
    return found.value


def _optional(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return extensions(certificate).get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _uris(certificate: x509.Certificate) -> Sequence[str]:
    names = _optional(certificate, x509.SubjectAlternativeName)
    return names.get_values_for_type(x509.UniformResourceIdentifier) if names is not None else ()


def _one(uris: Sequence[str]) -> SpiffeId:
    if len(uris) != 1:
        raise IdentityError(f"a certificate bears exactly one URI, this one {len(uris)}")
    try:
        return SpiffeId.parse(uris[0])
    except SpiffeIdError as error:
        raise IdentityError(error.message, remedy=error.remedy) from error


def _check_times(chain: Sequence[x509.Certificate], now: datetime, by: str) -> None:
    for certificate in chain:
        what = "the certificate" if certificate is chain[0] else "the certificate of an authority of the chain"
        check_times(what, certificate.not_valid_before_utc, certificate.not_valid_after_utc, now, by=by)


def _check_path(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: datetime) -> None:
    verifier = PolicyBuilder().store(Store(list(roots))).time(now).build_client_verifier()
    try:
        verifier.verify(chain[0], list(chain[1:]))
    except (VerificationError, ValueError) as error:
        raise IdentityError(f"the certificate does not chain to the bundle: {str(error)[:300]}") from None
