"""The authority's keys and certificates at rest, in a folder of their own.

Law: the folder appears whole or not at all, and what is there is never made anew: something missing, broken
or too open is an error that says what to do. With a passphrase no key lies there in plain text after the
first start.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from policyd.ca.authority import Material
from policyd.ca.files import ROOM, read_secret, sync_folder, write_new, write_secret
from policyd.ca.pkcs8 import is_encrypted, read_key, write_key
from policyd.ca.template import Random
from policyd.errors import KeyFileError, StateError

FOLDER: Final = "ca"
ROOT: Final = "root.pem"
ROOT_KEY: Final = "root.key"
INTERMEDIATE: Final = "intermediate.pem"
INTERMEDIATE_KEY: Final = "intermediate.key"
FILES: Final = (ROOT, ROOT_KEY, INTERMEDIATE, INTERMEDIATE_KEY)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was on disk; `encrypted_now` names the keys that were plain until this start."""

    material: Material
    encrypted_now: tuple[str, ...] = ()


def exists(state: Path) -> bool:
    """Is there anything of an authority in the state folder, however broken?"""
    return os.path.lexists(state / FOLDER)


def create(state: Path, material: Material, passphrase: bytes | None, random: Random) -> None:
    """Write a new authority into `state`, all or nothing; raises StateError, also where there is one."""
    contents = {
        ROOT: material.root.public_bytes(Encoding.PEM),
        ROOT_KEY: write_key(_ours(material), passphrase, random),
        INTERMEDIATE: material.intermediate.public_bytes(Encoding.PEM),
        INTERMEDIATE_KEY: write_key(material.intermediate_key, passphrase, random),
    }

    def write(folder: Path) -> None:
        for name, content in contents.items():
            write_new(folder / name, content)

    create_folder(state, write)


def create_folder(state: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a new folder of the authority, all or nothing; raises StateError, also where there is one."""
    folder, new = state / FOLDER, state / f"{FOLDER}.new"
    if exists(state):
        raise StateError(f"`{folder}` holds an authority already", remedy=_ANEW)
    try:
        if new.exists():  # an interrupted first start; nothing was ever signed with these keys
            shutil.rmtree(new)
        new.mkdir(mode=0o700)
        write(new)
        sync_folder(new)
        new.rename(folder)
        sync_folder(state)
    except OSError as error:
        raise StateError(f"`{folder}` cannot be written: {error.strerror}", remedy=ROOM) from error


def load(state: Path, passphrase: bytes | None, random: Random) -> Loaded:
    """Read the authority of `state`; plain keys are encrypted on the spot where there is a `passphrase`.

    Raises StateError for a folder or certificate, KeyFileError for a key that is missing, broken or too open.
    """
    folder = state / FOLDER
    check_folder(folder)
    missing = [name for name in FILES if not os.path.lexists(folder / name)]
    if missing:
        raise StateError(f"`{folder}` lacks {' and '.join(missing)}", remedy=f"restore from a copy, or {_ANEW}")
    material = Material(
        root=_read_certificate(folder / ROOT),
        root_key=_read_key(folder / ROOT_KEY, passphrase),
        intermediate=_read_certificate(folder / INTERMEDIATE),
        intermediate_key=_read_key(folder / INTERMEDIATE_KEY, passphrase),
    )
    return Loaded(material, _encrypt_plain(folder, material, passphrase, random))


def _encrypt_plain(folder: Path, material: Material, passphrase: bytes | None, random: Random) -> tuple[str, ...]:
    if passphrase is None:
        return ()
    keys = {ROOT_KEY: _ours(material), INTERMEDIATE_KEY: material.intermediate_key}
    plain = [name for name in keys if not is_encrypted(read_secret(folder / name))]
    for name in plain:
        write_secret(folder / name, write_key(keys[name], passphrase, random))
    return tuple(plain)


def _ours(material: Material) -> ec.EllipticCurvePrivateKey:
    """The root's key, which is here wherever the authority is all ours."""
    assert material.root_key is not None
    return material.root_key


def check_folder(folder: Path) -> None:
    """Refuse a folder that is none, or that others may use; raises StateError."""
    try:
        status = folder.lstat()
    except OSError as error:
        raise StateError(f"`{folder}` cannot be read: {error.strerror}", remedy=_ANEW) from error
    if not stat.S_ISDIR(status.st_mode):
        raise StateError(f"`{folder}` is no folder", remedy=f"move it away, and {_ANEW}")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise StateError(f"`{folder}` has mode {mode:04o}, others may use it", remedy=f"`chmod 700 {folder}`")


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_secret(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        message = f"`{path}` is no certificate"
        raise StateError(message, remedy=f"restore it from a copy, or {_ANEW}") from error


def _read_key(path: Path, passphrase: bytes | None) -> ec.EllipticCurvePrivateKey:
    try:
        return read_key(read_secret(path), passphrase)
    except KeyFileError as error:
        if str(path) in error.message:
            raise
        raise KeyFileError(f"`{path}`: {error.message}", remedy=error.remedy) from error


_ANEW: Final = "start anew with `--fresh`: every agent then joins again"
