"""Where servers listen.

Law: beyond loopback only if it is written.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

from policyd.strict import Model


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address and a port to listen on; port 0 is any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(value: Any) -> Address:
    """Turn `127.0.0.1:0` or `[::1]:0` into an Address; raises ValueError."""
    if isinstance(value, Address):
        return value
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        address = None
    good_port = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535
    if address is None or not good_port or (address.version == 6) != host.startswith("["):
        raise ValueError(f"`{str(value)[:80]}` is no address; write an IP address and a port, as in `127.0.0.1:0`")
    return Address(str(address), int(port))


Listen = Annotated[Address, BeforeValidator(parse_address)]
LOOPBACK: Final = Address("127.0.0.1", 0)


class ListenSettings(Model):
    """Where the servers listen; beyond loopback only if it is written here."""

    xds: Listen = LOOPBACK
    authz: Listen = LOOPBACK
    attestation: Listen = LOOPBACK
    signing: Listen = LOOPBACK
    http: Listen = LOOPBACK
