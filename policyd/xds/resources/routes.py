"""Routes in sidecars: by Host to Services and outside, as VirtualServices say.

Law: rules come out in the order in which they were declared; the first that matches wins, as in Istio.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from policyd.mesh.destinations import Caller
from policyd.mesh.istio.answers import MAX_BODY
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.model import Mesh, Port, Service
from policyd.mesh.outside import HTTPS_PORT
from policyd.mesh.precedence import Precedence
from policyd.mesh.service_names import default_port, domains, names
from policyd.xds.resources import connections, egress, filters, inner, rules, sniffed, tcp
from policyd.xds.resources.forward import to_service
from policyd.xds.resources.matches import EVERYTHING
from policyd.xds.resources.model import OUTBOUND_ROUTES
from policyd.xds.resources.rules import View

NO_SUCH_SERVICE = "no service of this mesh has that name\n"
SERVER_FIRST = (25, 53, 3306, 27017)  # Istio's: where who is asked may speak first
PLAIN_PORT = 80  # what a name without a port means in http


def outbound(mesh: Mesh, caller: Caller, *, any_name: bool = False, captured: bool = False) -> dict[str, Any]:
    """What sidecars of a class route their applications' requests by (RouteConfiguration).

    With `any_name` a name that nothing declares is led outside; who is `captured` may know names by their addresses.
    """
    held = Precedence(mesh.virtual_services, caller.namespace, mesh.services)
    ruled = dict(held.outside(mesh.services))
    hosts = [
        {
            "name": f"{service.id}:{port.number}",
            "domains": [
                *domains(service, port.number, caller.namespace),
                *(addresses(mesh, service, port.number) if captured else ()),
            ],
            "routes": _to(mesh, caller, held.of(service), service, port),
            # the sidecar at the other end asks
            "typed_per_filter_config": filters.unasked(),
        }
        for _, service in sorted(mesh.services.items())
        for port in service.ports
    ]
    return {
        "name": OUTBOUND_ROUTES,
        "virtual_hosts": [*hosts, *_outside(mesh, caller, ruled, captured=captured), *_otherwise(any_name=any_name)],
        # the secret of the application's own proxy ends here
        "request_headers_to_remove": ["proxy-authorization"],
        "max_direct_response_body_size_bytes": MAX_BODY,
    }


def addresses(mesh: Mesh, service: Service, port: int) -> Iterator[str]:
    """What a port of a Service is called by who knows it by its virtual addresses only."""
    for spelled in mesh.virtual[service.id].spelled:
        if port == default_port(service):
            yield spelled
        yield f"{spelled}:{port}"


def _otherwise(*, any_name: bool) -> Iterator[dict[str, Any]]:
    """A name that nothing declares: 502 unasked, as Istio's BlackHoleCluster; with ALLOW_ANY it is asked about."""
    if any_name:
        asked = filters.asked_for_host("*", 0)
        tls = {"name": "any-tls", "domains": [f"*:{HTTPS_PORT}"], "routes": egress.any_tls()}
        yield {**tls, "typed_per_filter_config": asked}
        unread = [f"*:{port}" for port in SERVER_FIRST]
        first = {"name": "any-unread", "domains": unread, "routes": egress.any_unread()}
        yield {**first, "typed_per_filter_config": asked}
        yield {"name": "any", "domains": ["*"], "routes": egress.any_host(), "typed_per_filter_config": asked}
        return
    nowhere = rules.respond(502, NO_SUCH_SERVICE)
    routes = [nowhere, {**nowhere, "match": {"connect_matcher": {}}}]
    yield {"name": "nowhere", "domains": ["*"], "routes": routes, "typed_per_filter_config": filters.unasked()}


def _to(mesh: Mesh, caller: Caller, owner: VirtualService | None, service: Service, port: Port) -> list[dict[str, Any]]:
    view = View(caller, port.number)
    if not port.takes_requests:
        called = names(service, caller.namespace)
        ruled = connections.of_name(mesh, owner, view, called) if owner is not None else []
        return ruled or [tcp.outbound(service, port.number)]
    declared = rules.routes_of(mesh, owner, view) if owner is not None else []
    found = declared or [{"match": EVERYTHING, "route": to_service(mesh, caller, service, port.number)}]
    if port.takes_connections:
        rest, encrypted = tcp.outbound(service, port.number), None
        if owner is not None:
            rest = next(connections.tcp_routes(mesh, owner, view), rest)
            called = names(service, caller.namespace)
            encrypted = next((route for _, route in connections.tls_routes(mesh, owner, view, called)), None)
        return [*found, sniffed.outbound(rest, encrypted)]
    return [*found, inner.route()]


def _outside(
    mesh: Mesh, caller: Caller, ruled: Mapping[str, VirtualService], *, captured: bool
) -> Iterator[dict[str, Any]]:
    """The Hosts that are declared, and names outside that only have rules; those lead into the mesh, or answer."""
    declared = egress.virtual_hosts(mesh, caller, ruled, captured=captured)
    taken = {domain for one in declared for domain in one["domains"]}
    for host, owner in ruled.items():
        found = rules.routes_of(mesh, owner, View(caller, PLAIN_PORT)) if host not in taken else []
        if found:
            only = {"name": host, "domains": [host, f"{host}:{PLAIN_PORT}"], "routes": [*found, inner.route()]}
            yield {**only, "typed_per_filter_config": filters.unasked()}
    yield from declared
