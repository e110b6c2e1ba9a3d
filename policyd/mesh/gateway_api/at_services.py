"""What is attached to Services, in Istio's words: rules for all callers in the mesh, or a namespace's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from policyd.mesh.declaration import Declared
from policyd.mesh.gateway_api import connections
from policyd.mesh.gateway_api import rules as requests
from policyd.mesh.gateway_api.attach import AtService
from policyd.mesh.gateway_api.attached_rules import named
from policyd.mesh.gateway_api.backends import Backends
from policyd.mesh.gateway_api.connection_routes import TcpRouteResource
from policyd.mesh.gateway_api.known import Known
from policyd.mesh.gateway_api.paths import Place
from policyd.mesh.gateway_api.rules import Ruled, first_to_answer
from policyd.mesh.gateway_api.sharing import REQUEST_ROUTES
from policyd.mesh.gateway_api.values import AttachedRules
from policyd.mesh.hosts import CLUSTER_DOMAIN
from policyd.mesh.istio.connection_route import TcpRoute
from policyd.mesh.istio.destination import Destination, PortSelector
from policyd.mesh.istio.virtual_service import VirtualServiceSpec


class AtServices:
    """`attached` is what is at a Service, by its name."""

    def __init__(
        self, attached: Mapping[str, Sequence[tuple[Declared[Any], AtService]]], known: Known, backends: Backends
    ) -> None:
        self._attached = attached
        self._services = known.services
        self._backends = backends

    def made(self) -> Iterator[Declared[Any]]:
        """The rules of each Service: those of its own namespace's routes, and of each other namespace its own."""
        for service, attached in self._attached.items():
            own = [(route, at) for route, at in attached if at.own]
            if own:
                yield self._of_service(service, own, "")
            for namespace in sorted({route.resource.namespace for route, at in attached if not at.own}):
                theirs = [(route, at) for route, at in attached if not at.own and route.resource.namespace == namespace]
                taken = {port for _, at in theirs for port in self._ports(at)}
                yield self._of_service(service, [*theirs, *_left(own, taken, self._ports)], namespace)

    def _ports(self, at: AtService) -> tuple[int, ...]:
        if at.port is not None:
            return (at.port,)
        return tuple(port.number for port in self._services[at.service])

    def _of_service(
        self, service: str, attached: Sequence[tuple[Declared[Any], AtService]], namespace: str
    ) -> Declared[Any]:
        """The rules of a Service: of all callers, or of those of a namespace."""
        host = f"{service}.svc.{CLUSTER_DOMAIN}"
        ports = {port.number: port for port in self._services[service]}
        ruled: list[Ruled] = []
        tcp: list[TcpRoute | None] = []
        sources: list[tuple[Any, tuple[str | int, ...]]] = []
        for number, port in sorted(ports.items()):
            led = [route for route, at in attached if number in self._ports(at)]
            if port.requests:
                every = [
                    one
                    for route in led
                    if isinstance(route.resource, REQUEST_ROUTES)
                    for one in requests.rules(route, self._backends, Place("*", port=number), number)
                ]
                ruled += first_to_answer(sorted(every, key=lambda one: one.order))
            for route in led if port.connections else ():
                itself = Destination(host=host, port=PortSelector(number=number))
                if isinstance(route.resource, TcpRouteResource):
                    tcp.append(connections.tcp_rule(route.resource, self._backends, number, itself))
                    sources.append((route.document, ("spec", "rules", 0)))
        spec = VirtualServiceSpec(
            hosts=(host,),
            http=tuple(one.rule for one in ruled),
            tcp=tuple(one for one in tcp if one is not None),
            export_to=(namespace or "*",),
        )
        name, _, own = service.partition(".")
        made = AttachedRules(
            metadata=named(namespace or own, f"{name}.{own}~mesh" if namespace else f"{name}~mesh"),
            spec=spec,
            sources=(*(one.source for one in ruled), *sources),
        )
        return attached[0][0].standing_for(made)


def _left(
    attached: Iterable[tuple[Declared[Any], AtService]], taken: set[int], ports: Any
) -> Iterator[tuple[Declared[Any], AtService]]:
    """The same on those ports that are not taken."""
    for route, at in attached:
        for port in ports(at):
            if port not in taken:
                yield route, AtService(at.service, port, at.own)
