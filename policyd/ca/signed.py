"""Is what was signed what was ordered? Of the first leaf of a form all is checked, of the others what differs in each.

Law: nothing passes that `check.check_leaf` would refuse. Leaves of one form are the same to the byte but for serial
number, life, key, the key's identifier and the signature, and these are checked in every one: to read the same
extensions again took four times as long as to verify the signature.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from policyd.ca import check
from policyd.ca.der import Part, inside, key_id, parts
from policyd.ca.template import PublicKey
from policyd.errors import IdentityError
from policyd.spiffe import SpiffeId

PARTS = 8  # version, serial number, algorithm, issuer, life, subject, key, extensions: all that a leaf of ours has


@dataclass(frozen=True, slots=True)
class Ordered:
    """Whose certificate was to be signed, for which key, with which DNS names."""

    spiffe_id: SpiffeId
    key: PublicKey
    dns_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Form:
    """What leaves have in common, `same`, and the one in which it was seen."""

    same: tuple[bytes, ...]
    issuer: x509.Certificate
    trust_domain: str
    leaf: x509.Certificate = field(compare=False)
    now: datetime = field(compare=False)


@dataclass(frozen=True, slots=True)
class _Passed:
    """What the check of a form found."""

    spiffe_id: SpiffeId
    dns_names: tuple[str, ...]
    hash: hashes.HashAlgorithm
    issuer_key: ec.EllipticCurvePublicKey


def check_signed(
    leaf: x509.Certificate, issuer: x509.Certificate, ordered: Ordered, trust_domain: str, now: datetime
) -> None:
    """Raise IdentityError unless `leaf`, signed by `issuer` (checked itself), is good and as `ordered`."""
    der = leaf.public_bytes(Encoding.DER)
    [whole] = parts(der, 0, len(der))
    tbs, algorithm, bits = inside(der, whole)
    found = inside(der, tbs)
    if len(found) != PARTS:
        raise IdentityError("a certificate of ours has no optional parts but its extensions")
    _, _, inner, _, _, _, spki, _ = found
    _check_key(der[spki.start : spki.end], ordered.key)
    if _text(der, algorithm) != _text(der, inner):
        raise IdentityError("a certificate names one algorithm for its signature, not two")
    passed = _whole(_Form(_same(der, found), issuer, trust_domain, leaf, now))
    if passed.spiffe_id != ordered.spiffe_id:
        raise IdentityError("the signed certificate bears another identity")
    if passed.dns_names != ordered.dns_names:
        raise IdentityError("the signed certificate bears other DNS names")
    check.check_serial(leaf)
    check.check_life(leaf, issuer, now)
    if der[bits.content]:
        raise IdentityError("a signature is of whole bytes")
    _check_signature(passed, der[bits.content + 1 : bits.end], _text(der, tbs))


def _check_key(spki: bytes, key: PublicKey) -> None:
    check.check_key(key)
    if spki != key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise IdentityError("the signed certificate holds another key")


def _same(der: bytes, found: list[Part]) -> tuple[bytes, ...]:
    """All but serial number, life, and what differs with the key."""
    version, _, algorithm, name, _, subject, spki, extensions = found
    kind, _ = inside(der, spki)
    before, middle, after = _text(der, extensions).partition(key_id(_text(der, spki)))
    if not middle:
        raise IdentityError("the subject key identifier is not that of the key")
    return (*(_text(der, one) for one in (version, algorithm, name, subject, kind)), before, after)


@lru_cache(maxsize=4096)
def _whole(form: _Form) -> _Passed:
    """The whole check of a leaf, for all of its form; what was refused is not remembered."""
    leaf = form.leaf
    spiffe_id = check.check_leaf(leaf, form.issuer, form.trust_domain, form.now)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    algorithm, issuer_key = leaf.signature_hash_algorithm, form.issuer.public_key()
    if algorithm is None or not isinstance(issuer_key, ec.EllipticCurvePublicKey):
        raise IdentityError("an authority's key is an elliptic one")
    return _Passed(spiffe_id, tuple(names.get_values_for_type(x509.DNSName)), algorithm, issuer_key)


def _check_signature(passed: _Passed, signature: bytes, signed: bytes) -> None:
    try:
        passed.issuer_key.verify(signature, signed, ec.ECDSA(passed.hash))
    except InvalidSignature as error:
        raise IdentityError("the certificate was not signed by its issuer") from error


def _text(der: bytes, part: Part) -> bytes:
    return der[part.start : part.end]
