"""Who comes back after its certificate has ended is who has its key, for a while, by roots and clocks of now."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from policyd.errors import IdentityError
from policyd.svid.comeback import Returning, check, to_sign
from tests.ca.samples import DOMAIN, LAPTOP, NOW, REVIEWS, a_csr, a_key, an_authority

AUTHORITY = an_authority()
KEY, OTHER = a_key(), a_key()
SVID = AUTHORITY.sign(LAPTOP, KEY.public_key(), now=NOW, random=os.urandom, ttl=timedelta(hours=1))
LATER = NOW + timedelta(hours=5)
CSR = a_csr()


def signed(key: ec.EllipticCurvePrivateKey = KEY, leaf: bytes = SVID.chain[0], csr: bytes = CSR, at: int = 0) -> bytes:
    return key.sign(to_sign(leaf, csr, at or int(LATER.timestamp())), ec.ECDSA(hashes.SHA256()))


GOOD: dict[str, Any] = {
    "chain": SVID.chain,
    "csr": CSR,
    "at": int(LATER.timestamp()),
    "signature": signed(),
    "roots": AUTHORITY.roots,
    "trust_domain": DOMAIN,
    "now": LATER,
    "within": timedelta(hours=24),
}


def test_an_agent_is_who_it_was_by_the_key_that_it_had() -> None:
    assert check(**GOOD) == Returning(LAPTOP, SVID.serial, SVID.not_after)


def test_one_whose_certificate_has_not_ended_by_policyd_s_clock_is_no_liar() -> None:
    early = NOW + timedelta(minutes=59)
    at = int(early.timestamp())
    assert check(**(GOOD | {"now": early, "at": at, "signature": signed(at=at)})).spiffe_id == LAPTOP


WORKLOADS = AUTHORITY.sign(REVIEWS, KEY.public_key(), now=NOW, random=os.urandom)
STRANGE = an_authority().sign(LAPTOP, KEY.public_key(), now=NOW, random=os.urandom)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signature": signed(OTHER)}, "is not signed by the certificate's key"),
        ({"signature": b""}, "is not signed by the certificate's key"),
        ({"signature": b"x" * 100_000}, "is not signed by the certificate's key"),
        ({"csr": a_csr()}, "is not signed by the certificate's key"),  # another's key under a copied word
        ({"at": int(LATER.timestamp()) + 1}, "is not signed by the certificate's key"),
        ({"at": int(LATER.timestamp()) - 121}, "the agent's clock is 121 s behind policyd's"),
        ({"at": int(LATER.timestamp()) + 600}, "the agent's clock is 600 s ahead of policyd's"),
        ({"at": -(1 << 63)}, "behind policyd's"),
        ({"within": timedelta(hours=3)}, "more than 3:00:00 ago"),
        ({"within": timedelta()}, "more than 0:00:00 ago"),
        ({"roots": an_authority().roots}, "does not chain to the bundle"),
        ({"roots": ()}, "no root vouches for"),
        ({"trust_domain": "partner.org"}, "is not of the trust domain `partner.org`"),
        ({"chain": ()}, "a certificate chain has 1 to 8 certificates, this one 0"),
        ({"chain": SVID.chain[:1] * 9}, "this one 9"),
        ({"chain": (b"junk",)}, "a certificate cannot be read"),
        ({"chain": (b"\0" * 20_000,)}, "at most 16384 bytes"),
        ({"chain": SVID.chain[:1]}, "does not chain to the bundle"),
        ({"chain": SVID.chain[1:]}, "a trust domain's own identity"),
        ({"chain": WORKLOADS.chain, "signature": signed(leaf=WORKLOADS.chain[0])}, "is no agent"),
        ({"chain": STRANGE.chain, "signature": signed(leaf=STRANGE.chain[0])}, "does not chain to the bundle"),
    ],
)
def test_anybody_else_does_not_come_back(change: dict[str, Any], message: str) -> None:
    with pytest.raises(IdentityError) as caught:
        check(**(GOOD | change))
    assert message in str(caught.value)


def test_what_is_signed_says_for_which_certificate_and_which_next_one() -> None:
    leaf = SVID.leaf.public_bytes(Encoding.DER)
    words = {to_sign(leaf, CSR, 1), to_sign(leaf, CSR, 2), to_sign(leaf, b"", 1), to_sign(b"", CSR, 1)}
    assert len(words) == 4
