"""The keys of JWT-SVIDs at rest, and in use: one file beside the authority's, replaced whole.

Law: a change is on the disk before anybody is told of it, so that after a crash no token bears a key that is lost.
The keys lie there as the authority's do: mode 0600, encrypted where there is a passphrase.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from policyd.ca import jwt_keys
from policyd.ca.files import read_secret, write_secret
from policyd.ca.jwt_keys import JwtKeys, SigningKey, key_id, turn
from policyd.ca.pkcs8 import is_encrypted, read_key, write_key
from policyd.ca.template import Random
from policyd.errors import KeyFileError, RotationError, StateError

FILE: Final = "jwt.json"
FORMAT: Final = 1
_ANEW: Final = "restore it from a copy, or remove it: tokens that are under way are then refused"


class _Key(msgspec.Struct, frozen=True):
    key: str
    published: datetime
    signs: datetime


class _File(msgspec.Struct, frozen=True):
    format: int
    sequence: int
    keys: list[_Key]


@dataclass(slots=True)
class JwtKeyStore:
    """The keys of the authority in `folder`; `turn` when time has passed, `keys` at any moment, from any thread."""

    folder: Path
    clock: Callable[[], datetime]
    random: Random = field(repr=False)
    passphrase: bytes | None = field(default=None, repr=False)
    _held: JwtKeys = field(default_factory=JwtKeys)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Read what is there; raises StateError or KeyFileError."""
        path = self.folder / FILE
        if path.exists() or path.is_symlink():
            self._held, plain = _read(path, self.passphrase)
            if plain and self.passphrase is not None:
                self._write(self._held)
        self.turn()

    @property
    def keys(self) -> JwtKeys:
        """What is published and signs."""
        return self._held

    def signing(self) -> SigningKey:
        """The key that signs now."""
        return self._held.signing(self.clock())

    def step(
        self,
        step: str,
        waiting: Mapping[str, str],
        record: Callable[[JwtKeys], object],
        *,
        without: Collection[str] = (),
        early: bool = False,
    ) -> None:
        """Make an operator's step, once `record` is done; raises RotationError where it does not follow, StateError."""
        with self._lock:
            now, held = self.clock(), self._held
            match step:
                case "prepare":
                    made = jwt_keys.prepare(held, now, _make)
                case "activate":
                    made = jwt_keys.activate(held, waiting, now, without=without, early=early)
                case "revoke":
                    made = jwt_keys.revoke(held, now)
                case "abort":
                    made = jwt_keys.abort(held, now)
                case _:
                    remedy = "one of `prepare`, `activate`, `revoke`, `abort`"
                    raise RotationError(f"`{step[:40]} token` is no step of a rotation", remedy=remedy)
            record(made)
            self._write(made)
            self._held = made

    def turn(self, waiting: Mapping[str, str] | None = None) -> bool:
        """Prepare and drop what time demands; tell whether what is published changed. Raises StateError.

        A key whose time comes is put off while somebody `waiting` does not know it yet.
        """
        with self._lock:
            now = self.clock()
            held = jwt_keys.guarded(self._held, waiting or {}, now)
            turned = turn(held, now, _make)
            if turned is not self._held and turned.sequence == self._held.sequence:
                self._write(turned)
                self._held = turned
                return False
            if turned is self._held:
                return False
            self._write(turned)
            self._held = turned
            return True

    def _write(self, keys: JwtKeys) -> None:
        write_secret(self.folder / FILE, _written(keys, self.passphrase, self.random))


def _make() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _written(keys: JwtKeys, passphrase: bytes | None, random: Random) -> bytes:
    rows = [_Key(write_key(one.key, passphrase, random).decode(), one.published, one.signs) for one in keys.keys]
    return msgspec.json.format(msgspec.json.encode(_File(FORMAT, keys.sequence, rows)), indent=1)


def _read(path: Path, passphrase: bytes | None) -> tuple[JwtKeys, bool]:
    """The keys, and whether one of them lies there in plain text."""
    try:
        file = msgspec.json.decode(read_secret(path), type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StateError(f"`{path}` is broken", remedy=_ANEW) from error
    if file.format != FORMAT:
        raise StateError(f"`{path}` is of a newer version of policyd", remedy="start that version")
    try:
        keys = tuple(_key(row, passphrase) for row in file.keys)
    except KeyFileError as error:
        raise KeyFileError(f"`{path}`: {error.message}", remedy=error.remedy) from error
    if not all(one.published.tzinfo and one.signs.tzinfo for one in keys):
        raise StateError(f"`{path}` is broken", remedy=_ANEW)
    plain = any(not is_encrypted(row.key.encode()) for row in file.keys)
    return JwtKeys(tuple(sorted(keys, key=lambda one: one.signs)), file.sequence), plain


def _key(row: _Key, passphrase: bytes | None) -> SigningKey:
    key = read_key(row.key.encode(), passphrase)
    return SigningKey(key, key_id(key), row.published, row.signs)
