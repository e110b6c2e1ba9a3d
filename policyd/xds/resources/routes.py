"""Routes: by Host to Services, as VirtualServices say; at a gateway by its hosts.

Law: rules come out in the order in which they were declared; the first that matches wins, as in Istio.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from policyd.mesh.hosts import covers, domains, overlap, resolve
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.virtual_service import MESH, VirtualService
from policyd.mesh.model import Instance, Listen, Mesh, Service, gateway_listener
from policyd.xds.resources import filters, rules
from policyd.xds.resources.model import OUTBOUND_ROUTES, gateway_routes, outbound_cluster

NO_SUCH_SERVICE = "no service of this mesh has that name\n"
NO_SUCH_ROUTE = "no route of this gateway matches\n"


def outbound(mesh: Mesh, namespace: str) -> dict[str, Any]:
    """What every sidecar of a namespace routes its application's requests by (RouteConfiguration)."""
    hosts = [
        {
            "name": f"{service.id}:{port.number}",
            "domains": list(domains(service, port.number, namespace)),
            "routes": _to(mesh, service, port.number),
        }
        for _, service in sorted(mesh.services.items())
        for port in service.ports
    ]
    nowhere = {"name": "nowhere", "domains": ["*"], "routes": [rules.respond(502, NO_SUCH_SERVICE)]}
    return {
        "name": OUTBOUND_ROUTES,
        "virtual_hosts": [*hosts, nowhere],
        # the secret of the application's own proxy ends here
        "request_headers_to_remove": ["proxy-authorization"],
    }


def _to(mesh: Mesh, service: Service, port: int) -> list[dict[str, Any]]:
    declared = [route for owner in _for_service(mesh, service) for route in rules.routes_of(mesh, owner)]
    return declared or [rules.to_service(outbound_cluster(service.id, port))]


def _for_service(mesh: Mesh, service: Service) -> list[VirtualService]:
    """The VirtualServices that hold in sidecars for a Service: those that name it."""
    inside = (owner for owner in mesh.virtual_services if MESH in owner.spec.gateways)
    return [o for o in inside if any(resolve(host, o.namespace) == service.id for host in o.spec.hosts)]


def gateway(mesh: Mesh, instance: Instance, listen: Listen) -> dict[str, Any]:
    """What a gateway's port routes by: every VirtualService bound to a Gateway that opens it here."""
    asked_for = filters.asked_for(gateway_listener(instance.name, listen.declared))
    routes: dict[str, list[dict[str, Any]]] = {}
    for declared in _gateways_of(mesh, instance):
        served = _hosts_served(declared, listen.declared)
        for owner in mesh.virtual_services:
            if not _is_bound(owner, declared):
                continue
            for host in _common(owner.spec.hosts, served):
                routes.setdefault(host, []).extend(rules.routes_of(mesh, owner))
    routes.setdefault("*", [])
    hosts = [
        {
            "name": host,
            "domains": [host],
            # the policy is asked before a request is told that there is no such route
            "routes": [*found, rules.respond(404, NO_SUCH_ROUTE)],
            "typed_per_filter_config": asked_for,
        }
        for host, found in routes.items()
    ]
    return {"name": gateway_routes(listen.declared), "virtual_hosts": hosts, "ignore_port_in_host_matching": True}


def _gateways_of(mesh: Mesh, instance: Instance) -> Iterable[Gateway]:
    return (g for g in mesh.gateways if g.spec.selector.items() <= instance.labels.items())


def _hosts_served(gateway: Gateway, port: int) -> list[str]:
    """The hosts of a Gateway's servers on a port, without the namespace that may stand in front."""
    servers = (server for server in gateway.spec.servers if server.port.number == port)
    return [host.rpartition("/")[2] for server in servers for host in server.hosts]


def _is_bound(owner: VirtualService, gateway: Gateway) -> bool:
    names = {gateway.name if gateway.namespace == owner.namespace else "", f"{gateway.namespace}/{gateway.name}"}
    return any(name in names for name in owner.spec.gateways)


def _common(wanted: Iterable[str], served: Iterable[str]) -> list[str]:
    """The narrower host of each pair that has hosts in common, each once."""
    served = list(served)
    pairs = [(host, other) for host in wanted for other in served if overlap(host, other)]
    return list(dict.fromkeys(host if covers(other, host) else other for host, other in pairs))
