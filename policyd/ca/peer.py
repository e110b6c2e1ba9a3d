"""Who called, and until when: the whole certificate of a connection, as gRPC hands it over after the handshake.

Law: beyond policyd.peer, a connection may outlive its certificate, so the end is checked at each call.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from policyd.ca.check import read_identity
from policyd.errors import IdentityError
from policyd.peer import Facts, check_tls
from policyd.spiffe import SpiffeId
from policyd.svid.clocks import check_times

CERTIFICATE: Final = "x509_pem_cert"


@dataclass(frozen=True, slots=True)
class Peer:
    """A verified caller, until when its certificate holds, and its serial number as the ledger has it."""

    spiffe_id: SpiffeId
    not_after: datetime
    serial: str = ""


def peer_of(facts: Facts, now: datetime) -> Peer:
    """Who is at the other end of a mutual TLS connection; raises IdentityError where that is not clear."""
    check_tls(facts)
    certificates = tuple(facts.get(CERTIFICATE, ()))
    if len(certificates) != 1:
        raise IdentityError("this connection bears no client certificate")
    peer = _read(bytes(certificates[0]))
    check_times("the client's certificate", None, peer.not_after, now, old="connect anew")
    return peer


@lru_cache(maxsize=4096)
def _read(pem: bytes) -> Peer:
    """Whom a certificate names: the same few come again and again, and TLS has verified each."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IdentityError("the client's certificate cannot be read") from error
    return Peer(read_identity(certificate), certificate.not_valid_after_utc, f"{certificate.serial_number:032x}")


def address_of(peer: str) -> str:
    """The IP address in gRPC's name of a peer (`ipv4:127.0.0.1:50000`, `ipv6:%5B::1%5D:50000`), or ""."""
    kind, _, rest = peer.partition(":")
    host = rest.rpartition(":")[0]
    if kind == "ipv6":
        return host.replace("%5B", "").replace("%5D", "").strip("[]").partition("%")[0]
    return host if kind == "ipv4" else ""


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """What one who asks may change at will counts as one: of IPv6 the network of 64 bits, else the address itself."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if ip.version == 4 else str(ipaddress.IPv6Network((int(ip), 64), strict=False))
