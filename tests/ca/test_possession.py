"""Who holds a machine's key answers our question with it, once; one thing wrong a row, each by its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from policyd.ca.possession import Challenges, Shown, selectors, to_sign
from policyd.errors import IdentityError
from tests.ca.machines import HOUR, Machines, fingerprint, shown
from tests.ca.samples import NOW, a_csr, a_key

MACHINES = Machines()
KEY = a_key()
CERTIFICATE = MACHINES.certify(KEY)
CSR = a_csr()
SECOND = timedelta(seconds=1)


def proved(
    make: Callable[[bytes], Shown], machines: Machines = MACHINES, csr: bytes = CSR, after: timedelta = timedelta()
) -> tuple[str, ...]:
    challenges = Challenges(os.urandom)
    return selectors(make(challenges.new(NOW)), csr, (machines.root,), challenges, NOW + after)


def good(challenge: bytes) -> Shown:
    return shown(CERTIFICATE, KEY, challenge, CSR)


def test_who_holds_the_key_is_what_the_certificate_says() -> None:
    assert proved(good) == ("x509:cn:db1.example", "x509:dns:db1.example", f"x509:sha256:{fingerprint(CERTIFICATE)}")
    assert proved(good, after=60 * SECOND)


def test_an_rsa_key_signs_as_well() -> None:
    key = rsa.generate_private_key(65537, 2048)
    leaf = MACHINES.certify(key).public_bytes(Encoding.DER)

    def signed(challenge: bytes) -> Shown:
        signature = key.sign(to_sign(challenge, leaf, CSR), padding.PKCS1v15(), hashes.SHA256())
        return Shown((leaf,), challenge, signature)

    assert "x509:cn:db1.example" in proved(signed)


def over(challenge: bytes) -> Shown:
    return shown(MACHINES.certify(KEY, begins=NOW - 100 * HOUR), KEY, challenge, CSR)


def large(challenge: bytes) -> Shown:
    key = ec.generate_private_key(ec.SECP521R1())
    return shown(MACHINES.certify(key), key, challenge, CSR)


# of a kind of key that the library does not know
UNKNOWN = CERTIFICATE.public_bytes(Encoding.DER).replace(
    bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0209")
)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda c: shown(CERTIFICATE, a_key(), c, CSR), "not signed with the certificate's key"),
        (lambda c: shown(CERTIFICATE, KEY, c, a_csr()), "not signed with the certificate's key"),
        (lambda c: replace(good(c), signature=b""), "not signed with the certificate's key"),
        (lambda c: replace(good(c), signature=b"x" * 2000), "a signature"),
        (lambda c: replace(good(c), challenge=bytes(72)), "the challenge is not ours"),
        (lambda c: replace(good(c), challenge=c[:-1] + bytes([c[-1] ^ 1])), "the challenge is not ours"),
        (lambda c: replace(good(c), challenge=b""), "the challenge is not ours"),
        (lambda c: good(Challenges(os.urandom).new(NOW)), "the challenge is not ours"),
        (over, "the machine's certificate ended at"),
        (large, "the curve `secp521r1` is not accepted"),
        (lambda c: shown(Machines().certify(KEY), KEY, c, CSR), "does not chain"),
        (lambda c: shown(MACHINES.certify(KEY, signer=a_key()), KEY, c, CSR), "does not chain"),
        (lambda c: shown(MACHINES.certify(KEY, usage=False), KEY, c, CSR), "not for signatures"),
        (lambda c: shown(MACHINES.root, MACHINES.key, c, CSR), "an authority's"),
        (lambda c: Shown((), c, b"x"), "a chain of 1 to"),
        (lambda c: Shown((b"junk",), c, b"x"), "cannot be read"),
        (lambda c: Shown((UNKNOWN,), c, b"x"), "key cannot be read"),
        (lambda c: Shown(good(c).chain * 9, c, b"x"), "a chain of 1 to"),
    ],
)
def test_a_proof_that_proves_nothing_is_refused(make: Callable[[bytes], Shown], why: str) -> None:
    with pytest.raises(IdentityError, match=why):
        proved(make)


def test_a_challenge_is_answered_once() -> None:
    challenges = Challenges(os.urandom)
    answer = good(challenges.new(NOW))
    selectors(answer, CSR, (MACHINES.root,), challenges, NOW)
    with pytest.raises(IdentityError, match="was answered already"):
        selectors(answer, CSR, (MACHINES.root,), challenges, NOW)


@pytest.mark.parametrize("after", [62 * SECOND, -2 * SECOND])
def test_a_challenge_is_good_for_a_minute(after: timedelta) -> None:
    with pytest.raises(IdentityError, match="the challenge is over"):
        proved(good, after=after)


def test_what_was_answered_is_forgotten_when_it_is_over() -> None:
    challenges = Challenges(os.urandom)
    for minute in range(3):
        now = NOW + minute * timedelta(minutes=2)
        challenges.use(challenges.new(now), now)
        assert len(challenges._used) == 1
