"""Routes: by Host to Services, as VirtualServices say; at a gateway by its hosts.

Law: rules come out in the order in which they were declared; the first that matches wins, as in Istio.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from policyd.mesh.destinations import Caller
from policyd.mesh.hosts import covers, domains, overlap
from policyd.mesh.istio.answers import MAX_BODY
from policyd.mesh.istio.common import export_rank
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.model import Instance, Listen, Mesh, Service, gateway_listener
from policyd.mesh.precedence import Precedence
from policyd.xds.resources import egress, filters, rules
from policyd.xds.resources.forward import to_service
from policyd.xds.resources.matches import EVERYTHING
from policyd.xds.resources.model import OUTBOUND_ROUTES, gateway_routes
from policyd.xds.resources.rules import View

NO_SUCH_SERVICE = "no service of this mesh has that name\n"
NO_SUCH_ROUTE = "no route of this gateway matches\n"
PLAIN_PORT = 80  # what a name without a port means in http


def outbound(mesh: Mesh, caller: Caller) -> dict[str, Any]:
    """What sidecars of a class route their applications' requests by (RouteConfiguration)."""
    held = Precedence(mesh.virtual_services, caller.namespace, mesh.services)
    ruled = dict(held.outside(mesh.services))
    hosts = [
        {
            "name": f"{service.id}:{port.number}",
            "domains": list(domains(service, port.number, caller.namespace)),
            "routes": _to(mesh, caller, held.of(service), service, port.number),
            # the sidecar at the other end asks
            "typed_per_filter_config": filters.unasked(),
        }
        for _, service in sorted(mesh.services.items())
        for port in service.ports
    ]
    return {
        "name": OUTBOUND_ROUTES,
        "virtual_hosts": [*hosts, *_outside(mesh, caller, ruled), _otherwise(mesh)],
        # the secret of the application's own proxy ends here
        "request_headers_to_remove": ["proxy-authorization"],
        "max_direct_response_body_size_bytes": MAX_BODY,
    }


def _otherwise(mesh: Mesh) -> dict[str, Any]:
    """A name that nothing declares: 502 unasked, as Istio's BlackHoleCluster; with ALLOW_ANY it is asked about."""
    if mesh.outbound.mode == "ALLOW_ANY":
        asked = filters.asked_for_host("*", 0)
        return {"name": "any", "domains": ["*"], "routes": egress.any_host(), "typed_per_filter_config": asked}
    nowhere = rules.respond(502, NO_SUCH_SERVICE)
    routes = [nowhere, {**nowhere, "match": {"connect_matcher": {}}}]
    return {"name": "nowhere", "domains": ["*"], "routes": routes, "typed_per_filter_config": filters.unasked()}


def _to(mesh: Mesh, caller: Caller, owner: VirtualService | None, service: Service, port: int) -> list[dict[str, Any]]:
    declared = rules.routes_of(mesh, owner, View(caller, port)) if owner is not None else []
    return declared or [{"match": EVERYTHING, "route": to_service(mesh, caller, service, port)}]


def _outside(mesh: Mesh, caller: Caller, ruled: Mapping[str, VirtualService]) -> Iterator[dict[str, Any]]:
    """The Hosts that are declared, and names outside that only have rules; those lead into the mesh, or answer."""
    declared = egress.virtual_hosts(mesh, caller, ruled)
    taken = {domain for one in declared for domain in one["domains"]}
    for host, owner in ruled.items():
        found = rules.routes_of(mesh, owner, View(caller, PLAIN_PORT)) if host not in taken else []
        if found:
            only = {"name": host, "domains": [host, f"{host}:{PLAIN_PORT}"], "routes": found}
            yield {**only, "typed_per_filter_config": filters.unasked()}
    yield from declared


def gateway(mesh: Mesh, instance: Instance, listen: Listen) -> dict[str, Any]:
    """What a gateway's port routes by: every VirtualService bound to a Gateway that opens it here."""
    asked_for = filters.asked_for(gateway_listener(instance.name, listen.declared))
    caller = mesh.caller(instance)
    routes: dict[str, list[dict[str, Any]]] = {}
    for declared in _gateways_of(mesh, instance):
        served = _hosts_served(declared, listen.declared)
        view = View(caller, listen.declared, frozenset({declared.id}), listen.actual)
        for owner in mesh.virtual_services:
            if not _is_bound(owner, declared, caller.namespace):
                continue
            for host in _common(owner.spec.hosts, served):
                routes.setdefault(host, []).extend(rules.routes_of(mesh, owner, view))
    routes.setdefault("*", [])
    hosts = [
        {
            "name": host,
            "domains": [host],
            # the policy is asked before a request is told that there is no such route
            "routes": [*_catch_all_last(found), rules.respond(404, NO_SUCH_ROUTE)],
            "typed_per_filter_config": asked_for,
        }
        for host, found in routes.items()
    ]
    return {
        "name": gateway_routes(listen.declared),
        "virtual_hosts": hosts,
        "ignore_port_in_host_matching": True,
        "max_direct_response_body_size_bytes": MAX_BODY,
    }


def _catch_all_last(routes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of several VirtualServices of a host, none hides the others behind a rule that answers everything."""
    return sorted(routes, key=rules.answers_all)


def _gateways_of(mesh: Mesh, instance: Instance) -> Iterable[Gateway]:
    return (g for g in mesh.gateways if g.spec.selector.items() <= instance.labels.items())


def _hosts_served(gateway: Gateway, port: int) -> list[str]:
    """The hosts of a Gateway's servers on a port, without the namespace that may stand in front."""
    servers = (server for server in gateway.spec.servers if server.port.number == port)
    return [host.rpartition("/")[2] for server in servers for host in server.hosts]


def _is_bound(owner: VirtualService, gateway: Gateway, namespace: str) -> bool:
    """Whether a VirtualService has rules for a Gateway, and is seen in the namespace of the proxy there."""
    seen = export_rank(owner.spec.export_to, owner.namespace, namespace) is not None
    return seen and gateway.id in owner.gateway_ids()


def _common(wanted: Iterable[str], served: Iterable[str]) -> list[str]:
    """The narrower host of each pair that has hosts in common, each once."""
    served = list(served)
    pairs = [(host, other) for host in wanted for other in served if overlap(host, other)]
    return list(dict.fromkeys(host if covers(other, host) else other for host, other in pairs))
