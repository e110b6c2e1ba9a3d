"""Gateways against the mesh: they select an instance, name ports that it opens, and share them without contradiction.

Law: a port is for plain requests, for plain connections or for TLS, and the host of a TLS one is one server's: which
server answers is decided by what the client asks for, never by luck.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Final

from policyd.errors import InvalidInput, Problem
from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.gateway_api.values import OpenedListener
from policyd.mesh.istio.common import Section
from policyd.mesh.istio.gateway import Gateway, Server
from policyd.mesh.istio.virtual_service import VirtualService, led_to
from policyd.mesh.model import (
    Instance,
    Listener,
    Service,
    connections_listener,
    gateway_listener,
    peers_listener,
    tunnels_listener,
)
from policyd.mesh.selection import check_names
from policyd.mesh.service_names import target
from policyd.yaml import Path

CONNECTIONS: Final = "plain connections"


def selects(gateway: Gateway, instance: Instance) -> bool:
    """Tell whether a Gateway holds at an instance (in any namespace, as in Istio)."""
    if isinstance(gateway, OpenedListener):
        return instance.name in gateway.instances
    labels = gateway.spec.selector.items()
    return instance.role == "gateway" and all(instance.labels.get(label) == value for label, value in labels)


def servers_at(gateways: Iterable[Gateway], instance: Instance, port: int) -> Iterator[Server]:
    """The servers of a gateway's declared port."""
    held = (gateway for gateway in gateways if selects(gateway, instance))
    return (server for gateway in held for server in gateway.spec.servers if server.port.number == port)


def sections(gateways: Iterable[Gateway], instance: Instance, port: int) -> frozenset[Section]:
    """What the servers of a gateway's declared port are for; requests where there is none yet."""
    found = {server.section for server in servers_at(gateways, instance, port)}
    return frozenset(found or {"http"})


def peers_at(
    gateways: Sequence[Gateway],
    virtual_services: Iterable[VirtualService],
    instances: Mapping[str, Instance],
    services: Mapping[str, Service],
) -> frozenset[tuple[str, int]]:
    """The gateways' declared ports that workloads come to: a server there is for them, or a rule leads them there."""
    led = {
        (meant[0].id, meant[1])
        for virtual in virtual_services
        if virtual.in_mesh
        for _, destination in led_to(virtual)
        if (meant := target(destination, virtual.namespace, services)) is not None
    }
    return frozenset(
        (instance.name, listen.declared)
        for instance in instances.values()
        for listen in instance.listens
        if (instance.service, listen.declared) in led
        or any(server.for_peers for server in servers_at(gateways, instance, listen.declared))
    )


def edge_listeners(
    gateways: Sequence[Gateway], instance: Instance, port: int, issuers: Mapping[str, frozenset[str]], peers: bool
) -> Iterator[Listener]:
    """Where a gateway is asked for a declared port: for requests and connections, of strangers and of `peers`."""
    own = (instance.name, instance.workload, instance.service, port)
    servers = list(servers_at(gateways, instance, port))
    of_all = {server.section for server in servers if not server.for_peers} or ({"http"} - {s.section for s in servers})
    if "http" in of_all:
        name = gateway_listener(instance.name, port)
        hops = instance.trusted_proxies
        yield Listener(name, "gateway", *own, verifies_peers=False, issuers=issuers, trusted_proxies=hops)
    if of_all - {"http"}:
        name = connections_listener(instance.name, port)
        yield Listener(name, "gateway", *own, verifies_peers=False, protocol="tcp")
    if peers:
        name = peers_listener(instance.name, port)
        yield Listener(name, "gateway", *own, verifies_peers=True, issuers=issuers)
        name = tunnels_listener(instance.name, port)
        yield Listener(name, "gateway", *own, verifies_peers=True, protocol="tcp")


def check_proxied(declaration: Declaration, instances: Mapping[str, Instance], peers: Set[tuple[str, int]]) -> None:
    """No workload comes to a gateway whose connections begin with a PROXY header: sidecars send none."""
    remedy = "lead them to a gateway of their own, or give it a `gatewayTopology` without `proxyProtocol`"
    problems = [
        declaration.workloads_document.problem(
            "field",
            f"workloads of the mesh come to port {port} of `{name}`, and their sidecars send no PROXY header",
            ("gateways", name, "gatewayTopology", "proxyProtocol"),
            remedy,
        )
        for name, port in sorted(peers)
        if instances[name].proxied_by
    ]
    if problems:
        raise InvalidInput(problems)


def check_gateways(declaration: Declaration, instances: Mapping[str, Instance], problems: list[Problem]) -> None:
    """Each Gateway has its own name, selects some instance, and names only ports that those listen on."""
    edges = [instance for instance in instances.values() if instance.role == "gateway"]
    check_names(declaration.of(Gateway), "Gateway", problems)
    ports = {edge.name: _Ports(edge) for edge in edges}
    for declared in declaration.of(Gateway):
        gateway = declared.resource
        selected = [instance for instance in edges if selects(gateway, instance)]
        if not selected:
            message = f"the selector of Gateway `{gateway.name}` matches no gateway"
            remedy = "declare one under `gateways` in workloads.yaml; its label is `istio: ingressgateway`"
            problems.append(declared.problem("reference", message, ("spec", "selector"), remedy))
        for at, server in enumerate(gateway.spec.servers):
            number = server.port.number
            path = ("spec", "servers", at)
            deaf = [i.name for i in selected if number not in (listen.declared for listen in i.listens)]
            if deaf:
                message = f"the gateway `{deaf[0]}` does not listen on port {number}"
                remedy = "add it to `listen` in workloads.yaml"
                problems.append(declared.problem("reference", message, (*path, "port", "number"), remedy))
            found = [problem for one in selected for problem in ports[one.name].claim(declared, path, server)]
            problems += found[:1]


class _Ports:
    """What the ports of a gateway are given to, server by server."""

    def __init__(self, edge: Instance) -> None:
        self._edge = edge
        self._kinds: dict[int, tuple[str, Server, str]] = {}
        self._hosts: dict[tuple[int, str], tuple[Server, str]] = {}

    def claim(self, declared: Declared[Gateway], path: Path, server: Server) -> list[Problem]:
        """Give a server its port and hosts; returns what stands against it."""
        gateway, number = declared.resource, server.port.number
        kind, first, owner = self._kinds.setdefault(number, (_kind(server), server, gateway.id))
        where, remedy = (*path, "port", "protocol"), "give one of them another port"
        if kind != _kind(server):
            message = f"port {number} of `{self._edge.name}` is for {kind} and {_kind(server)} at once, see the Gateway"
            return [declared.problem("conflict", f"{message} `{owner}`", where, remedy)]
        if kind == CONNECTIONS and first is not server:
            message = f"the connections of port {number} of `{self._edge.name}` are a server's in `{owner}` already"
            return [declared.problem("conflict", message, where, remedy)]
        found = []
        # its names have a form of their own, and are those of no other server
        hosts = ("*",) if server.to_every_service else server.bare_hosts if server.encrypted else ()
        for at, host in enumerate(hosts):
            other, owner = self._hosts.setdefault((number, host), (server, gateway.id))
            if other is not server:
                message = f"the host `{host}` on port {number} of `{self._edge.name}` has its TLS in `{owner}` already"
                found.append(declared.problem("conflict", message, (*path, "hosts", at), "write it into one server"))
        return found


def _kind(server: Server) -> str:
    if server.encrypted:
        return "TLS"
    return CONNECTIONS if server.section == "tcp" else "plain requests"
