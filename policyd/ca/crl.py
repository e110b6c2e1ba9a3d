"""Lists of revoked certificates (RFC 5280, section 5), one of each key that has signed some that may be in use.

Law: pure. A list outlives what is renewed meanwhile, and is made anew at half of its life, so that one which was not
renewed in time is never what ends a connection. It has serial numbers alone, and none that has ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from policyd.ca.authority import Material
from policyd.ca.rotation import Authorities
from policyd.ca.template import BACKDATE
from policyd.svid.x509 import extension

LIFE: Final = timedelta(hours=24)
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, order=True)
class RevokedSerial:
    """A certificate that nobody is to believe any more: times in seconds since the epoch; `ends` is its own end."""

    serial: str  # hex, lower case, as in the ledger
    spiffe_id: str
    since: int
    ends: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Lists:
    """The lists that are published, in DER, and what they were made of."""

    ders: tuple[bytes, ...] = ()
    signers: tuple[x509.Certificate, ...] = ()
    serials: frozenset[str] = frozenset()
    again: datetime = _LONG_AGO


def turned(held: Lists, authorities: Authorities, revoked: Iterable[RevokedSerial], now: datetime) -> Lists:
    """The lists of now: the same value where nothing has changed and half of their life is not over."""
    materials = [one.material for one in authorities.generations]
    signers = tuple(one.intermediate for one in materials)
    good = [one for one in revoked if one.ends > now.timestamp()]
    serials = frozenset(one.serial for one in good)
    if now < held.again and (held.signers, held.serials) == (signers, serials):
        return held
    made = tuple(_list(one, good, now) for one in materials)
    return Lists(made, signers, serials, now + LIFE / 2)


def _list(material: Material, revoked: Collection[RevokedSerial], now: datetime) -> bytes:
    """Signed by the key that signed the certificates; its number is the moment, which only grows."""
    signer = material.intermediate
    begins = now.replace(microsecond=0) - BACKDATE
    name = extension(signer, x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.subject)
        .last_update(begins)
        .next_update(begins + BACKDATE + LIFE)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(name), critical=False)
        .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(int(one.serial, 16))
        builder = builder.add_revoked_certificate(entry.revocation_date(datetime.fromtimestamp(one.since, UTC)).build())
    return builder.sign(material.intermediate_key, hashes.SHA256()).public_bytes(Encoding.DER)
