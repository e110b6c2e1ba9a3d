"""The kinds of the Gateway API that a mesh folder may hold, and of each the fields that are not supported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from policyd.mesh.gateway_api import (
    backend_tls_policy,
    connection_routes,
    gateway,
    gateway_class,
    grpc_route,
    http_route,
    reference_grant,
)
from policyd.mesh.gateway_api.backend_tls_policy import BackendTlsPolicy
from policyd.mesh.gateway_api.connection_routes import TcpRouteResource, TlsRouteResource
from policyd.mesh.gateway_api.gateway import KEY as GATEWAY
from policyd.mesh.gateway_api.gateway import KubernetesGateway
from policyd.mesh.gateway_api.gateway_class import GatewayClass
from policyd.mesh.gateway_api.grpc_route import GrpcRouteResource
from policyd.mesh.gateway_api.http_route import HttpRouteResource
from policyd.mesh.gateway_api.reference_grant import ReferenceGrant
from policyd.mesh.istio.common import Resource

KINDS: Final[Mapping[str, type[Resource]]] = {
    "GatewayClass": GatewayClass,
    GATEWAY: KubernetesGateway,
    "HTTPRoute": HttpRouteResource,
    "GRPCRoute": GrpcRouteResource,
    "TLSRoute": TlsRouteResource,
    "TCPRoute": TcpRouteResource,
    "ReferenceGrant": ReferenceGrant,
    "BackendTLSPolicy": BackendTlsPolicy,
}
LATER: Final[Mapping[str, Mapping[str, str]]] = {
    "GatewayClass": gateway_class.LATER,
    GATEWAY: gateway.LATER,
    "HTTPRoute": http_route.LATER,
    "GRPCRoute": grpc_route.LATER,
    "TLSRoute": connection_routes.LATER,
    "TCPRoute": connection_routes.LATER,
    "ReferenceGrant": reference_grant.LATER,
    "BackendTLSPolicy": backend_tls_policy.LATER,
}
