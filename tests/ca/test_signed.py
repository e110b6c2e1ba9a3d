"""A leaf of a form that has passed before is refused for all that a leaf of a new form is refused for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from policyd.ca.signed import Ordered, check_signed
from policyd.errors import IdentityError
from tests.ca.samples import DOMAIN, NOW, RATINGS, REVIEWS, a_key, an_authority
from tests.ca.test_check import AUTHORITY, BROKEN, LEAF_KEY, Draft

ORDERED = Ordered(REVIEWS, LEAF_KEY.public_key())
LEAF = Draft().sign().public_bytes(Encoding.DER)


@pytest.fixture(autouse=True)
def seen() -> None:
    """A good leaf of the form has passed."""
    check(Draft().sign())


def check(leaf: x509.Certificate, ordered: Ordered = ORDERED, now: datetime = NOW) -> None:
    check_signed(leaf.public_bytes(Encoding.DER), AUTHORITY.intermediate, ordered, DOMAIN, now)


@pytest.mark.parametrize("draft", [row[1] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_what_is_broken_is_refused_beside_what_is_good(draft: Draft) -> None:
    leaf = draft.sign()
    with pytest.raises(IdentityError):
        check(leaf, replace(ORDERED, key=draft.key))


def other_key(leaf: x509.Certificate) -> Ordered:
    return replace(ORDERED, key=a_key().public_key())


def other_kind_of_key(leaf: x509.Certificate) -> Ordered:
    return replace(ORDERED, key=rsa.generate_private_key(65537, 2048).public_key())


def other_identity(leaf: x509.Certificate) -> Ordered:
    return replace(ORDERED, spiffe_id=RATINGS)


def other_names(leaf: x509.Certificate) -> Ordered:
    return replace(ORDERED, dns_names=("policyd",))


@pytest.mark.parametrize(
    ("order", "why"),
    [
        (other_key, "holds another key"),
        (other_kind_of_key, "holds another key"),
        (other_identity, "bears another identity"),
        (other_names, "bears other DNS names"),
    ],
)
def test_what_was_not_ordered_is_refused(order: Callable[[x509.Certificate], Ordered], why: str) -> None:
    leaf = Draft().sign()
    with pytest.raises(IdentityError, match=why):
        check(leaf, order(leaf))


@pytest.mark.parametrize("now", [NOW - timedelta(seconds=1), NOW + timedelta(hours=1, seconds=1)])
def test_a_leaf_of_another_time_is_refused(now: datetime) -> None:
    with pytest.raises(IdentityError, match=r"the certificate (begins|ended) at"):
        check(Draft().sign(), now=now)


@given(st.data())
def test_no_bit_of_a_signed_leaf_may_differ(data: st.DataObject) -> None:
    """Also where the library reads it as a certificate still, it is refused here, whichever bit it is."""
    der = bytearray(LEAF)
    der[data.draw(st.integers(0, len(der) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(IdentityError):
        check_signed(bytes(der), AUTHORITY.intermediate, ORDERED, DOMAIN, NOW)


def test_a_form_is_of_one_issuer() -> None:
    """What an authority signed is not good for another one, though all else is the same."""
    with pytest.raises(IdentityError):
        check_signed(LEAF, an_authority().intermediate, ORDERED, DOMAIN, NOW)


def test_each_of_many_leaves_is_checked() -> None:
    signed = [AUTHORITY.sign(REVIEWS, ORDERED.key, now=NOW, random=os.urandom) for _ in range(3)]
    assert len({one.serial for one in signed}) == 3
