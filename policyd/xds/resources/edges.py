"""Routes at a gateway: by the hosts of its servers, as the VirtualServices bound to them say.

Law: a server answers for its own hosts only, so that who was let in with the certificate of one host does not reach
another. Each answer, "there is no such route" too, comes after the decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from policyd.mesh.edges import selects
from policyd.mesh.hosts import covers, overlap
from policyd.mesh.istio.answers import MAX_BODY
from policyd.mesh.istio.common import export_rank
from policyd.mesh.istio.gateway import Gateway, Server
from policyd.mesh.istio.server_tls import ServerTls
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.model import Instance, Listen, Mesh, gateway_listener, peers_listener, tunnels_listener
from policyd.mesh.tokens import rules_of
from policyd.xds.resources import connections, filters, rules
from policyd.xds.resources.matches import EVERYTHING
from policyd.xds.resources.model import gateway_routes, peers_routes, server_routes
from policyd.xds.resources.rules import View

NO_SUCH_ROUTE: Final = "no route of this gateway matches\n"
NOWHERE: Final = rules.respond(404, NO_SUCH_ROUTE)
HTTPS_PORT: Final = 443
ALTERNATIVE_SECONDS: Final = 86_400  # for which clients remember that there is HTTP/3


@dataclass(frozen=True, slots=True)
class Opened:
    """A server of a Gateway at an instance; `at` is its place there."""

    gateway: Gateway
    at: int
    server: Server

    @property
    def tls(self) -> ServerTls:
        """How it proves itself; without that its clients speak plain text."""
        return self.server.tls or ServerTls()


def opened(mesh: Mesh, instance: Instance, port: int | None = None) -> Iterator[Opened]:
    """The servers that are open at a gateway, on a declared port or on all."""
    for gateway in mesh.gateways:
        if selects(gateway, instance):
            for at, server in enumerate(gateway.spec.servers):
                if port in (None, server.port.number):
                    yield Opened(gateway, at, server)


def tables(mesh: Mesh, instance: Instance, listen: Listen) -> Iterator[dict[str, Any]]:
    """The routes of requests at a gateway's port: of plain servers in one table, of each encrypted one in its own.

    Workloads of the mesh have a table of all that is for them, their tunnels included.
    """
    every = list(opened(mesh, instance, listen.declared))
    found = [one for one in every if one.server.section == "http" and not one.server.for_peers]
    encrypted = [one for one in found if one.server.encrypted]
    for one in encrypted:
        name = server_routes(listen.declared, one.gateway.id, one.at)
        yield _table(mesh, instance, listen, name, [one])
    if not encrypted and (found or not every):
        yield _table(mesh, instance, listen, gateway_routes(listen.declared), found)
    if (instance.name, listen.declared) in mesh.peers_at:
        yield _for_peers(mesh, instance, listen, [one for one in every if one.server.takes_peers])


def _table(mesh: Mesh, instance: Instance, listen: Listen, name: str, servers: Sequence[Opened]) -> dict[str, Any]:
    routes: dict[str, list[dict[str, Any]]] = {}
    for one in servers:
        if one.tls.https_redirect:
            routes |= {host: [_to_https(mesh, instance, host)] for host in one.server.bare_hosts}
        else:
            _add(mesh, instance, listen, one, routes)
    # the policy is asked before a request is told that there is no such route
    made = _configuration(name, routes, gateway_listener(instance.name, listen.declared), [NOWHERE])
    if any(is_over_quic(instance, one) for one in servers):
        value = {"key": "alt-svc", "value": f'h3=":{listen.actual}"; ma={ALTERNATIVE_SECONDS}'}
        made["response_headers_to_add"] = [{"header": value, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
    return made


def is_over_quic(instance: Instance, one: Opened) -> bool:
    """Whether a server is served by HTTP/3 too."""
    newest = one.tls.shows and one.tls.max_protocol_version in ("TLS_AUTO", "TLSV1_3")
    return instance.http3 and one.server.section == "http" and newest and not one.server.for_peers


def _for_peers(mesh: Mesh, instance: Instance, listen: Listen, servers: Sequence[Opened]) -> dict[str, Any]:
    routes: dict[str, list[dict[str, Any]]] = {}
    for one in servers:
        _add(mesh, instance, listen, one, routes)
    tunnels = filters.asked_for(tunnels_listener(instance.name, listen.declared))
    no_tunnel = {**NOWHERE, "match": connections.ANYTHING, "typed_per_filter_config": tunnels}
    asked_for = peers_listener(instance.name, listen.declared)
    return _configuration(peers_routes(listen.declared), routes, asked_for, [NOWHERE, no_tunnel])


def _configuration(
    name: str, routes: dict[str, list[dict[str, Any]]], asked_for: str, otherwise: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    routes.setdefault("*", [])
    hosts = [
        {
            "name": host,
            "domains": [host],
            "routes": [*_catch_all_last(found), *otherwise],
            "typed_per_filter_config": filters.asked_for(asked_for),
        }
        for host, found in routes.items()
    ]
    return {
        "name": name,
        "virtual_hosts": hosts,
        "ignore_port_in_host_matching": True,
        "max_direct_response_body_size_bytes": MAX_BODY,
    }


def bound(
    mesh: Mesh, instance: Instance, listen: Listen, one: Opened
) -> Iterator[tuple[VirtualService, View, list[str]]]:
    """The VirtualServices that are bound to a server's Gateway, for its proxy, and the hosts that both have."""
    caller = mesh.caller(instance)
    believed = rules_of(mesh.request_authentications, instance)
    tunnels = tunnels_listener(instance.name, listen.declared)
    view = View(caller, listen.declared, frozenset({one.gateway.id}), listen.actual, believed, tunnels)
    for owner in mesh.virtual_services:
        if _is_bound(owner, one.gateway, caller.namespace):
            served = one.server.hosts_for(one.gateway.namespace, owner.namespace)
            if hosts := _common(owner.spec.hosts, served):
                yield owner, view, hosts


