"""Gateways against the mesh: they select an instance, name ports that it opens, and share them without contradiction.

Law: a port is plain or encrypted, never both, and the host of an encrypted one has one certificate: which server
answers is decided by what the client asks for, never by luck.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policyd.errors import Problem
from policyd.mesh.declare import Declaration, Declared
from policyd.mesh.istio.gateway import Gateway, Server
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.model import Instance
from policyd.yaml import Path


def selects(gateway: Gateway, instance: Instance) -> bool:
    """Tell whether a Gateway holds at an instance (in any namespace, as in Istio)."""
    labels = gateway.spec.selector.items()
    return instance.role == "gateway" and all(instance.labels.get(label) == value for label, value in labels)


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


def check_names(
    resources: Iterable[Declared[Gateway]] | Iterable[Declared[VirtualService]],
    kind: str,
    problems: list[Problem],
) -> None:
    """No two resources of a kind have one name."""
    seen: dict[str, str] = {}
    for declared in resources:
        place = f"{declared.document.file}:{declared.document.find(('metadata', 'name')).line}"
        first = seen.setdefault(declared.resource.id, place)
        if first != place:
            message = f"the {kind} `{declared.resource.id}` is declared twice, first in {first}"
            problems.append(declared.problem("duplicate", message, ("metadata", "name"), "rename or remove one"))


class _Ports:
    """What the ports of a gateway are given to, server by server."""

    def __init__(self, edge: Instance) -> None:
        self._edge = edge
        self._encrypted: dict[int, tuple[bool, str]] = {}
        self._hosts: dict[tuple[int, str], tuple[Server, str]] = {}

    def claim(self, declared: Declared[Gateway], path: Path, server: Server) -> list[Problem]:
        """Give a server its port and hosts; returns what stands against it."""
        gateway, number = declared.resource, server.port.number
        encrypted, first = self._encrypted.setdefault(number, (server.encrypted, gateway.id))
        if encrypted != server.encrypted:
            message = f"port {number} of `{self._edge.name}` is plain text and TLS at once, see the Gateway `{first}`"
            return [declared.problem("conflict", message, (*path, "port", "protocol"), "give one of them another port")]
        found = []
        for at, host in enumerate(server.bare_hosts if server.encrypted else ()):
            other, owner = self._hosts.setdefault((number, host), (server, gateway.id))
            if other is not server:
                message = f"the host `{host}` on port {number} of `{self._edge.name}` has its TLS in `{owner}` already"
                where = (*path, "hosts", at)
                found.append(declared.problem("conflict", message, where, "write it into one server"))
        return found
