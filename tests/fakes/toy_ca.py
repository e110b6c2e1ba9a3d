"""A certificate authority small enough to read: one root, one intermediate, any leaf that a test wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

YEAR = timedelta(days=365)


@dataclass(frozen=True)
class Signer:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


class ToyCa:
    """Signs what it is asked for, right or wrong."""

    def __init__(self, trust_domain: str = "cluster.local", now: datetime | None = None) -> None:
        self.trust_domain = trust_domain
        self.now = now or datetime.now(UTC)
        self.root = _authority(trust_domain, "root", None, self.now, 1)
        self.intermediate = _authority(trust_domain, "intermediate", self.root, self.now, 0)

    def sign(
        self,
        public_key: ec.EllipticCurvePublicKey,
        uris: Sequence[str],
        *,
        dns: Sequence[str] = (),
        start: datetime | None = None,
        life: timedelta = timedelta(hours=1),
        ca: bool = False,
        digital_signature: bool = True,
        key_usage: bool = True,
        raw: Sequence[bytes] = (),
    ) -> tuple[bytes, ...]:
        """The chain of a new leaf, in DER, leaf first; `raw` are URIs of any bytes, in place of all other names."""
        signer = self.intermediate
        start = start or datetime.now(UTC) - timedelta(seconds=1)
        names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
        builder = _builder(x509.Name([]), signer.certificate.subject, public_key, start, start + life)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        if raw:
            builder = builder.add_extension(_of_any_bytes(raw), critical=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if key_usage:
            builder = builder.add_extension(_usage(digital_signature, signs=ca), critical=True)
        builder = _linked(builder, signer.key.public_key())
        leaf = builder.sign(signer.key, hashes.SHA256())
        return leaf.public_bytes(serialization.Encoding.DER), signer.der


def _of_any_bytes(uris: Sequence[bytes]) -> x509.UnrecognizedExtension:
    """The alternative names of a certificate, URIs of less than 128 bytes in all (RFC 5280, 4.2.1.6)."""
    names = b"".join(bytes((0x86, len(uri))) + uri for uri in uris)
    assert len(names) < 128
    return x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes((0x30, len(names))) + names)


def _authority(trust_domain: str, name: str, issuer: Signer | None, now: datetime, depth: int) -> Signer:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{trust_domain} {name}")])
    issuer_name = issuer.certificate.subject if issuer else subject
    builder = _builder(subject, issuer_name, key.public_key(), now - timedelta(days=1), now + YEAR)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
    builder = builder.add_extension(_usage(False, signs=True), critical=True)
    uri = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
    builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    signing = issuer.key if issuer else key
    builder = _linked(builder, signing.public_key())
    return Signer(builder.sign(signing, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _linked(builder: x509.CertificateBuilder, issuer: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)


def _usage(digital_signature: bool, *, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=not digital_signature and not signs,
        encipher_only=False,
        decipher_only=False,
    )
