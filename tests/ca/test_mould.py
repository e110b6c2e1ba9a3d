"""What is cast is, byte for byte, what the library would have encoded; where it cannot be, the library encodes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from policyd.ca import mould, template
from policyd.ca.template import PublicKey, Validity
from policyd.spiffe import SpiffeId
from tests.ca.samples import DOMAIN, NOW, REVIEWS, an_authority

AUTHORITY = an_authority()
KEYS: list[PublicKey] = [
    ec.generate_private_key(ec.SECP256R1()).public_key(),
    ec.generate_private_key(ec.SECP384R1()).public_key(),
    rsa.generate_private_key(65537, 2048).public_key(),
    rsa.generate_private_key(65537, 4096).public_key(),
]
SECOND = timedelta(seconds=1)


def both(
    key: PublicKey, life: Validity, serial: int, spiffe_id: SpiffeId = REVIEWS, names: tuple[str, ...] = ()
) -> tuple[x509.Certificate, x509.Certificate]:
    """A leaf as it is cast, and as the library makes it."""
    order = template.leaf(AUTHORITY.intermediate, spiffe_id, key, life, serial, names)
    made = order.sign(AUTHORITY.key, hashes.SHA256())
    cast = mould.leaf(AUTHORITY.intermediate, spiffe_id, key, life, serial, AUTHORITY.key, names)
    return x509.load_der_x509_certificate(cast), made


@given(
    key=st.sampled_from(KEYS),
    serial=st.integers(1, (1 << 128) - 1),
    begins=st.integers(-(10**8), 10**8),
    lasts=st.integers(1, 86_400),
    path=st.lists(st.from_regex(r"[a-z]{1,9}", fullmatch=True), min_size=1, max_size=9),
    names=st.sampled_from([(), ("policyd",), ("a.example", "b.example")]),
)
def test_a_leaf_is_what_the_library_would_have_encoded(
    key: PublicKey, serial: int, begins: int, lasts: int, path: list[str], names: tuple[str, ...]
) -> None:
    start = NOW + begins * SECOND
    spiffe_id = SpiffeId(DOMAIN, "/" + "/".join(path))
    cast, made = both(key, Validity(start, start + lasts * SECOND), serial, spiffe_id, names)
    assert cast.tbs_certificate_bytes == made.tbs_certificate_bytes
    cast.verify_directly_issued_by(AUTHORITY.intermediate)


@pytest.mark.parametrize("serial", [1, 0x7F, 0x80, 0xFF, 1 << 64, (1 << 127) - 1, 1 << 127, (1 << 128) - 1])
def test_serial_numbers_of_every_length_are_encoded(serial: int) -> None:
    cast, made = both(KEYS[0], Validity(NOW, NOW + SECOND), serial)
    assert (cast.serial_number, cast.tbs_certificate_bytes) == (serial, made.tbs_certificate_bytes)


@pytest.mark.parametrize("ends", [datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)])
def test_a_life_beyond_2049_is_written_in_another_form(ends: datetime) -> None:
    cast, made = both(KEYS[0], Validity(NOW, ends), 1)
    assert (cast.not_valid_after_utc, cast.tbs_certificate_bytes) == (ends, made.tbs_certificate_bytes)
