"""A machine's existing certificate as evidence: who holds its key signs what we have just asked for.

Law: the certificate chains to roots that the settings name, for nothing else; what is signed names the question, which
is answered once, the certificate and the request for the new one, so that nobody gains by a copy of it.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from policyd.ca.check import check_key
from policyd.ca.template import Random
from policyd.errors import IdentityError
from policyd.svid.clocks import check_times
from policyd.svid.x509 import MAX_CHAIN, extension, extensions, parse

KIND: Final = "x509"  # the word of the schema
SECONDS: Final = 60  # that a question can be answered
MAX_USED: Final = 100_000
MAX_SIGNATURE: Final = 1024  # bytes: of an RSA key of 8192 bits
NONCE: Final = 32
MAX_NAMES: Final = 32  # of one certificate
MAX_NAME: Final = 253
_CONTEXT: Final = b"policyd: proof of possession, 1\0"


class Challenges:
    """Questions that nobody can have foreseen, each answered once, within a minute.

    A question bears when it was asked and our seal, so that asking costs no memory; only answered ones are remembered.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._key = random(32)
        self._lock = threading.Lock()
        self._used: dict[bytes, float] = {}

    def new(self, now: datetime) -> bytes:
        """Another question."""
        body = int(now.timestamp()).to_bytes(8) + self._random(NONCE)
        return body + self._seal(body)

    def use(self, challenge: bytes, now: datetime) -> None:
        """Raise IdentityError unless it is ours, of the last minute, and was not answered before."""
        body, seal, second = challenge[: 8 + NONCE], challenge[8 + NONCE :], now.timestamp()
        if not hmac.compare_digest(seal, self._seal(body)):
            raise IdentityError("the challenge is not ours")
        asked = int.from_bytes(body[:8])
        if not asked <= second + 1 <= asked + SECONDS + 1:
            raise IdentityError("the challenge is over", remedy="ask for another one")
        with self._lock:
            self._used = {one: ends for one, ends in self._used.items() if ends > second} if self._used else {}
            if body in self._used:
                raise IdentityError("the challenge was answered already", remedy="ask for another one")
            if len(self._used) >= MAX_USED:
                raise IdentityError("too many challenges were answered", remedy="ask again in a minute")
            self._used[body] = asked + SECONDS + 1

    def _seal(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")


def to_sign(challenge: bytes, leaf: bytes, csr: bytes) -> bytes:
    """What the existing key signs (with SHA-256): the question, its certificate and the request, both in DER."""
    return _CONTEXT + b"".join(hashlib.sha256(one).digest() for one in (challenge, leaf, csr))


@dataclass(frozen=True, slots=True)
class Shown:
    """What somebody shows: a chain (DER, leaf first), the question, and its answer."""

    chain: tuple[bytes, ...]
    challenge: bytes
    signature: bytes


def selectors(
    shown: Shown, csr: bytes, roots: Sequence[x509.Certificate], challenges: Challenges, now: datetime
) -> tuple[str, ...]:
    """What is known of who holds the certificate's key; raises IdentityError for what proves nothing."""
    if not 1 <= len(shown.chain) <= MAX_CHAIN or len(shown.signature) > MAX_SIGNATURE:
        raise IdentityError(f"a proof has a chain of 1 to {MAX_CHAIN} certificates, and a signature")
    chain = [parse(one) for one in shown.chain]
    leaf = chain[0]
    _check_chain(chain, roots, now)
    challenges.use(shown.challenge, now)
    _check_signature(leaf, shown.signature, to_sign(shown.challenge, shown.chain[0], csr))
    return _selectors(leaf, shown.chain[0])


def _check_chain(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: datetime) -> None:
    """The key is judged first: a large one costs time."""
    leaf = chain[0]
    try:
        check_key(leaf.public_key())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IdentityError("the certificate's key cannot be read") from error
    for one in extensions(leaf):
        if isinstance(one.value, x509.BasicConstraints) and one.value.ca:
            raise IdentityError("the certificate is an authority's")
        if isinstance(one.value, x509.KeyUsage) and not one.value.digital_signature:
            raise IdentityError("the certificate's key is not for signatures")
    for one in chain:
        check_times("the machine's certificate", one.not_valid_before_utc, one.not_valid_after_utc, now)
    verifier = PolicyBuilder().store(Store(list(roots))).time(now).build_client_verifier()
    try:
        verifier.verify(leaf, list(chain[1:]))
    except (VerificationError, ValueError) as error:
        raise IdentityError(f"the certificate does not chain to a root of machines: {str(error)[:200]}") from None


def _check_signature(leaf: x509.Certificate, signature: bytes, signed: bytes) -> None:
    key = leaf.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
        else:
            raise IdentityError("a key of this kind is not accepted")
    except InvalidSignature:
        raise IdentityError("the challenge was not signed with the certificate's key") from None


def _selectors(leaf: x509.Certificate, der: bytes) -> tuple[str, ...]:
    names = [str(one.value) for one in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    found = [f"x509:sha256:{hashlib.sha256(der).hexdigest()}", *(f"x509:cn:{name}" for name in names)]
    if any(one.oid == x509.SubjectAlternativeName.oid for one in extensions(leaf)):
        alternative = extension(leaf, x509.SubjectAlternativeName).value
        found += [f"x509:dns:{name}" for name in alternative.get_values_for_type(x509.DNSName)]
    good = [one for one in found if len(one) <= MAX_NAME + 16 and one.isprintable()]
    return tuple(sorted(set(good))[:MAX_NAMES])
