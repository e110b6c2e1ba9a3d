"""All generations of the authority at rest, once there was a second: one file, replaced whole.

Law: a step of a rotation is one write, so that after a crash it was made or was not, and can be made again. The file
is the authority from then on, and the files of the first start go; keys lie in it as they did in them, and those of a
generation that is forgotten go with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from policyd.ca import keystore
from policyd.ca.authority import Material
from policyd.ca.elsewhere import ElsewhereKey
from policyd.ca.files import read_secret, sync_folder, write_secret
from policyd.ca.pkcs8 import is_encrypted, read_key, write_key
from policyd.ca.rotation import Authorities, Generation, State
from policyd.ca.template import Random
from policyd.errors import KeyFileError, StateError

FILE: Final = "authorities.json"
FORMAT: Final = 1
Elsewhere = Callable[[x509.Certificate], ec.EllipticCurvePrivateKey]

_ANEW: Final = "restore it from a copy, or start anew with `--fresh`: every agent then joins again"


class _Generation(msgspec.Struct, frozen=True):
    state: State
    since: datetime
    root: str
    root_key: str
    intermediate: str
    intermediate_key: str
    bridge: str = ""
    above: list[str] = []


class _File(msgspec.Struct, frozen=True):
    format: int
    sequence: int
    left_out: list[str]
    generations: list[_Generation]


@dataclass(frozen=True, slots=True)
class Kept:
    """What was on disk, and whether a key of it lay there in plain text though there is a passphrase."""

    authorities: Authorities
    plain: bool


def exists(folder: Path) -> bool:
    """Is there a file of generations, however broken?"""
    path = folder / FILE
    return path.exists() or path.is_symlink()


def load(folder: Path, passphrase: bytes | None, elsewhere: Elsewhere | None = None) -> Kept:
    """Read the generations; raises StateError or KeyFileError. `elsewhere` gives the keys that are not kept here."""
    path = folder / FILE
    try:
        file = msgspec.json.decode(read_secret(path), type=_File)
        if file.format != FORMAT:
            raise StateError(f"`{path}` is of a newer version of policyd", remedy="start that version")
        generations = tuple(_generation(one, passphrase, elsewhere) for one in file.generations)
    except KeyFileError as error:
        raise KeyFileError(f"`{path}`: {error.message}", remedy=error.remedy) from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StateError(f"`{path}` is broken", remedy=_ANEW) from error
    if [one.state for one in generations].count("active") != 1 or len(generations) > 2:
        raise StateError(f"`{path}` is broken", remedy=_ANEW)
    keys = [key for one in file.generations for key in (one.root_key, one.intermediate_key)]
    plain = passphrase is not None and not all(is_encrypted(key.encode()) for key in keys if key)
    return Kept(Authorities(generations, file.sequence, frozenset(file.left_out)), plain)


def save(folder: Path, held: Authorities, passphrase: bytes | None, random: Random) -> None:
    """Write the generations, then take away the files of the first start; raises StateError."""
    rows = [_row(one, passphrase, random) for one in held.generations]
    file = _File(FORMAT, held.sequence, sorted(held.left_out), rows)
    write_secret(folder / FILE, msgspec.json.format(msgspec.json.encode(file), indent=1))
    tidy(folder, held)


def tidy(folder: Path, held: Authorities) -> None:
    """What an interrupted step left to do: root.pem has every root that ever was, and no key lies beside the file."""
    path = folder / keystore.ROOT
    try:
        known = x509.load_pem_x509_certificates(read_secret(path)) if path.exists() else []
        roots = tuple(dict.fromkeys((*known, *held.roots)))
        if len(roots) != len(known):
            write_secret(path, b"".join(root.public_bytes(Encoding.PEM) for root in roots))
        for name in (keystore.ROOT_KEY, keystore.INTERMEDIATE, keystore.INTERMEDIATE_KEY):
            (folder / name).unlink(missing_ok=True)
        sync_folder(folder)
    except (OSError, ValueError) as error:
        raise StateError(f"`{folder}` cannot be tidied: {error}", remedy=_ANEW) from error


def _row(one: Generation, passphrase: bytes | None, random: Random) -> _Generation:
    material = one.material
    return _Generation(
        state=one.state,
        since=one.since,
        root=_pem(material.root),
        root_key=_key_pem(material.root_key, passphrase, random),
        intermediate=_pem(material.intermediate),
        intermediate_key=_key_pem(material.intermediate_key, passphrase, random),
        bridge=_pem(one.bridge) if one.bridge else "",
        above=[_pem(each) for each in material.above],
    )


def _generation(row: _Generation, passphrase: bytes | None, elsewhere: Elsewhere | None) -> Generation:
    intermediate = _certificate(row.intermediate)
    if row.intermediate_key:
        key = read_key(row.intermediate_key.encode(), passphrase)
    elif elsewhere is not None:
        key = elsewhere(intermediate)
    else:
        raise KeyFileError(
            "the key is held elsewhere", remedy="name `ca.upstream.signCommand` or `signUrl` in policyd.yaml"
        )
    material = Material(
        root=_certificate(row.root),
        root_key=read_key(row.root_key.encode(), passphrase) if row.root_key else None,
        intermediate=intermediate,
        intermediate_key=key,
        above=tuple(map(_certificate, row.above)),
    )
    if row.since.tzinfo is None:
        raise ValueError("a time without its zone")
    return Generation(material, row.state, row.since, _certificate(row.bridge) if row.bridge else None)


def _key_pem(key: ec.EllipticCurvePrivateKey | None, passphrase: bytes | None, random: Random) -> str:
    """In PEM; nothing of a key that is not ours, or is held elsewhere."""
    return "" if key is None or isinstance(key, ElsewhereKey) else write_key(key, passphrase, random).decode()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())
