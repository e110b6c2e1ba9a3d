"""Names outside the mesh: what ServiceEntries declare, and what the operator lets requests reach there.

Law: no name leads to an address that belongs to this machine, to its network's own helpers or to the mesh, unless
an operator lists that address. Being declared routes a request; only a policy permits it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

Protocol = Literal["HTTP", "HTTP2", "GRPC", "HTTPS", "TLS", "TCP"]
Resolution = Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"]
Mode = Literal["REGISTRY_ONLY", "ALLOW_ANY"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HTTP_PROTOCOLS: Final = frozenset({"HTTP", "HTTP2", "GRPC"})  # the others are only ever tunnelled (CONNECT)
TLS_PROTOCOLS: Final = frozenset({"HTTPS", "TLS"})  # of tunnels those whose bytes are TLS
HTTPS_PORT: Final = 443
HTTP_PORT: Final = 80  # what a name without a port means outside (RFC 9110, 4.2.1)

_NEVER: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # "this host": connecting to it is connecting to loopback
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, where most clouds have their metadata
        "100.100.100.200/32",  # metadata: Alibaba
        "168.63.129.16/32",  # metadata: Azure
        "192.0.0.192/32",  # metadata: Oracle
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/127",  # unspecified and loopback
        "::ffff:0:0/96",  # all of IPv4 once more
        "fe80::/10",
        "fd00:ec2::254/128",  # metadata: Amazon
        "fd20:ce::254/128",  # metadata: Google
        "ff00::/8",
    )
)


@dataclass(frozen=True, slots=True)
class Outbound:
    """What policyd.yaml says of the outside: `allow` are addresses that names may have although they are forbidden,
    `resolvers` the DNS servers that proxies ask (none: those of their machine).
    """

    mode: Mode = "REGISTRY_ONLY"
    allow: tuple[Network, ...] = ()
    resolvers: tuple[tuple[str, int], ...] = ()


REGISTRY_ONLY: Final = Outbound()


@dataclass(frozen=True, slots=True)
class OutsidePort:
    """A port of a Host: `number` is what callers use, `target` where it is served."""

    number: int
    name: str
    protocol: Protocol
    target: int

    @property
    def is_http(self) -> bool:
        """Whether requests are told apart on it; else only connections are."""
        return self.protocol in HTTP_PROTOCOLS

    @property
    def is_tls(self) -> bool:
        """Whether the bytes of its tunnels are TLS."""
        return self.protocol in TLS_PROTOCOLS


@dataclass(frozen=True, slots=True)
class OutsideEndpoint:
    """Where a Host is served: an address, or a name to look up; `ports` by the name of the port.

    `labels` tell subsets apart.
    """

    address: str
    ports: Mapping[str, int] = field(default_factory=dict)
    weight: int = 0
    locality: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outside:
    """A Host (a name, or `*.` and a name) as one ServiceEntry has it.

    `seen_by` are the namespaces whose proxies know it, None: all. `vips` are addresses that mean the Host too; `names`
    what its certificate bears, where TLS is opened to it (none: the Host).
    """

    host: str
    resolution: Resolution
    ports: tuple[OutsidePort, ...]
    endpoints: tuple[OutsideEndpoint, ...] = ()
    seen_by: frozenset[str] | None = None
    vips: tuple[str, ...] = ()
    namespace: str = ""
    names: tuple[str, ...] = ()

    def is_seen(self, namespace: str) -> bool:
        """Whether proxies of a namespace know it."""
        return self.seen_by is None or namespace in self.seen_by

    def of_labels(self, labels: Mapping[str, str]) -> Outside | None:
        """The part of it that bears labels (none: all of it); None where there is none."""
        if not labels:
            return self
        borne = tuple(one for one in self.endpoints if labels.items() <= one.labels.items())
        return replace(self, endpoints=borne) if borne else None

    @property
    def is_dynamic(self) -> bool:
        """Whether each name asked for is looked up by itself, when it is asked for."""
        return self.resolution in ("NONE", "DYNAMIC_DNS")


def forbidden(mesh_addresses: Iterable[str], allow: Iterable[Network]) -> tuple[Network, ...]:
    """Every range that no Host may have an address of: the fixed ones, the mesh's own, without those allowed."""
    own = (ipaddress.ip_network(address) for address in mesh_addresses)
    ranges: list[Network] = [*_NEVER, *own]
    for exception in allow:
        ranges = [part for one in ranges for part in _without(one, exception)]
    four = [one for one in ranges if isinstance(one, ipaddress.IPv4Network)]
    six = [one for one in ranges if isinstance(one, ipaddress.IPv6Network)]
    return (*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six))


def is_forbidden(address: str, ranges: Iterable[Network]) -> bool:
    """Tell whether an address is in one of the ranges."""
    ip = ipaddress.ip_address(address)
    return any(ip.version == one.version and ip in one for one in ranges)


def covers_name(pattern: str, name: str) -> bool:
    """Tell whether a Host's pattern (`*`, `*.example.com` or a name) holds for a name."""
    return pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:]) and name != pattern[2:])


def _without(one: Network, exception: Network) -> Iterable[Network]:
    if one.version != exception.version or not one.overlaps(exception):
        return [one]
    if one.prefixlen >= exception.prefixlen:
        return []
    return one.address_exclude(exception)  # type: ignore[arg-type]  # both of one version, as was just seen
