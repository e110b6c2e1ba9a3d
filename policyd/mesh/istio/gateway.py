"""Istio's Gateway: the ports at the edge, and the hosts that are served there."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from policyd.mesh.istio.common import HostPattern, Labels, Networking, Resource
from policyd.strict import Many, Model, Name, PortNumber

LATER: Final = ("bind", "defaultEndpoint", "name", "targetPort", "tls")


class ServerPort(Model):
    """A port at the edge."""

    number: PortNumber
    name: Name
    protocol: Literal["HTTP"]


class Server(Model):
    """A port at the edge and the hosts that are served there."""

    port: ServerPort
    hosts: Annotated[Many[HostPattern], Field(min_length=1)]


class GatewaySpec(Model):
    """Which gateway instances (by labels, in any namespace) open which ports."""

    selector: Annotated[Labels, Field(min_length=1)]
    servers: Annotated[Many[Server], Field(min_length=1)]


class Gateway(Resource):
    """Istio's Gateway (plain HTTP servers)."""

    api_version: Networking = "networking.istio.io/v1"
    kind: Literal["Gateway"] = "Gateway"
    spec: GatewaySpec
