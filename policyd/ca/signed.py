"""Is what was signed what was ordered? Of the first leaf of a form all is checked, of the others what differs in each.

Law: nothing passes that `check.check_leaf` would refuse. Leaves of one form are the same to the byte but for serial
number, life, key, the key's identifier and the signature, and these are checked in every one: to read the same
extensions again took four times as long as to verify the signature.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from policyd.ca import check
from policyd.ca.der import bounds, content, key_id
from policyd.ca.template import PublicKey
from policyd.errors import IdentityError
from policyd.spiffe import SpiffeId
from policyd.svid import x509 as verifier

PARTS: Final = (
    8  # version, serial number, algorithm, issuer, life, subject, key, extensions: all that a leaf of ours has
)
MAX_FORMS: Final = 4096


@dataclass(frozen=True, slots=True)
class Ordered:
    """Whose certificate was to be signed, for which key, with which DNS names."""

    spiffe_id: SpiffeId
    key: PublicKey
    dns_names: tuple[str, ...] = ()


class _Form(NamedTuple):
    """What leaves have in common: all that is the same in each, who signs them, and for whom."""

    same: tuple[bytes, ...]
    issuer: x509.Certificate
    trust_domain: str


@dataclass(frozen=True, slots=True)
class _Passed:
    """What the check of a form found."""

    spiffe_id: SpiffeId
    dns_names: tuple[str, ...]
    scheme: ec.ECDSA
    issuer_key: ec.EllipticCurvePublicKey


_forms: Final[dict[_Form, _Passed]] = {}  # that have passed; what was refused is not remembered


def check_signed(
    der: bytes, issuer: x509.Certificate, ordered: Ordered, trust_domain: str, now: datetime
) -> x509.Certificate:
    """The leaf in `der`, as the library reads it; raises IdentityError unless it is good, signed by `issuer` (checked
    itself), and as `ordered`.
    """
    leaf = verifier.parse(der)
    tbs, algorithm, bits, _ = bounds(der, content(der, 0), len(der))
    found = bounds(der, content(der, tbs), algorithm)
    if len(found) != PARTS + 1:
        raise IdentityError("a certificate of ours has no optional parts but its extensions")
    _check_key(der[found[6] : found[7]], ordered.key)
    if der[algorithm:bits] != der[found[2] : found[3]]:
        raise IdentityError("a certificate names one algorithm for its signature, not two")
    form = _Form(_same(der, found), issuer, trust_domain)
    passed = _forms.get(form) or _pass(form, leaf, now)
    if passed.spiffe_id != ordered.spiffe_id:
        raise IdentityError("the signed certificate bears another identity")
    if passed.dns_names != ordered.dns_names:
        raise IdentityError("the signed certificate bears other DNS names")
    check.check_serial(leaf)
    check.check_life(leaf, issuer, now)
    signature = content(der, bits)
    if der[signature]:
        raise IdentityError("a signature is of whole bytes")
    _check_signature(passed, der[signature + 1 :], der[tbs:algorithm])
    return leaf


def _check_key(spki: bytes, key: PublicKey) -> None:
    check.check_key(key)
    if spki != key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise IdentityError("the signed certificate holds another key")


def _same(der: bytes, found: list[int]) -> tuple[bytes, ...]:
    """All but serial number, life, and what differs with the key."""
    version, serial, algorithm, _, life, subject, spki, extensions, end = found
    key = der[spki:extensions]
    kind = content(key, 0)
    before, middle, after = der[extensions:end].partition(key_id(key))
    if not middle:
        raise IdentityError("the subject key identifier is not that of the key")
    kind_end = bounds(key, kind, len(key))[1]
    return der[version:serial], der[algorithm:life], der[subject:spki], key[kind:kind_end], before, after


def _pass(form: _Form, leaf: x509.Certificate, now: datetime) -> _Passed:
    """The whole check of a leaf, for all of its form."""
    spiffe_id = check.check_leaf(leaf, form.issuer, form.trust_domain, now)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    algorithm, issuer_key = leaf.signature_hash_algorithm, form.issuer.public_key()
    if algorithm is None or not isinstance(issuer_key, ec.EllipticCurvePublicKey):
        raise IdentityError("an authority's key is an elliptic one")
    if len(_forms) >= MAX_FORMS:
        _forms.clear()
    passed = _Passed(spiffe_id, tuple(names.get_values_for_type(x509.DNSName)), ec.ECDSA(algorithm), issuer_key)
    _forms[form] = passed
    return passed


def _check_signature(passed: _Passed, signature: bytes, signed: bytes) -> None:
    try:
        passed.issuer_key.verify(signature, signed, passed.scheme)
    except InvalidSignature as error:
        raise IdentityError("the certificate was not signed by its issuer") from error
