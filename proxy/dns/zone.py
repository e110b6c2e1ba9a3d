"""The names that are answered here, and for whom: those of the mesh, as one captured application may spell them.

Law: a Zone is checked when it is made; whatever policyd says, it is bounded.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from policyd.errors import IdentityError

MAX_NAMES: Final = 50_000
MAX_ADDRESSES: Final = 256  # of one name
MAX_SUFFIXES: Final = 8
_NAME: Final = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9])?")
_SUFFIX: Final = re.compile(r"(?:\.[a-z0-9-]{1,63}){1,8}")

Addresses = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]


@dataclass(frozen=True, slots=True)
class Zone:
    """The addresses of every name, in lower case, for the application beside `instance`."""

    instance: str
    names: Mapping[str, Addresses] = field(default_factory=dict, repr=False)


def zone(
    instance: str, namespace: str, suffixes: Sequence[str], names: Sequence[tuple[str, bool, Sequence[bytes]]]
) -> Zone:
    """The names of a captured instance; each with whether it is a Service's. Raises IdentityError."""
    if len(names) > MAX_NAMES:
        raise IdentityError(f"an agent answers for at most {MAX_NAMES} names, not {len(names)}")
    if len(suffixes) > MAX_SUFFIXES or not all(map(_SUFFIX.fullmatch, suffixes)):
        raise IdentityError("names of services end in words that are none")
    found: dict[str, Addresses] = {}
    for name, is_service, packed in names:
        addresses = tuple(_addresses(name, packed))
        for spelled in _spelled(name, namespace, suffixes) if is_service else (_checked(name),):
            found.setdefault(spelled, addresses)
    return Zone(instance, found)


def _spelled(name: str, namespace: str, suffixes: Iterable[str]) -> Iterator[str]:
    """How an application of a namespace may call a service: one of its own by the first word alone."""
    yield _checked(name)
    yield from (f"{name}{suffix}" for suffix in suffixes)
    first, _, of = name.partition(".")
    if of == namespace:
        yield first


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name) or ".." in name:
        raise IdentityError(f"`{name[:100]}` is no name")
    return name


def _addresses(name: str, packed: Sequence[bytes]) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    if not 0 < len(packed) <= MAX_ADDRESSES or any(len(one) not in (4, 16) for one in packed):
        raise IdentityError(f"`{name[:100]}` has no addresses")
    yield from map(ipaddress.ip_address, packed)
