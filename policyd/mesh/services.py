"""The Services of a mesh: made for each `service` and gateway of workloads.yaml, or declared as the core's kind.

Law: what is asked about is an instance's own `service`; a further Service that selects the same instance
leads there too, under another name. A declared Service takes the place of a made one of the same name.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from policyd.errors import Problem
from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.edges import sections
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.service import CoreService, ServicePort
from policyd.mesh.model import Instance, Port, Served, Service

_Index = Mapping[tuple[str, str, str], list[Instance]]  # namespace, label, value -> sidecars


def build_services(
    declaration: Declaration, instances: Mapping[str, Instance], problems: list[Problem]
) -> tuple[dict[str, Service], dict[str, Instance]]:
    """Return the Services by id, and the instances with `also` filled in."""
    services = _made(instances.values(), [found.resource for found in declaration.of(Gateway)])
    gateways = {instance.service for instance in instances.values() if instance.role == "gateway"}
    index = _index(instances.values())
    also: defaultdict[str, list[str]] = defaultdict(list)
    seen: set[str] = set()
    for declared in declaration.of(CoreService):
        id_ = _id(declared.resource)
        if id_ in seen or id_ in gateways:
            why = "declared twice" if id_ in seen else "that of a gateway"
            message = f"the service `{id_}` is {why}"
            problems.append(declared.problem("duplicate", message, ("metadata", "name"), "rename or remove one"))
            continue
        seen.add(id_)
        selected = _select(index, declared.resource.namespace, declared.resource.spec.selector)
        service = _service(declared.resource, selected)
        _check(declared, service, selected, problems)
        for instance in selected:
            if instance.service != service.id:
                also[instance.name].append(service.id)
        services[service.id] = service
    _check_own(declaration, services, instances.values(), index, problems)
    return services, {
        name: _known(instance, services[instance.service] if instance.service in seen else None, also.get(name, ()))
        for name, instance in instances.items()
    }


def _known(instance: Instance, own: Service | None, also: Iterable[str]) -> Instance:
    """An instance with its further Services, and its ports by the numbers of its own one, where that is declared."""
    known = dataclasses.replace(instance, also=tuple(sorted(also))) if also else instance
    if own is None or instance.role == "gateway":
        return known
    by_target = {port.leads_to: port for port in reversed(own.ports)}
    return dataclasses.replace(known, ports=tuple(_as_called(one, by_target.get(one.number)) for one in instance.ports))


def _as_called(served: Served, port: Port | None) -> Served:
    """A port by the number and, where its workload does not say it, with the protocol of its Service."""
    if port is None:
        return served
    speaks = port.protocol if served.protocol == "auto" else served.protocol
    return dataclasses.replace(served, service_port=port.number, protocol=speaks)


def _made(instances: Iterable[Instance], gateways: Sequence[Gateway]) -> dict[str, Service]:
    services: dict[str, Service] = {}
    for instance in instances:
        if instance.service in services:
            continue
        name, _, namespace = instance.service.partition(".")
        ports = tuple(Port(one.number, one.name, one.protocol) for one in instance.ports)
        ports += tuple(_at_edge(gateways, instance, listen.declared) for listen in instance.listens)
        services[instance.service] = Service(name, namespace, ports, {"app": name})
    return services


def _at_edge(gateways: Sequence[Gateway], instance: Instance, number: int) -> Port:
    return Port(number) if "http" in sections(gateways, instance, number) else Port(number, "tcp", "tcp")


def _id(resource: CoreService) -> str:
    return f"{resource.name}.{resource.namespace}"


def _service(resource: CoreService, selected: Sequence[Instance]) -> Service:
    named = {port.name: port.number for instance in selected for port in instance.ports}
    ports = tuple(_port(port, _target(port, named), selected) for port in resource.spec.ports)
    unready = resource.spec.publish_not_ready_addresses
    return Service(resource.name, resource.namespace, ports, resource.metadata.labels, unready)


def _port(port: ServicePort, target: int, selected: Sequence[Instance]) -> Port:
    """A port speaks what it says, else what its workloads say of theirs."""
    behind = (found.protocol for one in selected if (found := one.serving(target)) is not None)
    speaks = port.says or next(behind, None) or port.speaks
    return Port(port.port, port.name, speaks, 0 if target == port.port else target)


def _target(port: ServicePort, named: Mapping[str, int]) -> int:
    """The workloads' own port that a Service's port leads to: the same number, unless another, or a name, is given."""
    if isinstance(port.target_port, str):
        return named.get(port.target_port, port.port)
    return port.target_port or port.port


def _index(instances: Iterable[Instance]) -> _Index:
    index: defaultdict[tuple[str, str, str], list[Instance]] = defaultdict(list)
    for instance in instances:
        namespace = instance.service.partition(".")[2]
        for label, value in instance.labels.items():
            if instance.role == "sidecar":
                index[namespace, label, value].append(instance)
    return index


def _select(index: _Index, namespace: str, selector: Mapping[str, str]) -> list[Instance]:
    """Return the sidecars that bear every label; the rarest label is looked up, the others compared."""
    candidates = min((index.get((namespace, *pair), []) for pair in selector.items()), key=len)
    return [i for i in candidates if all(i.labels.get(label) == value for label, value in selector.items())]


def _check(
    declared: Declared[CoreService], service: Service, selected: list[Instance], problems: list[Problem]
) -> None:
    spec = declared.resource.spec
    if not selected:
        message = f"the selector of service `{service.id}` matches no workload of its namespace"
        remedy = "compare it with the labels in workloads.yaml; `app` is the service's name"
        problems.append(declared.problem("reference", message, ("spec", "selector"), remedy))
    numbers: set[int] = set()
    names: set[str] = set()
    for at, port in enumerate(spec.ports):
        path = ("spec", "ports", at)
        if port.port in numbers or port.name in names:
            message = f"port {port.port} (`{port.name}`) of service `{service.id}` repeats a number or a name"
            problems.append(declared.problem("duplicate", message, path, "give each port its own number and name"))
        numbers.add(port.port)
        names.add(port.name)
        _check_target(declared, service, at, selected, problems)


def _check_target(
    declared: Declared[CoreService],
    service: Service,
    at: int,
    selected: Sequence[Instance],
    problems: list[Problem],
) -> None:
    """A port leads to one that all selected instances have, and that speaks the same there."""
    port, target = service.ports[at], declared.resource.spec.ports[at].target_port
    path = ("spec", "ports", at)
    for instance in selected:
        found = instance.serving(port.leads_to)
        if found is None or target not in (None, found.number, found.name):
            by_name = isinstance(target, str)
            has = ", ".join(one.name if by_name else str(one.number) for one in instance.ports)
            wanted = target or port.number
            message = f"port {port.number} of service `{service.id}` leads to {wanted}, `{instance.name}` has {has}"
            one_only = len(instance.ports) == 1
            remedy = f"set `targetPort: {has}`" if one_only else "set `targetPort` to one of these"
            problems.append(declared.problem("port", message, path, remedy))
            return
        if found.protocol not in (port.protocol, "auto"):
            speaks = f"speaks {port.protocol}, `{instance.name}` {found.protocol}"
            message = f"port {port.number} of service `{service.id}` {speaks}"
            problems.append(declared.problem("port", message, path, "give both the same protocol"))
            return


def _check_own(
    declaration: Declaration,
    services: Mapping[str, Service],
    instances: Iterable[Instance],
    index: _Index,
    problems: list[Problem],
) -> None:
    """A declared Service of an instance's own name must lead to that instance, on each of its ports."""
    declared = {_id(found.resource): found for found in declaration.of(CoreService)}
    for instance in instances:
        own = declared.get(instance.service)
        if own is None or instance.role == "gateway":
            continue
        if instance not in _select(index, own.resource.namespace, own.resource.spec.selector):
            message = f"the selector of service `{instance.service}` leaves out `{instance.name}`, which serves it"
            problems.append(own.problem("reference", message, ("spec", "selector"), "use labels that all have"))
        led_to = {port.leads_to for port in services[instance.service].ports}
        if missing := next((port.number for port in instance.ports if port.number not in led_to), None):
            message = f"service `{instance.service}` lacks port {missing} of `{instance.name}`"
            problems.append(own.problem("port", message, ("spec", "ports"), "add it, or change workloads.yaml"))
