"""A leaf as the library encodes it, cut where leaves of one identity differ: serial number, life, key.

Law: what comes out is, byte for byte, what the library would have made; where it cannot be, the library makes it. The
library takes longer to encode a certificate than to sign it, and all but a few bytes are the same each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from policyd.ca import template
from policyd.ca.der import BIT_STRING, INTEGER, SEQUENCE, UTC_TIME, inside, key_id, parts, tlv
from policyd.ca.template import PublicKey, Validity
from policyd.spiffe import SpiffeId

_LAST_OF_UTC_TIME: Final = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280, section 4.1.2.5
_VERSION_3: Final = bytes.fromhex("a003020102")
_SCHEME: Final = ec.ECDSA(hashes.SHA256())
_SAMPLE: Final = Validity(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Mould:
    """What all leaves of an identity by one issuer share, in DER."""

    algorithm: bytes
    issuer: bytes
    subject: bytes
    before_key_id: bytes
    after_key_id: bytes

    def cast(self, key: PublicKey, life: Validity, serial: int, signer: ec.EllipticCurvePrivateKey) -> bytes:
        """The leaf for `key`, signed (ECDSA with SHA-256), in DER."""
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        tbs = tlv(
            SEQUENCE,
            _VERSION_3,
            tlv(INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1)),
            self.algorithm,
            self.issuer,
            tlv(SEQUENCE, _time(life.not_before), _time(life.not_after)),
            self.subject,
            spki,
            self.before_key_id,
            key_id(spki),
            self.after_key_id,
        )
        signature = signer.sign(tbs, _SCHEME)
        return tlv(SEQUENCE, tbs, self.algorithm, tlv(BIT_STRING, b"\0", signature))


def leaf(
    issuer: x509.Certificate,
    spiffe_id: SpiffeId,
    key: PublicKey,
    life: Validity,
    serial: int,
    signer: ec.EllipticCurvePrivateKey,
    dns_names: tuple[str, ...] = (),
) -> bytes:
    """The certificate that `template.leaf` describes, signed, in DER."""
    if life.not_after > _LAST_OF_UTC_TIME:
        order = template.leaf(issuer, spiffe_id, key, life, serial, dns_names)
        return order.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)
    return _mould(issuer, spiffe_id, isinstance(key, rsa.RSAPublicKey), dns_names).cast(key, life, serial, signer)


@lru_cache(maxsize=4096)
def _mould(issuer: x509.Certificate, spiffe_id: SpiffeId, for_rsa: bool, dns_names: tuple[str, ...]) -> Mould:
    """Cut from a certificate that the library made for a key which nobody has, and signed with another such."""
    key = _any_key(for_rsa)
    order = template.leaf(issuer, spiffe_id, key, _SAMPLE, 1, dns_names)
    sample = order.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    tbs = sample.tbs_certificate_bytes
    [whole] = parts(tbs, 0, len(tbs))
    _, _, algorithm, name, _, subject, spki, extensions = inside(tbs, whole)
    end = tbs[extensions.start : extensions.end]
    before, _, after = end.partition(key_id(tbs[spki.start : spki.end]))
    same = [tbs[one.start : one.end] for one in (algorithm, name, subject)]
    return Mould(same[0], same[1], same[2], before, after)


def _any_key(for_rsa: bool) -> PublicKey:
    """The usages of a key depend on its kind, and nothing else does."""
    if for_rsa:
        return rsa.RSAPublicNumbers(65537, (1 << 2047) + 1).public_key()
    return ec.generate_private_key(ec.SECP256R1()).public_key()


@lru_cache(maxsize=64)
def _time(moment: datetime) -> bytes:
    return tlv(UTC_TIME, f"{moment.astimezone(UTC):%y%m%d%H%M%SZ}".encode())
