"""Certificates that tests need and policyd never issues: of foreign authorities, for names, expired."""

from __future__ import annotations

import datetime as dt
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

YEAR = dt.timedelta(days=365)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, passphrase: bytes | None = None) -> str:
    how = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how).decode()


def key_pem(passphrase: bytes | None = None) -> str:
    """A new private key."""
    return _pem(ec.generate_private_key(ec.SECP256R1()), passphrase)


class Authority:
    """A certificate authority of somebody else."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder(self._name, self._name, self._key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - YEAR).not_valid_after(now + YEAR)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        self._identifier = identifier
        builder = builder.add_extension(identifier, critical=False)
        self.pem = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def issue(self, *names: str, ended: bool = False, for_rsa: bool = False) -> tuple[str, str]:
        """A certificate for DNS names, IP addresses or URIs and its key, both in PEM; `ended`: it expired yesterday."""
        key = rsa.generate_private_key(65_537, 2048) if for_rsa else ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        end = now - dt.timedelta(days=1) if ended else now + YEAR / 2
        builder = x509.CertificateBuilder(
            self._name, _name(names[0][:60]), key.public_key(), x509.random_serial_number(), now - YEAR / 2, end
        )
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        builder = builder.add_extension(usage, critical=True)
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        of = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier)
        builder = builder.add_extension(of, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(Encoding.PEM).decode(), _pem(key)

    def revocations(self, *certificates: str, ended: bool = False) -> str:
        """A list of what it has revoked (CRL), in PEM; `ended`: it should have been renewed yesterday."""
        now = dt.datetime.now(dt.UTC)
        end = now - dt.timedelta(days=1) if ended else now + YEAR / 2
        builder = x509.CertificateRevocationListBuilder(self._name, now - YEAR / 2, end)
        for pem in certificates:
            number = x509.load_pem_x509_certificate(pem.encode()).serial_number
            revoked = x509.RevokedCertificateBuilder(number, now - YEAR / 4)
            builder = builder.add_revoked_certificate(revoked.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _general(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
