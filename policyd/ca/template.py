"""What each certificate of the mesh says, before it is signed.

Law: a template holds nothing that a request asked for but its public key. Lives end with the issuer's at
the latest, begin two minutes early for clocks that differ, and are refused when less than five minutes
would remain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from policyd.errors import IdentityError
from policyd.spiffe import SpiffeId
from policyd.svid.x509 import extension

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
Random: TypeAlias = Callable[[int], bytes]  # n -> n unpredictable bytes, as os.urandom

BACKDATE: Final = timedelta(minutes=2)
LEAST_LIFE: Final = timedelta(seconds=5)  # of what is asked for
LEAST_LEFT: Final = timedelta(minutes=5)  # of an issuer, to issue by it at all
ROOT_LIFE: Final = timedelta(days=3653)  # ten years
INTERMEDIATE_LIFE: Final = timedelta(days=365)
LEAF_LIFE: Final = timedelta(hours=1)
SERIAL_BYTES: Final = 16

_NOBODY: Final = x509.Name([])


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when, both in UTC and in whole seconds, as X.509 has them."""

    not_before: datetime
    not_after: datetime


def validity(now: datetime, ttl: timedelta, *, within: Validity | None = None) -> Validity:
    """The life of a certificate asked for at `now` (UTC) for `ttl`, `within` its issuer's.

    Raises IdentityError where less than five seconds are asked for, or the issuer has less than five minutes left.
    """
    now = now.replace(microsecond=0)
    start, end = now - BACKDATE, now + ttl
    capped = within is not None and within.not_after < end
    if within is not None:
        start, end = max(start, within.not_before), min(end, within.not_after)
    if capped and end - now < LEAST_LEFT:
        message = f"the authority's own chain ends at {end:%FT%TZ}, in less than five minutes"
        raise IdentityError(message, remedy="see `policyd ca show`")
    if end - now < LEAST_LIFE:
        raise IdentityError("a certificate lives at least five seconds", remedy="ask for a longer life")
    return Validity(start, end)


def life_of(*certificates: x509.Certificate) -> Validity:
    """When all of `certificates` are valid."""
    begins = max(one.not_valid_before_utc for one in certificates)
    return Validity(begins, min(one.not_valid_after_utc for one in certificates))


def serial_number(random: Random) -> int:
    """A positive random number of 128 bits (RFC 5280 section 4.1.2.2 allows 159)."""
    number = int.from_bytes(random(SERIAL_BYTES), "big")
    if number == 0:
        raise IdentityError("the random source returned nothing but zeros")
    return number


def root(trust_domain: str, key: ec.EllipticCurvePublicKey, now: datetime, random: Random) -> x509.CertificateBuilder:
    """The self-signed root: it signs intermediates, and these only leaves (path length 1)."""
    name = _authority_name("root", key)
    return _authority(trust_domain, key, name, name, validity(now, ROOT_LIFE), key, 1, random)


def intermediate(
    issuer: x509.Certificate, trust_domain: str, key: ec.EllipticCurvePublicKey, now: datetime, random: Random
) -> x509.CertificateBuilder:
    """The certificate of the key that signs leaves and nothing else (path length 0)."""
    life = validity(now, INTERMEDIATE_LIFE, within=life_of(issuer))
    issuer_key = issuer.public_key()
    assert isinstance(issuer_key, ec.EllipticCurvePublicKey)
    name = _authority_name("intermediate", key)
    return _authority(trust_domain, key, name, issuer.subject, life, issuer_key, 0, random)


def leaf(
    issuer: x509.Certificate,
    spiffe_id: SpiffeId,
    key: PublicKey,
    life: Validity,
    serial: int,
    dns_names: tuple[str, ...] = (),
) -> x509.CertificateBuilder:
    """An X.509-SVID (X509-SVID sections 2 to 4): no subject, one URI SAN, so that extension is critical."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(spiffe_id))]
    names += [x509.DNSName(name) for name in dns_names]
    extensions = [
        _extension(x509.SubjectAlternativeName(names), critical=True),
        *_lasting(issuer, "ec" if isinstance(key, ec.EllipticCurvePublicKey) else "rsa"),
        _extension(x509.SubjectKeyIdentifier.from_public_key(key)),
    ]
    return x509.CertificateBuilder(  # at once: built step by step, each step copies and compares all before it
        issuer.subject, _NOBODY, key, serial, life.not_before, life.not_after, extensions
    )


@lru_cache(maxsize=16)
def _lasting(issuer: x509.Certificate, kind: Literal["ec", "rsa"]) -> tuple[x509.Extension[x509.ExtensionType], ...]:
    """The extensions that are the same in every leaf of an issuer for a key of that kind."""
    name = extension(issuer, x509.SubjectKeyIdentifier).value  # of another's certificate it may be no hash of the key
    return (
        _extension(x509.BasicConstraints(ca=False, path_length=None), critical=True),
        _extension(_key_usage(kind), critical=True),
        _extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])),
        _extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(name)),
    )


def _extension(value: x509.ExtensionType, *, critical: bool = False) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, critical, value)


def _authority(
    trust_domain: str,
    key: ec.EllipticCurvePublicKey,
    subject: x509.Name,
    issuer: x509.Name,
    life: Validity,
    issuer_key: ec.EllipticCurvePublicKey,
    path_length: int,
    random: Random,
) -> x509.CertificateBuilder:
    own_id = x509.UniformResourceIdentifier(str(SpiffeId(trust_domain, "")))
    return (
        _builder(subject, issuer, key, life, random)
        .add_extension(x509.SubjectAlternativeName([own_id]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage("authority"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, life: Validity, random: Random
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .serial_number(serial_number(random))
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .not_valid_before(life.not_before)
        .not_valid_after(life.not_after)
    )


def _authority_name(which: str, key: ec.EllipticCurvePublicKey) -> x509.Name:
    """Distinct for each key, so that a verifier with several roots picks the right one by name."""
    key_id = x509.SubjectKeyIdentifier.from_public_key(key).digest.hex()[:16]
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "policyd"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"policyd {which} {key_id}"),
        ]
    )


def _key_usage(kind: Literal["ec", "rsa", "authority"]) -> x509.KeyUsage:
    """An elliptic key agrees on keys and an RSA key enciphers them; an authority does nothing but sign."""
    return x509.KeyUsage(
        digital_signature=kind != "authority",
        content_commitment=False,
        key_encipherment=kind == "rsa",
        data_encipherment=False,
        key_agreement=kind == "ec",
        key_cert_sign=kind == "authority",
        crl_sign=kind == "authority",
        encipher_only=False,
        decipher_only=False,
    )
