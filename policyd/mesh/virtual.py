"""Virtual addresses: what a name of the mesh means to an application that asks DNS for it.

Law: an address follows from the name alone, so that it is the same in every policyd, after every restart and whatever
else is declared. Two names that would have one IPv4 address (a matter of one in a hundred million) are told apart by
their order; of IPv6 addresses there are enough.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from policyd.mesh.outside import Outside

# reserved, and routed nowhere; Istio's own range is a part of it
V4: Final = ipaddress.IPv4Network("240.0.0.0/5")
V6: Final = ipaddress.IPv6Network("fd6d:6573:6800::/48")  # unique local addresses of our own
_PROBES: Final = 64


@dataclass(frozen=True, slots=True)
class Virtual:
    """The addresses of a name."""

    v4: ipaddress.IPv4Address
    v6: ipaddress.IPv6Address

    @property
    def spelled(self) -> tuple[str, str]:
        """Both, as in the authority of a URL."""
        return str(self.v4), f"[{self.v6}]"


def names_of(services: Iterable[str], outside: Iterable[Outside]) -> Iterator[str]:
    """The names that get addresses: Services by id, and Hosts that are no patterns and have no addresses already."""
    yield from services
    yield from (one.host for one in outside if "*" not in one.host and not one.vips)


def virtual_addresses(names: Iterable[str]) -> dict[str, Virtual]:
    """The addresses of every name, each name once."""
    taken: set[int] = set()
    found: dict[str, Virtual] = {}
    for name in sorted(set(names)):
        number = next(n for n in (_number(name, probe) for probe in range(_PROBES)) if n not in taken)
        taken.add(number)
        host = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
        found[name] = Virtual(V4[number], V6[(host << 8 | 1)])
    return found


def _number(name: str, probe: int) -> int:
    """Where in the range a name is, if others are in its place; never the first or the last of a block of 256."""
    digest = hashlib.sha256(f"{probe} {name}".encode()).digest()
    blocks = V4.num_addresses // 256
    return int.from_bytes(digest[:8]) % blocks * 256 + 1 + int.from_bytes(digest[8:12]) % 254
