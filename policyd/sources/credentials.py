"""Reads the certificates and keys below `credentials/`, and looks at what may be the value of a header.

Law: of a private key nothing is kept but the hash of its public key, of a header's value only when it was written; one
that others may read is refused.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from policyd.mesh.credentials import FOLDER, CredentialFile
from policyd.sources.reading import reason

MAX_FILES: Final = 1000
MAX_BYTES: Final = 262_144
OTHERS: Final = 0o077
_CHMOD: Final = "`chmod 600` it (it has {:o}), and consider it known"
LEAST_BITS: Final = 2048  # of RSA; Envoy takes no less
CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_TAKEN: Final = "proxies take RSA from 2,048 bits on, and ECDSA over P-256, P-384 or P-521"
MAX_VALUE: Final = 4096
_VALUE: Final = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,%d}[\x21-\x7e])?" % (MAX_VALUE - 2))
_LISTS: Final = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----\n?", re.DOTALL)


def credential_paths(directory: Path) -> Iterator[str]:
    """Yield the files below `credentials/`, at most two folders deep, by path in `directory`."""
    found = sorted((*(directory / FOLDER).glob("*"), *(directory / FOLDER).glob("*/*")))
    files = (path for path in found if not path.name.startswith((".", "..")) and not path.is_dir())
    for _, path in zip(range(MAX_FILES), files, strict=False):
        yield str(path.relative_to(directory))


def credential_folders(directory: Path) -> Iterator[Path]:
    """Yield `credentials/` and the folders in it."""
    yield directory / FOLDER
    yield from sorted(path for path in (directory / FOLDER).glob("*") if path.is_dir())


def read_credentials(directory: Path, now: datetime | None = None) -> dict[str, CredentialFile]:
    """Read them all; what is wrong with one is told where a Gateway names it. `now` None is the system's time."""
    now = now or datetime.now(UTC)
    files = (CredentialFile(path, str((directory / path).absolute())) for path in credential_paths(directory))
    return {file.path: _read(file, now) for file in files}


def _read(file: CredentialFile, now: datetime) -> CredentialFile:
    try:
        descriptor = os.open(file.place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
                return replace(
                    file, problem="is no file of certificates", remedy=f"one has at most {MAX_BYTES:,} bytes"
                )
            data = opened.read(MAX_BYTES)
    except OSError as error:
        return replace(file, problem=f"cannot be read: {reason(error)}", remedy="check owner and mode")
    if b"BEGIN X509 CRL-----" in data:
        return _lists(file, data, now)
    if b"-----BEGIN" not in data:
        return _value(_certificates(file, data, now), data, status)
    if b"PRIVATE KEY-----" not in data:
        return _certificates(file, data, now)
    if status.st_mode & OTHERS:
        remedy = _CHMOD.format(stat.S_IMODE(status.st_mode))
        return replace(file, is_key=True, problem="holds a private key that others may read", remedy=remedy)
    return _key(file, data)


def _value(file: CredentialFile, data: bytes, status: os.stat_result) -> CredentialFile:
    """What is no certificate may prove to a collector who sends; proxies take it as it stands."""
    unfit = ""
    if status.st_mode & OTHERS:
        unfit = f"can be read by others; {_CHMOD.format(stat.S_IMODE(status.st_mode))}"
    elif not _VALUE.fullmatch(data):
        unfit = (
            f"is no value of a header; write at most {MAX_VALUE:,} characters and no line's end, as `printf %s` does"
        )
    return replace(file, writing=f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}", unfit=unfit)


def _key(file: CredentialFile, data: bytes) -> CredentialFile:
    try:
        public = load_pem_private_key(data, None).public_key()
    except TypeError:
        return replace(file, is_key=True, problem="is a key with a passphrase", remedy="take the passphrase off")
    except (ValueError, UnsupportedAlgorithm):
        return replace(file, is_key=True, problem="is no private key that can be read", remedy="write it as PEM")
    if problem := _weakness(public):
        return replace(file, is_key=True, problem=problem, remedy=_TAKEN)
    return replace(
        file, is_key=True, public=_hash(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    )


def _certificates(file: CredentialFile, data: bytes, now: datetime) -> CredentialFile:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd but usable certificates; Envoy has the last word
            found = x509.load_pem_x509_certificates(data)
            key = found[0].public_key()
            public = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, IndexError, UnsupportedAlgorithm):
        return replace(file, problem="has no certificate that can be read", remedy="write it as PEM")
    text = "".join(one.public_bytes(Encoding.PEM).decode() for one in found)
    end = found[0].not_valid_after_utc
    ended = end if end <= now else None
    return replace(file, text=text, public=_hash(public), algorithm=_algorithm(key), ended=ended, ends=end)


def _lists(file: CredentialFile, data: bytes, now: datetime) -> CredentialFile:
    """The lists of revoked certificates, one after the other; of a list that ended Envoy believes no certificate."""
    try:
        found = [x509.load_pem_x509_crl(one) for one in _LISTS.findall(data)]
        ends = [one.next_update_utc for one in found]
        text = "".join(one.public_bytes(Encoding.PEM).decode() for one in found)
    except (ValueError, UnsupportedAlgorithm):
        return replace(file, is_list=True, problem="has no list of revoked certificates", remedy="write it as PEM")
    if not found:
        return replace(file, is_list=True, problem="has no list of revoked certificates", remedy="write it as PEM")
    end = min((end for end in ends if end is not None), default=None)
    return replace(file, is_list=True, text=text, ended=end if end is not None and end <= now else None, ends=end)


def _weakness(key: object) -> str:
    """Why Envoy would not take a key; it says so once, and is silent when it is told again."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"is an RSA key of {key.key_size} bits" if key.key_size < LEAST_BITS else ""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "" if isinstance(key.curve, CURVES) else f"is a key over the curve {key.curve.name}"
    return "is neither a key for RSA nor one for ECDSA"


def _algorithm(key: object) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        return "RSA"
    return "ECDSA" if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__


def _hash(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()
