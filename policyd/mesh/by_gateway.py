"""Rules that lead workloads of the mesh to a gateway, as on their way out.

Law: only sidecars are led there, and only to a server that wants no other certificate than theirs: by their identity
they are known to policies at the gateway too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from policyd.mesh.edges import servers_at
from policyd.mesh.istio.destination import Destination
from policyd.mesh.istio.gateway import Gateway, Server
from policyd.mesh.istio.virtual_service import MESH, VirtualService, held_at
from policyd.mesh.model import Instance
from policyd.yaml import Path

FOR_PEERS: Final = "give it `tls: {mode: ISTIO_MUTUAL}`"


class ByGateway:
    """The servers of every gateway, by the gateway's Service and port."""

    def __init__(self, instances: Iterable[Instance], gateways: Sequence[Gateway]) -> None:
        self._servers: defaultdict[str, dict[int, list[Server]]] = defaultdict(dict)
        for instance in instances:
            for listen in instance.listens:
                found = servers_at(gateways, instance, listen.declared)
                self._servers[instance.service].setdefault(listen.declared, []).extend(found)

    def has(self, service: str) -> bool:
        """Whether a Service (an id) is a gateway's."""
        return service in self._servers

    def fault(
        self, virtual: VirtualService, path: Path, destination: Destination, service: str
    ) -> tuple[str, str, str] | None:
        """What is wrong with leading there, what to do, and at which field; None if nothing is."""
        ports = self._servers[service]
        number = destination.port.number if destination.port else next(iter(ports)) if len(ports) == 1 else 0
        if "route" not in path or held_at(virtual, path) != {MESH}:
            return f"the destination `{destination.host}` is a gateway", "route to what it serves", "host"
        if number not in ports:
            listed = f"it has {', '.join(map(str, ports))}"
            return f"the port of the gateway `{destination.host}` is missing or none of its own", listed, "port"
        servers = [one for one in ports[number] if (one.section == "http") is (path[1] == "http")]
        if not any(one.takes_peers for one in servers):
            message = (
                f"the gateway `{destination.host}` has no server for `{path[1]}` rules of sidecars on port {number}"
            )
            return message, FOR_PEERS, "port"
        return None
