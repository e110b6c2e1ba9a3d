"""A cluster and an authority of machines, as evidence has them: real keys, real tokens, real certificates."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from policyd.ca.possession import Shown, to_sign
from policyd.svid import jose
from tests.ca.samples import NOW, a_key

ISSUER = "https://kubernetes.default.svc"
HOUR = timedelta(hours=1)


@dataclass
class Cluster:
    """Makes tokens as a cluster's API server does."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=a_key)
    kid: str = "k1"
    now: datetime = NOW

    def claims(self, **changes: Any) -> dict[str, Any]:
        second = int(self.now.timestamp())
        claims: dict[str, Any] = {
            "iss": ISSUER, "aud": ["policyd"], "sub": "system:serviceaccount:shop:reviews",
            "iat": second, "nbf": second, "exp": second + 3600,
            "kubernetes.io": {
                "namespace": "shop", "serviceaccount": {"name": "reviews", "uid": "u1"},
                "pod": {"name": "reviews-7d9", "uid": "u2"}, "node": {"name": "n1"},
            },
        }  # fmt: skip
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def token(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        shown = {"alg": "ES256", "kid": self.kid} | (header or {})
        return jose.sign_es256(shown, self.claims(**changes), self.key)

    def keys(self, **changes: Any) -> bytes:
        jwk = {**jose.to_jwk(self.key.public_key()), "kid": self.kid, "use": "sig", "alg": "ES256", **changes}
        return json.dumps({"keys": [jwk]}).encode()


@dataclass
class Machines:
    """An authority of machines; its certificates are no SVIDs."""

    now: datetime = NOW
    key: ec.EllipticCurvePrivateKey = field(default_factory=a_key)

    def __post_init__(self) -> None:
        self.root = self._sign(self._name("Machines"), self.key, self._name("Machines"), ca=True)

    def certify(
        self, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, name: str = "db1.example", **changes: Any
    ) -> x509.Certificate:
        return self._sign(self._name(name), key, self.root.subject, dns=name, **changes)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
        issuer: x509.Name,
        *,
        ca: bool = False,
        dns: str = "",
        begins: datetime | None = None,
        signer: ec.EllipticCurvePrivateKey | None = None,
        usage: bool = True,
    ) -> x509.Certificate:
        begins = begins or self.now - HOUR
        own = (signer or self.key).public_key()
        order = x509.CertificateBuilder(
            issuer, subject, key.public_key(), x509.random_serial_number(), begins, begins + 48 * HOUR
        )
        order = order.add_extension(x509.BasicConstraints(ca, None), critical=True)
        order = order.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own), critical=False)
        order = order.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        order = order.add_extension(
            x509.KeyUsage(usage, False, False, False, not usage, ca, ca, False, False), critical=True
        )
        if dns:
            order = order.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False)
            order = order.add_extension(
                x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
            )
        return order.sign(signer or self.key, hashes.SHA256())

    @staticmethod
    def _name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def shown(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, challenge: bytes, csr: bytes) -> Shown:
    """What a machine shows that holds the certificate's key."""
    leaf = certificate.public_bytes(Encoding.DER)
    signature = key.sign(to_sign(challenge, leaf, csr), ec.ECDSA(hashes.SHA256()))
    return Shown((leaf,), challenge, signature)


def fingerprint(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
