"""The Services of a mesh: made for each `service` and gateway of workloads.yaml, or declared as the core's kind.

Law: what is asked about is an instance's own `service`; a further Service that selects the same instance
leads there too, under another name. A declared Service takes the place of a made one of the same name.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping

from policyd.errors import Problem
from policyd.mesh.declare import Declaration, Declared
from policyd.mesh.istio.service import CoreService
from policyd.mesh.model import Instance, Port, Service

_Index = Mapping[tuple[str, str, str], list[Instance]]  # namespace, label, value -> sidecars


def build_services(
    declaration: Declaration, instances: Mapping[str, Instance], problems: list[Problem]
) -> tuple[dict[str, Service], dict[str, Instance]]:
    """Return the Services by id, and the instances with `also` filled in."""
    services = _made(instances.values())
    gateways = {instance.service for instance in instances.values() if instance.role == "gateway"}
    index = _index(instances.values())
    also: defaultdict[str, list[str]] = defaultdict(list)
    seen: set[str] = set()
    for declared in declaration.of(CoreService):
        service = _service(declared.resource)
        if service.id in seen or service.id in gateways:
            why = "declared twice" if service.id in seen else "that of a gateway"
            message = f"the service `{service.id}` is {why}"
            problems.append(declared.problem("duplicate", message, ("metadata", "name"), "rename or remove one"))
            continue
        seen.add(service.id)
        selected = _select(index, service.namespace, declared.resource.spec.selector)
        _check(declared, service, selected, problems)
        for instance in selected:
            if instance.service != service.id:
                also[instance.name].append(service.id)
        services[service.id] = service
    _check_own(declaration, services, instances.values(), index, problems)
    return services, {
        name: dataclasses.replace(instance, also=tuple(sorted(also[name]))) if name in also else instance
        for name, instance in instances.items()
    }


def _made(instances: Iterable[Instance]) -> dict[str, Service]:
    services: dict[str, Service] = {}
    for instance in instances:
        name, _, namespace = instance.service.partition(".")
        numbers = [listen.declared for listen in instance.listens] or [instance.service_port]
        ports = tuple(Port(number, instance.protocol, instance.protocol) for number in numbers)
        services.setdefault(instance.service, Service(name, namespace, ports, {"app": name}))
    return services


def _service(resource: CoreService) -> Service:
    ports = tuple(Port(port.port, port.name, port.speaks) for port in resource.spec.ports)
    return Service(resource.name, resource.namespace, ports, resource.metadata.labels)


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
        wanted = port.target_port or port.port
        if other := next((i for i in selected if i.service_port != wanted), None):
            message = (
                f"port {port.port} of service `{service.id}` leads to {wanted}, `{other.name}` has {other.service_port}"
            )
            remedy = f"set `targetPort: {other.service_port}`"
            problems.append(declared.problem("port", message, path, remedy))
        if other := next((i for i in selected if i.protocol != port.speaks), None):
            message = (
                f"port {port.port} of service `{service.id}` speaks {port.speaks}, `{other.name}` {other.protocol}"
            )
            problems.append(declared.problem("port", message, path, "give both the same protocol"))


def _check_own(
    declaration: Declaration,
    services: Mapping[str, Service],
    instances: Iterable[Instance],
    index: _Index,
    problems: list[Problem],
) -> None:
    """A declared Service of an instance's own name must lead to that instance, on its port."""
    declared = {_service(found.resource).id: found for found in declaration.of(CoreService)}
    for instance in instances:
        own = declared.get(instance.service)
        if own is None or instance.role == "gateway":
            continue
        if instance not in _select(index, own.resource.namespace, own.resource.spec.selector):
            message = f"the selector of service `{instance.service}` leaves out `{instance.name}`, which serves it"
            problems.append(own.problem("reference", message, ("spec", "selector"), "use labels that all have"))
        if instance.service_port not in (port.number for port in services[instance.service].ports):
            message = f"service `{instance.service}` lacks port {instance.service_port} of `{instance.name}`"
            problems.append(own.problem("port", message, ("spec", "ports"), "add it, or change workloads.yaml"))
