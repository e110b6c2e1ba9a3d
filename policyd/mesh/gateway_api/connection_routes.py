"""TLSRoute and TCPRoute: where connections go as they are, by the name that is asked for, or all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field

from policyd.mesh.gateway_api.common import BackendRef, GatewayApiResource, Hostname, ObjectName, Parents
from policyd.strict import Many, Model

LATER: Final[Mapping[str, str]] = {"useDefaultGateways": "name the Gateway in `parentRefs`"}


class ConnectionRule(Model):
    """Where connections go."""

    name: ObjectName | None = None
    backend_refs: Annotated[Many[BackendRef], Field(min_length=1, max_length=16)]


Rules = Annotated[Many[ConnectionRule], Field(min_length=1, max_length=1)]


class TlsRouteSpec(Model):
    """To what the route is attached, and for which names."""

    parent_refs: Parents = ()
    hostnames: Annotated[Many[Hostname], Field(min_length=1, max_length=16)]
    rules: Rules


class TlsRouteResource(GatewayApiResource):
    """The Gateway API's TLSRoute."""

    api_version: Literal[
        "gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha3", "gateway.networking.k8s.io/v1alpha2"
    ] = "gateway.networking.k8s.io/v1"
    kind: Literal["TLSRoute"] = "TLSRoute"
    spec: TlsRouteSpec


class TcpRouteSpec(Model):
    """To what the route is attached, and where its connections go."""

    parent_refs: Parents = ()
    rules: Rules


class TcpRouteResource(GatewayApiResource):
    """The Gateway API's TCPRoute."""

    api_version: Literal["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha2"] = (
        "gateway.networking.k8s.io/v1alpha2"
    )
    kind: Literal["TCPRoute"] = "TCPRoute"
    spec: TcpRouteSpec
