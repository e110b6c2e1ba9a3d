"""A placement on this machine: which ports are free, and the file that keeps what was chosen.

Law: the file has secrets, so it is its owner's alone; one that is broken is an error, never an empty placement.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Annotated, Final

import msgspec

from policyd.errors import StateError
from policyd.mesh.model import Listen
from policyd.mesh.placement import Placement, PortPlace, SidecarPlace
from policyd.sources.state import write_private

MAX_BYTES: Final = 16 * 1_048_576

_Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class _Sidecar(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    app_port: _Port
    inbound_port: _Port
    outbound_port: _Port
    proxy_secret: str
    number: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    more: list[tuple[_Port, _Port, _Port]] = []  # number, application, peers


class _File(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    sidecars: dict[str, _Sidecar]
    gateways: dict[str, list[tuple[_Port, _Port]]]


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a server could listen on `port` of `host` now; a port that we may not open is not free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # as Envoy does: connections of an earlier server that still linger do not matter
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EPERM):
                return False
            raise
    return True


def candidates(random: Random, ports: range) -> Iterator[int]:
    """Yield those of `ports` to try, without end."""
    while True:
        yield random.choice(ports)


def load(path: Path, uid: int) -> Placement:
    """Read the placement; none if the file is not there. Raises StateError for one that is broken or not private."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if found.st_uid != uid or stat.S_IMODE(found.st_mode) & 0o077:
                raise StateError(f"others own or may read `{path}`", remedy="remove it; ports are then picked anew")
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Placement()
    except OSError as error:
        raise StateError(f"`{path}` cannot be read: {error.strerror}", remedy="check its owner and mode") from None
    try:
        kept = msgspec.json.decode(data[:MAX_BYTES], type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise StateError(f"`{path}` is broken", remedy="remove it; ports are then picked anew") from None
    return Placement(_sidecars(kept.sidecars), {name: _listens(pairs) for name, pairs in kept.gateways.items()})


def save(path: Path, placement: Placement) -> None:
    """Write the placement, 0600, all or nothing; raises StateError."""
    sidecars = {
        name: _Sidecar(
            place.app_port,
            place.inbound_port,
            place.outbound_port,
            place.proxy_secret,
            place.number,
            [(one.number, one.app_port, one.inbound_port) for one in place.more],
        )
        for name, place in placement.sidecars.items()
    }
    gateways = {
        name: [(listen.declared, listen.actual) for listen in listens] for name, listens in placement.gateways.items()
    }
    try:
        write_private(path, msgspec.json.encode(_File(sidecars, gateways)))
    except OSError as error:
        raise StateError(
            f"`{path}` cannot be written: {error.strerror}", remedy="check the disk and the owner"
        ) from None


def _sidecars(kept: Mapping[str, _Sidecar]) -> dict[str, SidecarPlace]:
    return {
        name: SidecarPlace(
            place.app_port,
            place.inbound_port,
            place.outbound_port,
            place.proxy_secret,
            tuple(PortPlace(*one) for one in place.more),
            place.number,
        )
        for name, place in kept.items()
    }


def _listens(pairs: list[tuple[int, int]]) -> tuple[Listen, ...]:
    return tuple(Listen(declared, actual) for declared, actual in pairs)
