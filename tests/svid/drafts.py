"""Certificates as anybody might make them, right or wrong: a good draft, of which a test changes one thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DOMAIN = "cluster.local"
WEB = f"spiffe://{DOMAIN}/ns/default/sa/web"
HOUR = timedelta(hours=1)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)

Extensions = Mapping[str, tuple[x509.ExtensionType, bool] | None]


def a_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def uris(*texts: str, critical: bool = True) -> tuple[x509.ExtensionType, bool]:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(text) for text in texts]), critical


def usage(*words: str, critical: bool = True) -> tuple[x509.ExtensionType, bool]:
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{word: word in words for word in every}), critical


def constraints(*, ca: bool, critical: bool = True) -> tuple[x509.ExtensionType, bool]:
    return x509.BasicConstraints(ca, None), critical


@dataclass(frozen=True)
class Draft:
    """A certificate before its signature; an extension that is None is left out."""

    subject: x509.Name
    extensions: Extensions
    key: ec.EllipticCurvePrivateKey = field(default_factory=a_key)
    begins: datetime = NOW - HOUR
    ends: datetime = NOW + HOUR

    def but(self, **extensions: tuple[x509.ExtensionType, bool] | None) -> Draft:
        return replace(self, extensions={**self.extensions, **extensions})

    def sign(self, by: Draft) -> x509.Certificate:
        ids = {
            "subject_id": (x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False),
            "issuer_id": (x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key()), False),
        }
        builder = x509.CertificateBuilder(
            by.subject, self.subject, self.key.public_key(), x509.random_serial_number(), self.begins, self.ends
        )
        for extension in {**ids, **self.extensions}.values():
            if extension is not None:
                builder = builder.add_extension(*extension)
        return builder.sign(by.key, hashes.SHA256())


def an_authority(name: str, uri: str = f"spiffe://{DOMAIN}") -> Draft:
    extensions = {
        "names": uris(uri, critical=False),
        "constraints": constraints(ca=True),
        "usage": usage("key_cert_sign", "crl_sign"),
    }
    return Draft(named(name), extensions)


def a_leaf(uri: str = WEB) -> Draft:
    extensions: Extensions = {
        "names": uris(uri),
        "constraints": constraints(ca=False),
        "usage": usage("digital_signature"),
        "purposes": (x509.ExtendedKeyUsage(BOTH), False),
    }
    return Draft(x509.Name([]), extensions)
