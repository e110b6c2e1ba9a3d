"""Gateways and VirtualServices against the mesh: what they select, refer to and route to is there.

Law: a rule that could never take effect is refused, never kept without effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from policyd.errors import Problem
from policyd.mesh.declare import Declaration, Declared
from policyd.mesh.hosts import overlap, resolve, target
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.virtual_service import MESH, VirtualService
from policyd.mesh.matching import did_you_mean
from policyd.mesh.model import Instance, Service

DECLARE: Final = "declare it in workloads.yaml"
DECLARE_GATEWAY: Final = "declare the Gateway, or write `mesh` for all sidecars"
NAME_A_SERVICE: Final = "name a service; `*` and outside names are for gateways only"


def selects(gateway: Gateway, instance: Instance) -> bool:
    """Tell whether a Gateway holds at an instance (in any namespace, as in Istio)."""
    labels = gateway.spec.selector.items()
    return instance.role == "gateway" and all(instance.labels.get(label) == value for label, value in labels)


def check_gateways(declaration: Declaration, instances: Mapping[str, Instance], problems: list[Problem]) -> None:
    """Each Gateway has its own name, selects some instance, and names only ports that those listen on."""
    edges = [instance for instance in instances.values() if instance.role == "gateway"]
    _check_names(declaration.of(Gateway), "Gateway", problems)
    for declared in declaration.of(Gateway):
        gateway = declared.resource
        selected = [instance for instance in edges if selects(gateway, instance)]
        if not selected:
            message = f"the selector of Gateway `{gateway.name}` matches no gateway"
            remedy = "declare one under `gateways` in workloads.yaml; its label is `istio: ingressgateway`"
            problems.append(declared.problem("reference", message, ("spec", "selector"), remedy))
        for at, server in enumerate(gateway.spec.servers):
            number = server.port.number
            deaf = [i.name for i in selected if number not in (listen.declared for listen in i.listens)]
            if deaf:
                message = f"the gateway `{deaf[0]}` does not listen on port {number}"
                path = ("spec", "servers", at, "port", "number")
                problems.append(declared.problem("reference", message, path, "add it to `listen` in workloads.yaml"))


def check_virtual_services(
    declaration: Declaration,
    instances: Mapping[str, Instance],
    services: Mapping[str, Service],
    problems: list[Problem],
) -> None:
    """Each VirtualService has its own name, known gateways, hosts that lead to it, existing destinations."""
    gateways = {found.resource.id: found.resource for found in declaration.of(Gateway)}
    edges = {instance.service for instance in instances.values() if instance.role == "gateway"}
    _check_names(declaration.of(VirtualService), "VirtualService", problems)
    routed: dict[str, str] = {}
    for declared in declaration.of(VirtualService):
        served = _check_bound(declared, gateways, problems)
        _check_hosts(declared, served, services, routed, problems)
        _check_destinations(declared, services, edges, problems)


def _check_names(
    resources: Iterable[Declared[Gateway]] | Iterable[Declared[VirtualService]],
    kind: str,
    problems: list[Problem],
) -> None:
    seen: dict[str, str] = {}
    for declared in resources:
        place = f"{declared.document.file}:{declared.document.find(('metadata', 'name')).line}"
        first = seen.setdefault(declared.resource.id, place)
        if first != place:
            message = f"the {kind} `{declared.resource.id}` is declared twice, first in {first}"
            problems.append(declared.problem("duplicate", message, ("metadata", "name"), "rename or remove one"))


def _check_bound(
    declared: Declared[VirtualService], gateways: Mapping[str, Gateway], problems: list[Problem]
) -> list[str]:
    """Each gateway it is bound to is there; return the host patterns that those serve."""
    virtual = declared.resource
    for at, name in enumerate(virtual.spec.gateways):
        id_ = name if "/" in name else f"{virtual.namespace}/{name}"
        if name != MESH and id_ not in gateways:
            remedy = did_you_mean(id_, gateways, problems)
            message = f"no Gateway is called `{name[:80]}`"
            path = ("spec", "gateways", at)
            problems.append(declared.problem("reference", message, path, remedy or DECLARE_GATEWAY))
    bound = [gateways[id_] for id_ in virtual.gateway_ids() if id_ in gateways]
    return [host for gateway in bound for server in gateway.spec.servers for host in server.hosts]


def _check_hosts(
    declared: Declared[VirtualService],
    served: list[str],
    services: Mapping[str, Service],
    routed: dict[str, str],
    problems: list[Problem],
) -> None:
    """Each host leads here: through a gateway that serves it, or in sidecars as the name of a Service.

    In sidecars one VirtualService has all the rules of a Service.
    """
    virtual = declared.resource
    for at, host in enumerate(virtual.spec.hosts):
        path = ("spec", "hosts", at)
        id_ = resolve(host, virtual.namespace) if virtual.in_mesh else None
        if id_ is not None and id_ in services:
            if (other := routed.setdefault(id_, virtual.id)) != virtual.id:
                message = f"the host `{host}` has its rules in the VirtualService `{other}` already"
                problems.append(declared.problem("duplicate", message, path, "write all rules of a host into one"))
        elif any(overlap(host, pattern) for pattern in served):
            continue
        elif virtual.in_mesh:
            message = f"the host `{host}` is no service of the mesh"
            remedy = did_you_mean(id_ or host, services, problems)
            problems.append(declared.problem("reference", message, path, remedy or NAME_A_SERVICE))
        elif served:
            message = f"the host `{host}` is served by none of its gateways"
            problems.append(declared.problem("reference", message, path, "add it to a Gateway's `hosts`"))


def _check_destinations(
    declared: Declared[VirtualService],
    services: Mapping[str, Service],
    edges: set[str],
    problems: list[Problem],
) -> None:
    virtual = declared.resource
    for at, rule in enumerate(virtual.spec.http):
        for of, route in enumerate(rule.route):
            destination = route.destination
            path = ("spec", "http", at, "route", of, "destination")
            id_ = resolve(destination.host, virtual.namespace)
            if id_ is None or id_ not in services:
                remedy = did_you_mean(id_ or destination.host, services, problems)
                message = f"the destination `{destination.host}` is no service of the mesh"
                problems.append(declared.problem("reference", message, (*path, "host"), remedy or DECLARE))
            elif id_ in edges:
                message = f"the destination `{destination.host}` is a gateway"
                problems.append(declared.problem("reference", message, (*path, "host"), "route to what it serves"))
            elif target(destination, virtual.namespace, services) is None:
                ports = ", ".join(str(port.number) for port in services[id_].ports)
                message = f"the port of destination `{destination.host}` is missing or none of its own"
                problems.append(declared.problem("reference", message, (*path, "port"), f"it has {ports}"))
