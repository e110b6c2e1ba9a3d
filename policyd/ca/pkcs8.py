"""Private keys as PEM: plain PKCS#8, or encrypted under a passphrase (PBES2 with scrypt and AES-256-CBC).

Law: the form is the standard one (RFC 5958, RFC 8018, RFC 7914 section 7), so that `openssl pkcs8` reads
it. It is written here because the library's own encryption derives the key by PBKDF2 in 2048 rounds, which
guesses cheaply.
"""

from __future__ import annotations

import base64
from textwrap import wrap
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from policyd.ca.template import Random
from policyd.errors import KeyFileError

ENCRYPTED: Final = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"

# 16 MiB and about a quarter of a second a guess; a larger cost would pass the limit that openssl sets itself
_COST, _BLOCK, _PARALLEL = 1 << 14, 8, 5
_PBES2: Final = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT: Final = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC: Final = bytes.fromhex("060960864801650304012a")


def write_key(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None, random: Random) -> bytes:
    """PEM of `key`, encrypted where there is a `passphrase`."""
    if passphrase is None:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return _encrypt(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), passphrase, random)


def is_encrypted(pem: bytes) -> bool:
    """Is a passphrase needed to read `pem`?"""
    return pem.lstrip().startswith(ENCRYPTED)


def read_key(pem: bytes, passphrase: bytes | None) -> ec.EllipticCurvePrivateKey:
    """The elliptic key in `pem`; raises KeyFileError, which does not name the file."""
    encrypted = is_encrypted(pem)
    if encrypted and passphrase is None:
        raise KeyFileError("the key is encrypted", remedy="set the file that holds its passphrase")
    try:
        key = load_pem_private_key(pem, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        why = "the passphrase is wrong, or the key is damaged" if encrypted else "the key is damaged"
        raise KeyFileError(why, remedy="restore it from a copy") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyFileError("the key is not an elliptic one", remedy="restore it from a copy")
    return key


def _encrypt(plain: bytes, passphrase: bytes, random: Random) -> bytes:
    salt, vector = random(16), random(16)
    secret = Scrypt(salt=salt, length=32, n=_COST, r=_BLOCK, p=_PARALLEL).derive(passphrase)
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(secret), modes.CBC(vector)).encryptor()
    sealed = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    numbers = _integer(_COST) + _integer(_BLOCK) + _integer(_PARALLEL)
    derivation = _sequence(_SCRYPT + _sequence(_octets(salt) + numbers))
    scheme = _sequence(_AES_256_CBC + _octets(vector))
    return _pem(_sequence(_sequence(_PBES2 + _sequence(derivation + scheme)) + _octets(sealed)))


def _pem(der: bytes) -> bytes:
    lines = wrap(base64.b64encode(der).decode("ascii"), 64)
    return "\n".join([ENCRYPTED.decode(), *lines, ENCRYPTED.decode().replace("BEGIN", "END"), ""]).encode()


def _der(tag: int, body: bytes) -> bytes:
    if len(body) < 128:
        return bytes((tag, len(body))) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body


def _sequence(body: bytes) -> bytes:
    return _der(0x30, body)


def _octets(body: bytes) -> bytes:
    return _der(0x04, body)


def _integer(number: int) -> bytes:
    return _der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))