def _add(mesh: Mesh, instance: Instance, listen: Listen, one: Opened, routes: dict[str, list[dict[str, Any]]]) -> None:
    """Add the rules of every VirtualService that is bound to a server's Gateway."""
    for owner, view, hosts in bound(mesh, instance, listen, one):
        if one.server.section == "tls":
            for name, route in connections.tls_routes(mesh, owner, view, hosts, instance.address):
                routes.setdefault(name, []).append(route)
            continue
        for host in hosts:
            led = routes.setdefault(host, [])
            if one.server.section == "tcp":
                led += connections.tcp_routes(mesh, owner, view, instance.address)
            else:
                led += rules.routes_of(mesh, owner, view)


def _to_https(mesh: Mesh, instance: Instance, host: str) -> dict[str, Any]:
    """Send to the encrypted port that serves a host here; where that is 443, or unknown, the port is left out."""
    redirect: dict[str, Any] = {"https_redirect": True, "response_code": "MOVED_PERMANENTLY"}
    actual = {listen.declared: listen.actual for listen in instance.listens}
    for one in opened(mesh, instance):
        port = actual.get(one.server.port.number, HTTPS_PORT)
        if one.server.encrypted and any(overlap(host, other) for other in one.server.bare_hosts):
            return {"match": EVERYTHING, "redirect": redirect | ({"port_redirect": port} if port != HTTPS_PORT else {})}
    return {"match": EVERYTHING, "redirect": redirect}


def _catch_all_last(routes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of several VirtualServices of a host, none hides the others behind a rule that answers everything."""
    return sorted(routes, key=rules.answers_all)


def _is_bound(owner: VirtualService, gateway: Gateway, namespace: str) -> bool:
    """Whether a VirtualService has rules for a Gateway, and is seen in the namespace of the proxy there."""
    seen = export_rank(owner.spec.export_to, owner.namespace, namespace) is not None
    return seen and gateway.id in owner.gateway_ids()


def _common(wanted: Iterable[str], served: Iterable[str]) -> list[str]:
    """The narrower host of each pair that has hosts in common, each once."""
    served = list(served)
    pairs = [(host, other) for host in wanted for other in served if overlap(host, other)]
    return list(dict.fromkeys(host if covers(other, host) else other for host, other in pairs))
