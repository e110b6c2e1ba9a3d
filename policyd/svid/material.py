"""What a file of identity material holds: certificates, a request for one, a token, a bundle; PEM or as it is.

Law: bounded and read by its content, never by its name. A private key is recognised, so that nobody shows it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from policyd.errors import IdentityError
from policyd.svid import jose
from policyd.svid.x509 import MAX_CHAIN

MAX_BYTES: Final = 1 << 20
MAX_CERTIFICATES: Final = 64

_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_JWT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Certificates:
    """One certificate or several, in the order of the file."""

    certificates: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A certificate signing request (PKCS#10)."""

    request: x509.CertificateSigningRequest


@dataclass(frozen=True, slots=True)
class Token:
    """A JWT-SVID, as yet believed by nobody."""

    text: str


@dataclass(frozen=True, slots=True)
class KeySet:
    """A JWK set, as yet of no trust domain."""

    document: bytes


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key; `label` is that of its PEM."""

    label: str


Material: TypeAlias = Certificates | Request | Token | KeySet | PrivateKey


def read(data: bytes) -> Material:
    """Tell what a file holds; raises IdentityError for nothing that is known, or for too much of it."""
    if len(data) > MAX_BYTES:
        raise IdentityError(f"this has more than {MAX_BYTES:,} bytes")
    labels = [label.decode("ascii") for label in _PEM.findall(data)]
    try:
        if any("PRIVATE KEY" in label for label in labels):
            return PrivateKey(next(label for label in labels if "PRIVATE KEY" in label))
        if labels:
            return _pem(data, labels)
        text = data.strip()
        if text.startswith(b"{"):
            jose.read_object(text)
            return KeySet(text)
        if _JWT.fullmatch(text):
            return Token(text.decode("ascii"))
        return _der(data)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise IdentityError("this cannot be read", remedy="see whether the file is whole") from error


def chain(data: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates of a file, leaf first; raises IdentityError for anything else."""
    found = read(data)
    if not isinstance(found, Certificates) or len(found.certificates) > MAX_CHAIN:
        raise IdentityError(f"this is no chain of 1 to {MAX_CHAIN} certificates")
    return found.certificates


def _pem(data: bytes, labels: Sequence[str]) -> Material:
    if "CERTIFICATE REQUEST" in labels or "NEW CERTIFICATE REQUEST" in labels:
        requests = sum(label.endswith("CERTIFICATE REQUEST") for label in labels)
        if requests > 1:
            message = f"a file has one certificate signing request, this one {requests}"
            raise IdentityError(message, remedy="give each its own file")
        return Request(x509.load_pem_x509_csr(data))
    if "CERTIFICATE" not in labels:
        raise IdentityError(f"a file with `{labels[0]}` is nothing that is known here")
    if len(labels) > MAX_CERTIFICATES:
        raise IdentityError(f"a file has at most {MAX_CERTIFICATES} certificates, this one {len(labels)}")
    return Certificates(tuple(x509.load_pem_x509_certificates(data)))


def _der(data: bytes) -> Material:
    try:
        return Certificates((x509.load_der_x509_certificate(data),))
    except ValueError:
        pass
    try:
        return Request(x509.load_der_x509_csr(data))
    except ValueError:
        raise IdentityError(
            "this is no certificate, request, token or bundle", remedy="PEM, DER, a compact JWT or a JWK set are read"
        ) from None
