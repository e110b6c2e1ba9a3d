"""The link between the control process and one decision process: messages over a pair of connected sockets.

Law: down go pickles, which only the control process makes, with all that decisions need; up go small JSON messages,
checked like everything that comes from a process which reads the network. Whoever sees the other end gone ends.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import select
import socket
import struct
from asyncio import IncompleteReadError, StreamReader
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final

import msgspec
from cedarpy import pst

from policyd.ca.server_certificate import ServerCertificate
from policyd.cedar.policies import Policy
from policyd.config.addresses import Address
from policyd.config.audit import AuditSettings
from policyd.environment import Level
from policyd.mesh.model import Instance, Listener, Mesh, Port, Served, Service
from policyd.spiffe import SpiffeId
from policyd.state_paths import StatePaths

MAX_UP_BYTES: Final = 1 << 16
SECOND: Final = "b"
_LENGTH: Final = struct.Struct(">I")


# ---- down


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message: what stays the same for the life of a decision process."""

    name: str  # of its seat, in its log
    writer: str  # the role in which it writes its journal
    number: int  # of its region of the counters, and among its kind from 1
    address: Address
    paths: StatePaths
    audit: AuditSettings
    core: int | None
    log_json: bool | None
    log_level: Level

    def successor(self) -> Setup:
        """Of the process that takes this one's place while this one still writes: there are two writers by turns."""
        return replace(self, writer=f"{self.name}{SECOND}" if self.writer == self.name else self.name)


@dataclass(frozen=True, slots=True)
class Identity:
    """The certificate to show from now on."""

    certificate: ServerCertificate


@dataclass(frozen=True, slots=True)
class Policies:
    """Some of the policies that the next Rule names by their keys."""

    policies: tuple[tuple[bytes, Policy], ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The policies with these keys, in this order; `revision` is what must come of them."""

    revision: str
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """Decide from now on under the `active` policies, and try those of `shadow` beside them; the rule `number`.

    The mappings of `mesh` have only what the rule `onto` had not, or had otherwise, and `gone` are the keys that it had
    and that are no longer there; with `onto` 0 they are whole.
    """

    number: int
    active: Chosen
    shadow: Chosen | None
    mesh: Mesh
    schema: str
    onto: int = 0
    gone: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listen:
    """Take checks; those that come before the journal is open wait for it."""


@dataclass(frozen=True, slots=True)
class Open:
    """Open the journal: nobody else appends to it any more."""


@dataclass(frozen=True, slots=True)
class Speak:
    """Log from this level on."""

    level: Level


Down = Setup | Identity | Policies | Rule | Listen | Open | Speak


def _frozen(values: dict[str, Any]) -> pst.FrozenMap[str, Any]:
    return pst.FrozenMap(values)


def _read_only(values: dict[str, Any]) -> MappingProxyType[str, Any]:
    return MappingProxyType(values)


# of these a large mesh has thousands; a dataclass with slots asks for its fields anew for each
_MANY: Final[Mapping[type, tuple[str, ...]]] = {
    kind: tuple(one.name for one in fields(kind)) for kind in (Instance, Served, Listener, Service, Port, SpiffeId)
}


def _made(kind: type, *values: Any) -> Any:
    """A frozen value as it was; it was checked when it was made first."""
    new: Any = object.__new__(kind)
    for name, value in zip(_MANY[kind], values, strict=True):
        object.__setattr__(new, name, value)
    return new


def _taken_apart(kind: type) -> Callable[[Any], tuple[Any, ...]]:
    values = attrgetter(*_MANY[kind])
    return lambda value: (_made, (kind, *values(value)))


class _Pickler(pickle.Pickler):
    """Pickles what cannot pickle itself, too, and what there is much of faster than it would itself."""

    dispatch_table = copyreg.dispatch_table | {
        pst.FrozenMap: lambda value: (_frozen, (dict(value),)),
        MappingProxyType: lambda value: (_read_only, (dict(value),)),
        **{kind: _taken_apart(kind) for kind in _MANY},
    }


def pack(message: Down) -> bytes:
    """A message with its length in front."""
    body = io.BytesIO()
    _Pickler(body, pickle.HIGHEST_PROTOCOL).dump(message)
    return _LENGTH.pack(body.tell()) + body.getvalue()


# ---- up


class Listening(msgspec.Struct, frozen=True, tag=True):
    """Checks are taken, and wait."""


class Opened(msgspec.Struct, frozen=True, tag=True):
    """The journal is open: checks are answered."""


class InForce(msgspec.Struct, frozen=True, tag=True):
    """Checks that come from now on are decided under the rule of this number, which is of this revision."""

    number: int
    revision: str


class Trouble(msgspec.Struct, frozen=True, tag=True):
    """Why records are not kept; "" if they are again."""

    reason: str


Up = Listening | Opened | InForce | Trouble
_decoder: Final[msgspec.json.Decoder[Up]] = msgspec.json.Decoder(Up)


async def read_up(reader: StreamReader) -> Up | None:
    """The next message from below; None at the end of the link, or where it makes no sense."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_UP_BYTES:
            return None
        return _decoder.decode(await reader.readexactly(length))
    except (IncompleteReadError, OSError, msgspec.MsgspecError):
        return None


# ---- the lower end


class Ended(Exception):
    """The control process has closed the link, or ended."""


class LowerEnd:
    """The link as a decision process has it; one thread receives, any may say."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def close(self) -> None:
        """Close it: whoever is above sees us gone."""
        self._socket.close()

    def receive(self, idle: Callable[[], object], seconds: float) -> Down:
        """The next message, calling `idle` whenever none has come for so many seconds; raises Ended."""
        while not select.select([self._socket], [], [], seconds)[0]:
            idle()
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        message: Down = pickle.loads(self._exactly(length))  # noqa: S301 - from the process that started us
        return message

    def say(self, message: Up) -> None:
        """Tell the control process; who has gone hears nothing."""
        body = msgspec.json.encode(message)
        try:
            self._socket.sendall(_LENGTH.pack(len(body)) + body)
        except OSError:
            return

    def _exactly(self, size: int) -> bytearray:
        found = bytearray(size)
        view, at = memoryview(found), 0
        while at < size:
            try:
                taken = self._socket.recv_into(view[at:])
            except OSError as error:
                raise Ended from error
            if not taken:
                raise Ended
            at += taken
        return found
