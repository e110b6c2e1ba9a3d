"""A company's own authority, as others run it: no SPIFFE in it, two steps deep, and it has signed for ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.ca.samples import NOW, a_key

YEAR = timedelta(days=365)


@dataclass
class Company:
    """`ours` is what it makes for us; `chain` is that with what is above it, the root last."""

    now: datetime = NOW
    key: ec.EllipticCurvePrivateKey = field(default_factory=a_key)
    issuing_key: ec.EllipticCurvePrivateKey = field(default_factory=a_key)

    def __post_init__(self) -> None:
        self.root = self.certify("Company Root", self.key, None, self.key, life=20 * YEAR)
        self.issuing = self.certify("Company Issuing", self.issuing_key, self.root, self.key, life=10 * YEAR)

    def ours(self, key: ec.EllipticCurvePrivateKey, **changes: Any) -> x509.Certificate:
        name, signer, by = changes.pop("name", "Mesh"), self.issuing, self.issuing_key
        return self.certify(name, key, signer, by, **({"path_length": 0} | changes))

    def chain(self, key: ec.EllipticCurvePrivateKey, **changes: Any) -> tuple[x509.Certificate, ...]:
        return self.ours(key, **changes), self.issuing, self.root

    def certify(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: x509.Certificate | None,
        by: ec.EllipticCurvePrivateKey,
        *,
        life: timedelta = YEAR,
        begins: datetime | None = None,
        ca: bool = True,
        path_length: int | None = None,
        spiffe: str = "",
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        begin = begins or self.now - timedelta(minutes=5)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + life)
            .add_extension(x509.BasicConstraints(ca, path_length if ca else None), critical=True)
            .add_extension(_USAGE, critical=True)
            .add_extension(x509.SubjectKeyIdentifier(name.encode()), critical=False)  # a hash of nothing, as is allowed
            .add_extension(
                x509.AuthorityKeyIdentifier((issuer.subject if issuer else subject).rfc4514_string()[3:].encode(), None,
                                            None), critical=False,
            )
        )  # fmt: skip
        if spiffe:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe)])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(by, hashes.SHA256())


_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def lay(folder: Path, chain: tuple[x509.Certificate, ...], key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
    """Write both into files, as an operator does: the chain, the key."""
    files = folder / "upstream.pem", folder / "upstream.key"
    files[1].touch(0o600)
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    files[0].write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    return files
