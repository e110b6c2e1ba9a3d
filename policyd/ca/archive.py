"""The whole authority in one file: all of its folder, sealed under a passphrase (scrypt, AES-256-GCM).

Law: nothing of it can be read, or changed unseen, without the passphrase; what stands in front says only how to open
it. Keys lie in it as they lie in the folder: encrypted twice, where they are encrypted there.
"""

from __future__ import annotations

import base64
import re
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from policyd.ca.template import Random
from policyd.errors import KeyFileError, StateError

FORMAT: Final = 1
MAX_BYTES: Final = 8 << 20
LEAST_PASSPHRASE: Final = 12  # bytes; whoever finds the file may guess as long as they like
_COST, _BLOCK, _PARALLEL = 1 << 15, 8, 3
_SALT, _NONCE, _KEY = 16, 12, 32
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    policyd_authority: int
    salt: str
    nonce: str
    sealed: str


class Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is sealed: the trust domain, when it was written (RFC 3339), and the files by name."""

    trust_domain: str
    written: str
    files: dict[str, bytes]


def seal(contents: Contents, passphrase: bytes, random: Random) -> bytes:
    """The file; raises KeyFileError for a passphrase that is guessed too soon."""
    if len(passphrase) < LEAST_PASSPHRASE:
        raise KeyFileError(
            f"the passphrase of an export has at least {LEAST_PASSPHRASE} bytes", remedy="choose a longer one"
        )
    salt, nonce = random(_SALT), random(_NONCE)
    plain = msgspec.json.encode(contents)
    sealed = AESGCM(_key(passphrase, salt)).encrypt(nonce, plain, _bound(salt))
    file = _Sealed(FORMAT, *(base64.b64encode(one).decode() for one in (salt, nonce, sealed)))
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def unseal(file: bytes, passphrase: bytes) -> Contents:
    """What was sealed; raises StateError for what is no such file, KeyFileError for another passphrase."""
    try:
        found = msgspec.json.decode(file, type=_Sealed)
        salt, nonce, sealed = (base64.b64decode(one, validate=True) for one in (found.salt, found.nonce, found.sealed))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StateError("this is no exported authority", remedy="`policyd ca export` writes one") from error
    if found.policyd_authority != FORMAT:
        raise StateError("this was exported by a newer version of policyd", remedy="import it with that version")
    if (len(salt), len(nonce)) != (_SALT, _NONCE):
        raise StateError("this is no exported authority", remedy="`policyd ca export` writes one")
    try:
        plain = AESGCM(_key(passphrase, salt)).decrypt(nonce, sealed, _bound(salt))
    except InvalidTag as error:
        raise KeyFileError("the passphrase is wrong, or the file is damaged", remedy="use another copy") from error
    return _checked(msgspec.json.decode(plain, type=Contents))


def _checked(contents: Contents) -> Contents:
    """Whoever knows the passphrase may still write nowhere but into the authority's folder."""
    for name in contents.files:
        if not _NAME.fullmatch(name):
            raise StateError(f"`{name[:80]}` is no file of an authority")
    return contents


def _key(passphrase: bytes, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=_KEY, n=_COST, r=_BLOCK, p=_PARALLEL).derive(passphrase)


def _bound(salt: bytes) -> bytes:
    return b"policyd authority %d " % FORMAT + salt
