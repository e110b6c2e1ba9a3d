"""A caller is what its certificate says over TLS 1.3, or nobody."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from policyd.ca.database import open_database
from policyd.ca.peer import CERTIFICATE, Peer, address_of, network_of, peer_of
from policyd.ca.serving.attestation import AttestationService
from policyd.ca.serving.refusals import Refusal
from policyd.ca.tokens import Tokens
from policyd.errors import IdentityError
from policyd.peer import TLS_VERSION
from policyd.rate import Rate
from tests.ca.samples import LAPTOP, NOW, Office, a_key, an_authority

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


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("", ""),
    ],
)
def test_addresses_that_one_may_change_at_will_count_as_one(address: str, network: str) -> None:
    assert network_of(address) == network


class Caller:
    """A call over TLS from an address."""

    def __init__(self, address: str) -> None:
        self._address = address

    def auth_context(self) -> Any:
        """TLS 1.3, and nothing else."""
        return {TLS_VERSION: [b"TLSv1.3"]}

    def peer(self) -> str:
        """As gRPC names it."""
        return f"ipv6:%5B{self._address}%5D:50000"


def test_who_has_a_whole_network_to_call_from_has_no_more_tries_than_others(tmp_path: Path) -> None:
    database = open_database(tmp_path / "tokens.db")
    once = Rate(per_second=0.0, burst=1)
    service = AttestationService(Office().issuer, Tokens(database), agents_address="", clock=lambda: 0.0, rate=once)
    assert service._admit(Caller("2001:db8::1")) == "2001:db8::1"
    assert service._admit(Caller("2001:db8:0:1::1")) == "2001:db8:0:1::1"
    with pytest.raises(Refusal, match="too many attempts"):
        service._admit(Caller("2001:db8::2"))
    database.close()
