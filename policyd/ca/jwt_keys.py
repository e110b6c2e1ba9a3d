"""The keys that sign JWT-SVIDs, over time, as a value: prepared, published, signing, gone.

Law: pure. A key signs only after it was published for as long as verifiers may take to hear of it (the very first
has nobody to wait for), and stays published until the last token that it may have signed has ended. `sequence` grows
with every change of what is published.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from policyd.svid.bundle import REFRESH_HINT, JwtKey

LIFE: Final = timedelta(days=7)  # of one key's turn
PREPARE: Final = 0.5  # of its life: then the next one is published
ACTIVATE: Final = 5 / 6  # of its life: then the next one signs
LEAD: Final = timedelta(seconds=3 * REFRESH_HINT)  # published before it signs, at least
LONGEST: Final = timedelta(hours=1)  # of a token
ALLOWANCE: Final = timedelta(minutes=2)  # for clocks that differ

PrivateKey = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A P-256 key, since when it is published, and since when it signs; both in UTC."""

    key: PrivateKey = field(repr=False, compare=False)
    kid: str
    published: datetime
    signs: datetime

    @property
    def public(self) -> JwtKey:
        """What verifiers get of it."""
        return JwtKey(self.kid, self.key.public_key())


@dataclass(frozen=True, slots=True)
class JwtKeys:
    """All published keys, the one that signs earliest first; never empty once turned."""

    keys: tuple[SigningKey, ...] = ()
    sequence: int = 0

    def signing(self, now: datetime) -> SigningKey:
        """The newest of those that may sign at `now`."""
        return [self.keys[0], *(key for key in self.keys if key.signs <= now)][-1]

    @property
    def public(self) -> tuple[JwtKey, ...]:
        """What verifiers get."""
        return tuple(key.public for key in self.keys)


def turn(held: JwtKeys, now: datetime, make: Callable[[], PrivateKey]) -> JwtKeys:
    """What is held at `now`: a next key where it is time to publish one, without those of which no token is left."""
    kept = tuple(key for at, key in enumerate(held.keys) if not _over(held.keys[at + 1 :], now))
    if not kept:
        kept = (_new(make(), now, now),)
    elif kept[-1].signs <= now and now >= kept[-1].signs + LIFE * PREPARE:
        kept = (*kept, _new(make(), now, max(kept[-1].signs + LIFE * ACTIVATE, now + LEAD)))
    if kept == held.keys:
        return held
    return replace(held, keys=kept, sequence=max(held.sequence + 1, int(now.timestamp())))


def key_id(key: PrivateKey) -> str:
    """The name of a key: part of a hash of its public half, so that no two keys share one."""
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(public).hexdigest()[:32]


def _over(later: tuple[SigningKey, ...], now: datetime) -> bool:
    """Has a key that these followed signed nothing that is still good?"""
    return bool(later) and now >= later[0].signs + LONGEST + ALLOWANCE


def _new(key: PrivateKey, published: datetime, signs: datetime) -> SigningKey:
    published, signs = (moment.replace(microsecond=0) for moment in (published, signs))
    return SigningKey(key, key_id(key), published, signs)
