"""How an agent whose SVID has ended, while policyd was away, proves that it is who it was: by the key of that SVID.

Law: pure. What was ended is believed for a bounded time and by the roots of now; what is signed names the certificate,
the request for the next one and the moment, so that a copy of it gives nothing to anybody: the next certificate is for
the key of that request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from policyd.errors import IdentityError
from policyd.spiffe import SpiffeId
from policyd.svid.x509 import MAX_CHAIN, parse, verify

SKEW: Final = timedelta(minutes=2)
MAX_SIGNATURE: Final = 256  # bytes
_CONTEXT: Final = b"policyd: an agent comes back, 1\0"


@dataclass(frozen=True, slots=True)
class Returning:
    """Who comes back, with which certificate (its serial number as the ledger has it), and when that ended."""

    spiffe_id: SpiffeId
    serial: str
    ended: datetime


def to_sign(leaf: bytes, csr: bytes, at: int) -> bytes:
    """What the old key signs (ECDSA with SHA-256): `leaf` and `csr` in DER, `at` in seconds since the epoch."""
    return _CONTEXT + hashlib.sha256(leaf).digest() + hashlib.sha256(csr).digest() + at.to_bytes(8, "big", signed=True)


def check(
    chain: Sequence[bytes],
    csr: bytes,
    at: int,
    signature: bytes,
    *,
    roots: Sequence[x509.Certificate],
    trust_domain: str,
    now: datetime,
    within: timedelta,
) -> Returning:
    """Who comes back at `now`, at most `within` after its certificate ended; raises IdentityError."""
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise IdentityError(f"a certificate chain has 1 to {MAX_CHAIN} certificates, this one {len(chain)}")
    certificates = [parse(der) for der in chain]
    ended = certificates[0].not_valid_after_utc
    _check_clocks(at, now)
    if now - ended > within:
        raise IdentityError(
            f"the certificate ended at {ended:%FT%TZ}, more than {within} ago", remedy="join anew with a new token"
        )
    spiffe_id = verify(certificates, roots, trust_domain, min(now, ended - timedelta(seconds=1)))
    if spiffe_id.agent_name is None:
        raise IdentityError(f"`{spiffe_id}` is no agent")
    key = certificates[0].public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(signature[:MAX_SIGNATURE], to_sign(chain[0], csr, at), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise IdentityError("the request to come back is not signed by the certificate's key") from None
    return Returning(spiffe_id, f"{certificates[0].serial_number:032x}", ended)


def _check_clocks(at: int, now: datetime) -> None:
    apart = now.timestamp() - at
    if abs(apart) > SKEW.total_seconds():
        whose = "behind" if apart > 0 else "ahead of"
        raise IdentityError(
            f"the agent's clock is {round(abs(apart))} s {whose} policyd's, where it is {now:%FT%TZ}",
            remedy="set the clock that is wrong",
        )
