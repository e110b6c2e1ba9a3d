"""The `tcp` and `tls` rules of VirtualServices against the mesh: whose connections they could lead.

Law: as of all rules, what could never take effect is refused. A tunnel between sidecars is asked for by name, so there
it has no address to go by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from policyd.errors import Problem
from policyd.mesh.declaration import Declared
from policyd.mesh.hosts import covers, resolve
from policyd.mesh.istio.common import Section
from policyd.mesh.istio.connection_route import ConnectionMatch, TlsMatch
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.virtual_service import MESH, SECTIONS, VirtualService
from policyd.mesh.model import Service
from policyd.mesh.precedence import key

_SERVERS: Final[Mapping[Section, str]] = {
    "http": "requests (HTTP or HTTPS)",
    "tcp": "connections (TCP, or TLS that ends there)",
    "tls": "TLS that is passed on (`mode: PASSTHROUGH`)",
}


def check_connections(
    declared: Declared[VirtualService],
    gateways: Mapping[str, Gateway],
    services: Mapping[str, Service],
    problems: list[Problem],
) -> None:
    """Its rules have servers at its gateways, and its matches can hold."""
    virtual = declared.resource
    _check_servers(declared, gateways, problems)
    for path, match in virtual.matches():
        if isinstance(match, ConnectionMatch) and match.destination_subnets and _in_mesh(virtual, match):
            message = "connections between sidecars are asked for by name, and have no address to go by"
            remedy = "remove it, or say `gateways` in this `match`"
            problems.append(declared.problem("reference", message, (*path, "destinationSubnets"), remedy))
        for at, name in enumerate(match.sni_hosts if isinstance(match, TlsMatch) else ()):
            if not _is_own(name, virtual, services):
                message = f"the name `{name}` is none of the VirtualService's hosts"
                remedy = "add it to `spec.hosts`"
                problems.append(declared.problem("reference", message, (*path, "sniHosts", at), remedy))


def unspoken(virtual: VirtualService, service: Service, services: Mapping[str, Service]) -> tuple[str, str] | None:
    """What is wrong where none of the rules is for what a Service of the mesh speaks, and what to do."""
    if not any(port.takes_requests for port in service.ports) and not (virtual.spec.tcp or virtual.spec.tls):
        return "speaks TCP only, for which there are no `http` rules", "write `tcp` rules"
    if not any(port.takes_connections for port in service.ports) and not virtual.spec.http:
        return "answers requests only, for which there are no `tcp` and `tls` rules", "write `http` rules"
    unsaid = next((port.number for port in service.ports if port.protocol == "auto"), None)
    led = (one.destination for rule in (*virtual.spec.tcp, *virtual.spec.tls) for one in rule.route)
    if unsaid is not None and any(resolve(one.host, virtual.namespace) not in services for one in led):
        # what leaves is decided when it is asked for, and here nobody knows yet whether it is a connection
        tells = f"has port {unsaid}, whose first bytes tell what it speaks"
        return f"{tells}, so that no `tcp` and no `tls` rule leads outside", "name its protocol"
    return None


def _check_servers(
    declared: Declared[VirtualService], gateways: Mapping[str, Gateway], problems: list[Problem]
) -> None:
    virtual = declared.resource
    bound = [gateways[id_] for id_ in virtual.gateway_ids() if id_ in gateways]
    if virtual.in_mesh or not bound:
        return
    served = {server.section for gateway in bound for server in gateway.spec.servers if not server.to_every_service}
    for section in SECTIONS:
        if getattr(virtual.spec, section) and section not in served:
            message = f"none of its gateways has a server for {_SERVERS[section]}"
            remedy = "add one, or remove these rules"
            problems.append(declared.problem("reference", message, ("spec", section), remedy))


def _in_mesh(virtual: VirtualService, match: ConnectionMatch) -> bool:
    return virtual.in_mesh and (not match.gateways or MESH in match.gateways)


def _is_own(name: str, virtual: VirtualService, services: Mapping[str, Service]) -> bool:
    """Whether a name is one of the hosts; every spelling of a Service's name is."""
    meant = key(name, virtual.namespace, services)
    return any(covers(host, name) or key(host, virtual.namespace, services) == meant for host in virtual.spec.hosts)
