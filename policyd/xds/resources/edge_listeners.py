"""Listeners at the edge: a port's plain requests, its plain connections, or a chain for each server of TLS.

Law: the chain settles who comes: a stranger, or a workload of the mesh that has shown its identity. Each has routes of
its own, which say what is asked about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from policyd.mesh.model import Instance, Listen, Mesh, gateway_listener, peers_listener
from policyd.xds.resources import (
    certificates,
    counting,
    edge_connections,
    edges,
    egress,
    faults,
    filters,
    guard,
    inner,
    observing,
    proxied,
    quic,
    sessions,
    tcp,
    tls,
    tokens,
)
from policyd.xds.resources.listeners import HANDSHAKE_TIMEOUT, listener
from policyd.xds.resources.model import Control, gateway_routes, peers_routes, server_routes


@dataclass(frozen=True, slots=True)
class _Behind:
    """What requests pass before they are routed, and what is said of them (HttpConnectionManager)."""

    filters: list[dict[str, Any]]
    said: dict[str, Any]
    verification: list[dict[str, Any]]


def gateway(
    mesh: Mesh, instance: Instance, listen: Listen, control: Control, lookup: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """A port at the edge, for anyone: requests, connections, or a chain for each server of TLS, by the asked name.

    Where it speaks HTTP/3 there is a second one, for that.

    Workloads of the mesh may have a chain of their own there. `lookup` is as for `outbound`.
    """
    verification = tokens.verification(mesh, instance)
    seen = observing.seen(mesh, control, instance)
    behind = _Behind(
        [
            counting.says_who(instance),
            *filters.decision(control, verification),
            *lookup,
            *faults.FILTERS,
            sessions.FILTER,
            *seen.messages(asked=False),
        ],
        {**seen.outbound(), **tokens.replies(verification)},
        verification,
    )
    servers = list(edges.opened(mesh, instance, listen.declared))
    encrypted = [one for one in servers if one.server.encrypted]
    name = gateway_listener(instance.name, listen.declared)
    chains = [_server(instance, one, listen, behind) for one in encrypted if not one.server.for_peers]
    if not encrypted:
        filters_ = [_edge(name, gateway_routes(listen.declared), behind, **_of_strangers(instance))]
        if servers and servers[0].server.section == "tcp":
            filters_ = edge_connections.into_tunnel(instance, listen, servers[0])
        chains = [{"filters": filters_}]
    if (instance.name, listen.declared) in mesh.peers_at:
        if not encrypted:
            chains = [{"filter_chain_match": {"transport_protocol": "raw_buffer"}, **chains[0]}]
        chains += tls.for_peers(mesh, _peers(instance, listen, encrypted, behind, egress.is_by_proxies(mesh)))
    made = listener(name, instance.address, listen.actual, chains[0], "INBOUND")
    looks = any("filter_chain_match" in chain or "transport_socket" in chain for chain in chains)
    opened = {**made, "filter_chains": chains, **({"listener_filters": [guard.TLS_INSPECTOR]} if looks else {})}
    yield proxied.proxied(opened, instance.proxied_by)
    if over_quic := quic.offered(instance, encrypted):
        chains = [_server(instance, one, listen, behind, by_quic=True) for one in over_quic]
        yield quic.listener(name, instance.address, listen.actual, chains)


def _peers(
    instance: Instance, listen: Listen, encrypted: Sequence[edges.Opened], behind: _Behind, by_proxy: bool
) -> dict[str, Any]:
    """The chain of workloads of the mesh: by the name that only they ask for, or those of the servers for them."""
    name = peers_listener(instance.name, listen.declared)
    known: dict[str, Any] = {
        "preserve_external_request_id": True,
        "upgrade_configs": [{"upgrade_type": "websocket"}, tcp.CONNECT],
    }
    told = _Behind([*behind.filters, inner.tells(by_proxy=by_proxy)], behind.said, behind.verification)
    manager = _edge(name, peers_routes(listen.declared), told, **known)
    names = [host for one in encrypted if one.server.for_peers for host in one.server.bare_hosts]
    match: dict[str, Any] = {"transport_protocol": "tls"} if not encrypted else {}
    if encrypted and "*" not in names:
        match = {"server_names": [f"*.{instance.service}", *names]}
    chain = {"name": name, "filters": [manager]}
    return {"filter_chain_match": match, **chain} if match else chain


def _server(
    instance: Instance, one: edges.Opened, listen: Listen, behind: _Behind, *, by_quic: bool = False
) -> dict[str, Any]:
    """The chain of one encrypted server; what is passed on keeps its TLS."""
    name = server_routes(listen.declared, one.gateway.id, one.at)
    chain: dict[str, Any] = {"name": name}
    if one.server.section == "http":
        more = {**_of_strangers(instance, checked=not one.tls.takes_any), **(quic.MANAGER if by_quic else {})}
        chain["filters"] = [_edge(gateway_listener(instance.name, listen.declared), name, behind, **more)]
    else:
        chain["filters"] = edge_connections.into_tunnel(instance, listen, one)
    if by_quic:
        chain["transport_socket"] = quic.downstream(one.tls)
    elif one.tls.shows:
        alpn = certificates.ALPN if one.server.section == "http" else ()
        chain["transport_socket"] = certificates.downstream(one.tls, alpn)
        chain["transport_socket_connect_timeout"] = HANDSHAKE_TIMEOUT
    if one.server.to_every_service:
        return {"filter_chain_match": {"transport_protocol": "tls"}, **chain}
    names = one.server.bare_hosts
    return chain if "*" in names else {"filter_chain_match": {"server_names": list(names)}, **chain}


def _of_strangers(instance: Instance, *, checked: bool = True) -> dict[str, Any]:
    """What is believed of who is before the gateway: addresses by so many proxies, certificates of those that show one.

    Workloads of the mesh are none of them: they have a name of their own, and speak for nobody.
    """
    found: dict[str, Any] = {}
    if instance.trusted_proxies:
        found["xff_num_trusted_hops"] = instance.trusted_proxies
    if instance.forwards == "UNDEFINED" or not checked:
        return found
    found["forward_client_cert_details"] = instance.forwards
    if instance.forwards in ("SANITIZE_SET", "APPEND_FORWARD"):
        found["set_current_client_cert_details"] = {"subject": True, "dns": True, "uri": True}
    return found


def _edge(name: str, routes: str, behind: _Behind, **more: Any) -> dict[str, Any]:
    """Each request is decided, after its token was verified, before it is routed."""
    return filters.manager(
        name.replace("/", "."),
        behind.filters,
        filters.rds(routes),
        server_name="policyd",
        # a stranger does not choose the id of a request, and is told it
        always_set_request_id_in_response=True,
        **tokens.told(behind.said, name, behind.verification),
        # nobody outside the mesh may claim a certificate that no one checked
        **{"forward_client_cert_details": "SANITIZE", **more},
    )
