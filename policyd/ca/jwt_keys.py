"""The keys that sign JWT-SVIDs, over time, as a value: prepared, published, signing, gone.

Law: pure. A key signs only after it was published for as long as verifiers may take to hear of it (the very first
has nobody to wait for), and not while an agent has not confirmed the bundle that it is in, unless an operator names it.
It stays published until the last token that it may have signed has ended. `sequence` grows with every change of what is
published.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from policyd.errors import RotationError
from policyd.svid.bundle import REFRESH_HINT, JwtKey

LIFE: Final = timedelta(days=7)  # of one key's turn
PREPARE: Final = 0.5  # of its life: then the next one is published
ACTIVATE: Final = 5 / 6  # of its life: then the next one signs
LEAD: Final = timedelta(seconds=3 * REFRESH_HINT)  # published before it signs, at least
LONGEST: Final = timedelta(hours=1)  # of a token
ALLOWANCE: Final = timedelta(minutes=2)  # for clocks that differ
PUT_OFF: Final = timedelta(minutes=1)  # while somebody is waited for

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

    def prepared(self, now: datetime) -> SigningKey | None:
        """The one that is published and does not sign yet."""
        return self.keys[-1] if self.keys and self.keys[-1].signs > now and len(self.keys) > 1 else None

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
    return _published(held, kept, now)


def guarded(held: JwtKeys, waiting: Mapping[str, str], now: datetime) -> JwtKeys:
    """A key whose time comes is put off while somebody `waiting` does not know it; the same value otherwise."""
    coming = held.prepared(now)
    if coming is None or not waiting or coming.signs - now > PUT_OFF / 2:
        return held
    later = replace(coming, signs=now.replace(microsecond=0) + PUT_OFF)
    return replace(held, keys=(*held.keys[:-1], later))


def prepare(held: JwtKeys, now: datetime, make: Callable[[], PrivateKey]) -> JwtKeys:
    """Publish a next key before its time; it signs when its time comes, or is activated."""
    if held.prepared(now) is not None:
        raise RotationError(
            "a key of tokens is prepared already", remedy="the next step is `activate token`, or `abort token`"
        )
    made = _new(make(), now, max(held.keys[-1].signs + LIFE * ACTIVATE, now + LEAD))
    return _published(held, (*held.keys, made), now)


def activate(
    held: JwtKeys, waiting: Mapping[str, str], now: datetime, *, without: Collection[str] = (), early: bool = False
) -> JwtKeys:
    """Let the prepared key sign now; `early`: although verifiers that nobody knows of may not have asked for it yet."""
    coming = held.prepared(now)
    if coming is None:
        raise RotationError("no key of tokens is prepared", remedy="begin with `prepare token`")
    behind = sorted(set(waiting) - set(without))
    if behind:
        raise RotationError(
            f"`{behind[0]}` does not know the new key of tokens yet: {waiting[behind[0]]}",
            remedy="wait for it, or name it with --without",
        )
    if now < coming.published + LEAD and not early:
        raise RotationError(
            f"verifiers elsewhere may not have asked for it before {coming.published + LEAD:%FT%TZ}",
            remedy="wait, or give --early if there are none",
        )
    return replace(held, keys=(*held.keys[:-1], replace(coming, signs=now.replace(microsecond=0))))


def revoke(held: JwtKeys, now: datetime) -> JwtKeys:
    """Forget the keys that signed before: their tokens, minutes old at most, are good no more."""
    signing = held.signing(now)
    kept = tuple(one for one in held.keys if one is signing or one.signs > now)
    if kept == held.keys:
        raise RotationError(
            "no key of tokens but the one that signs is published", remedy="prepare and activate another"
        )
    return _published(held, kept, now)


def abort(held: JwtKeys, now: datetime) -> JwtKeys:
    """Forget the prepared key, which has signed nothing."""
    if held.prepared(now) is None:
        raise RotationError("no key of tokens is prepared")
    return _published(held, held.keys[:-1], now)


def _published(held: JwtKeys, keys: tuple[SigningKey, ...], now: datetime) -> JwtKeys:
    return replace(held, keys=keys, sequence=max(held.sequence + 1, int(now.timestamp())))


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
