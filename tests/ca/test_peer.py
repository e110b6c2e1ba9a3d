"""A caller is what its certificate says over TLS 1.3, or nobody."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from policyd.ca.peer import CERTIFICATE, Peer, address_of, peer_of
from policyd.errors import IdentityError
from policyd.peer import TLS_VERSION
from tests.ca.samples import LAPTOP, NOW, a_key, an_authority

AUTHORITY = an_authority()
SVID = AUTHORITY.sign(LAPTOP, a_key().public_key(), now=NOW, random=os.urandom)
PEM = SVID.leaf.public_bytes(Encoding.PEM)
GOOD = {TLS_VERSION: [b"TLSv1.3"], CERTIFICATE: [PEM]}


def test_the_caller_is_what_its_certificate_says() -> None:
    assert peer_of(GOOD, NOW) == Peer(LAPTOP, NOW + timedelta(hours=1), SVID.serial)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({TLS_VERSION: [b"TLSv1.2"]}, "does not speak TLS 1.3"),
        ({TLS_VERSION: []}, "does not speak TLS 1.3"),
        ({TLS_VERSION: [b"TLSv1.3", b"TLSv1.2"]}, "does not speak TLS 1.3"),
        ({CERTIFICATE: []}, "bears no client certificate"),
        ({CERTIFICATE: [PEM, PEM]}, "bears no client certificate"),
        ({CERTIFICATE: [b"junk"]}, "cannot be read"),
        ({CERTIFICATE: [AUTHORITY.intermediate.public_bytes(Encoding.PEM)]}, "a leaf's has a path"),
    ],
)
def test_anything_less_is_nobody(change: dict[str, list[bytes]], message: str) -> None:
    with pytest.raises(IdentityError) as caught:
        peer_of(GOOD | change, NOW)
    assert message in caught.value.message


def test_a_certificate_that_ended_is_nobody_s() -> None:
    with pytest.raises(
        IdentityError, match=r"the client's certificate ended at 2026-11-23T13:00:00Z, .*; connect anew"
    ):
        peer_of(GOOD, NOW + timedelta(hours=1, seconds=1))


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:50000", "127.0.0.1"),
        ("ipv6:%5B::1%5D:50000", "::1"),
        ("ipv6:[fe80::1%25eth0]:1", "fe80::1"),
        ("unix:/tmp/socket", ""),
        ("", ""),
    ],
)
def test_the_address_is_read_from_grpc_s_name_of_the_peer(peer: str, address: str) -> None:
    assert address_of(peer) == address
