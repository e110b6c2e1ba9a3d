"""TCP and TLS rules of a VirtualService (TCPRoute, TLSRoute): which connections they are for, and where those go."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.common import HostPattern, Labels
from policyd.mesh.istio.destination import Destination
from policyd.mesh.matching import check_range
from policyd.strict import NOTHING, Many, Model, Name, PortNumber

Subnet = Annotated[str, AfterValidator(check_range)]


class ConnectionMatch(Model):
    """All that is given must hold (L4MatchAttributes); everything chooses the proxies that get the rule."""

    destination_subnets: Many[Subnet] = ()
    port: PortNumber | None = None
    source_labels: Labels = NOTHING
    source_namespace: Name | None = None
    gateways: Many[Annotated[str, Field(min_length=1, max_length=512)]] = ()

    def reaches(self, address: str) -> bool:
        """Whether an address is one of those that are meant; "" is none that is known."""
        if not self.destination_subnets:
            return True
        ip = ipaddress.ip_address(address) if address else None
        return ip is not None and any(ip in ipaddress.ip_network(subnet) for subnet in self.destination_subnets)


class TlsMatch(ConnectionMatch):
    """And one of the names is asked for (TLSMatchAttributes)."""

    sni_hosts: Annotated[Many[HostPattern], Field(min_length=1)]


class ConnectionDestination(Model):
    """Where connections go; of several, each gets its weight's share (0: none)."""

    destination: Destination
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class _Rule(Model):
    """Where the connections of a rule go."""

    route: Annotated[Many[ConnectionDestination], Field(min_length=1)]

    @model_validator(mode="after")
    def _weights(self) -> _Rule:
        if len(self.route) > 1 and sum(one.weight for one in self.route) == 0:
            raise ValueError("the weights add up to 0; give one destination a `weight`")
        return self


class TcpRoute(_Rule):
    """A rule for connections; the first whose `match` holds (any of its blocks; none: always) leads them."""

    match: Many[ConnectionMatch] = ()


class TlsRoute(_Rule):
    """A rule for TLS that is passed on as it is, by the name that is asked for."""

    match: Annotated[Many[TlsMatch], Field(min_length=1)]
