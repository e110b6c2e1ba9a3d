"""The machine's resolvers, as resolv.conf names them.

Law: pure. A resolver on loopback that only passes on what captured programs ask would ask us again, so where it has a
list of its own, that counts.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Final

MOST: Final = 3  # as in glibc
RESOLV_CONF: Final = Path("/etc/resolv.conf")
BEHIND_STUB: Final = Path("/run/systemd/resolve/resolv.conf")  # what systemd's own resolver asks


def resolvers(text: str) -> tuple[str, ...]:
    """The addresses that a resolv.conf names, in their order."""
    found = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) >= 2 and words[0] == "nameserver" and _is_address(words[1]):
            found.append(words[1])
    return tuple(dict.fromkeys(found))[:MOST]


def is_local(addresses: tuple[str, ...]) -> bool:
    """Whether all of them are on this machine's loopback."""
    return all(ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in addresses)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
