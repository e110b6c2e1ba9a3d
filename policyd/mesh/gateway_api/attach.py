"""What routes are attached to: listeners of Gateways, or Services of the mesh; and why not, where they are not.

Law: a route is attached where it asks to be and is let: by the listener's namespaces, kinds and host. Nobody else's
listener, port or Service gets its rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from policyd.mesh.gateway_api.common import GROUP, GatewayApiResource, ParentReference
from policyd.mesh.gateway_api.conditions import Fault
from policyd.mesh.gateway_api.connection_routes import TcpRouteResource, TlsRouteResource
from policyd.mesh.gateway_api.grpc_route import GrpcRouteResource
from policyd.mesh.gateway_api.http_route import HttpRouteResource
from policyd.mesh.gateway_api.known import Known, KnownPort
from policyd.mesh.gateway_api.listeners import Opening, Openings
from policyd.mesh.gateway_api.precedence import by_host
from policyd.mesh.hosts import covers, overlap

AnyRoute = HttpRouteResource | GrpcRouteResource | TlsRouteResource | TcpRouteResource
NO_PARENT: Final = "NoMatchingParent"


@dataclass(frozen=True, slots=True)
class AtListener:
    """A route at a listener, and the hosts that both have."""

    opening: Opening
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AtService:
    """A route at a Service of the mesh (an id): on one port, or on all; for all callers (`own`), or one namespace's."""

    service: str
    port: int | None
    own: bool


class Attaching:
    """Finds what routes are attached to."""

    def __init__(self, openings: Openings, ours: frozenset[str], known: Known) -> None:
        self._openings = openings
        self._ours = ours  # the Gateways (ids) of this mesh
        self._known = known

    def of(self, route: AnyRoute, parent: ParentReference) -> tuple[AtListener, ...] | AtService | Fault:
        """What a parent of a route comes to."""
        if (parent.group, parent.kind) == ("", "Service"):
            return self._service(route, parent)
        id_ = f"{parent.namespace or route.namespace}/{parent.name}"
        if (parent.group, parent.kind) != (GROUP, "Gateway") or id_ not in self._ours:
            return Fault(NO_PARENT, f"no {parent.kind} of this mesh is called `{id_}`")
        return self._listeners(route, parent, self._openings.of(id_))

    def _listeners(
        self, route: AnyRoute, parent: ParentReference, every: Sequence[Opening]
    ) -> tuple[AtListener, ...] | Fault:
        wanted = [
            one
            for one in every
            if parent.section_name in (None, one.listener.name) and parent.port in (None, one.listener.port)
        ]
        if not wanted:
            which = f"`{parent.section_name}`" if parent.section_name else f"on port {parent.port}"
            return Fault(NO_PARENT, f"the Gateway `{parent.name}` has no listener {which}")
        letting = [one for one in wanted if lets(one, route)]
        if not letting:
            names = ", ".join(one.listener.name for one in wanted)
            message = f"a {route.kind} of `{route.namespace}` is not let to {names}; see `allowedRoutes`"
            return Fault("NotAllowedByListeners", message)
        found = tuple(AtListener(one, hosts) for one in letting if (hosts := self._hosts(one, route)))
        if not found:
            served = ", ".join(one.listener.host for one in letting)
            return Fault("NoMatchingListenerHostname", f"none of its `hostnames` is served there: {served}")
        return found

    def _hosts(self, opening: Opening, route: AnyRoute) -> tuple[str, ...]:
        """The hosts that both have, without those that another listener of the port has by a narrower name."""
        own = opening.listener.host
        wanted = hostnames(route) or (own,)
        both = (host if covers(own, host) else own for host in wanted if overlap(own, host))
        return tuple(host for host in dict.fromkeys(both) if not self._is_narrower(opening, host))

    def _is_narrower(self, opening: Opening, host: str) -> bool:
        """Whether another listener of the same port has a host that is a narrower name of this one."""
        listener = opening.listener
        others = (
            one.listener
            for one in self._openings.every()
            if one is not opening and one.is_open and one.instances & opening.instances
        )
        return any(
            one.port == listener.port and covers(one.host, host) and by_host(one.host) < by_host(listener.host)
            for one in others
        )

    def _service(self, route: AnyRoute, parent: ParentReference) -> AtService | Fault:
        namespace = parent.namespace or route.namespace
        id_ = f"{parent.name}.{namespace}"
        ports = self._known.services.get(id_)
        if ports is None or id_ in self._known.at_edge:
            return Fault(NO_PARENT, f"`{id_}` is no service of the mesh")
        port = _port(parent, ports)
        if isinstance(port, Fault):
            return port
        if isinstance(route, TlsRouteResource):
            return Fault(NO_PARENT, "a TLSRoute is for listeners of Gateways; write a TCPRoute for a Service")
        requests = isinstance(route, HttpRouteResource | GrpcRouteResource)
        meant = [one for one in ports if port in (None, one.number)]
        if not any(one.requests if requests else one.connections for one in meant):
            what = "requests" if requests else "connections"
            return Fault(
                NO_PARENT, f"no port of `{id_}` that is meant takes {what}, to which a {route.kind} could hold"
            )
        return AtService(id_, port, own=namespace == route.namespace)


def _port(parent: ParentReference, ports: Sequence[KnownPort]) -> int | Fault | None:
    """The port of a Service that a parent means, by its number or its name; None: all of them."""
    if parent.port is None and parent.section_name is None:
        return None
    for one in ports:
        if parent.port in (None, one.number) and parent.section_name in (None, one.name):
            return one.number
    which = f"`{parent.section_name}`" if parent.section_name else parent.port
    listed = ", ".join(f"{one.number} ({one.name})" for one in ports)
    return Fault(NO_PARENT, f"the service `{parent.name}` has no port {which}; it has {listed}")


def hostnames(route: GatewayApiResource) -> tuple[str, ...]:
    """The hosts that a route is for; none: all that there are."""
    return () if isinstance(route, TcpRouteResource) else route.spec.hostnames  # type: ignore[attr-defined]


def lets(opening: Opening, route: GatewayApiResource) -> bool:
    """Whether a listener lets a route be attached: its kind, and its namespace."""
    kind = str(route.kind)  # type: ignore[attr-defined]
    namespaces = opening.listener.allowed_routes.namespaces
    return kind in opening.kinds and namespaces.allow(opening.gateway.namespace, route.namespace)
