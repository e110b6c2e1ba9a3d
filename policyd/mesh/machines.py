"""Machines of the mesh in Istio's words: WorkloadEntries, and the ServiceEntries inside the mesh that select them.

Law: they become what workloads.yaml and a core Service would say of the same; nothing further on knows the difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from policyd.errors import Problem
from policyd.mesh.declaration import Declared
from policyd.mesh.files import WorkloadSpec
from policyd.mesh.hosts import resolve
from policyd.mesh.istio.common import Metadata
from policyd.mesh.istio.service import CoreService, ServicePort, ServiceSpec
from policyd.mesh.istio.service_entry import EntryPort, ServiceEntry
from policyd.mesh.istio.workload_entry import INBOUND_OF, WorkloadEntry

SELECT_IT: Final = "declare a Service, or a ServiceEntry inside the mesh, whose selector its labels have"


def services_inside(resources: Iterable[Declared[Any]], problems: list[Problem]) -> Iterator[Declared[CoreService]]:
    """The Services that ServiceEntries inside the mesh are: each of their hosts, with the ports and the selector."""
    for declared in resources:
        entry = declared.resource
        if not isinstance(entry, ServiceEntry) or not entry.is_inside or entry.spec.workload_selector is None:
            continue
        ports = tuple(ServicePort(port=one.number, name=_named(one)) for one in entry.spec.ports)
        spec = ServiceSpec(ports=ports, selector=entry.spec.workload_selector.labels)
        for at, host in enumerate(entry.spec.hosts):
            name, _, namespace = (resolve(host, entry.namespace) or "").partition(".")
            if namespace != entry.namespace:
                message = f"`{host}` is no name of the mesh in `{entry.namespace}`, where its ServiceEntry selects"
                remedy = f"write `<name>.{entry.namespace}.svc.cluster.local`"
                problems.append(declared.problem("reference", message, ("spec", "hosts", at), remedy))
                continue
            metadata = Metadata(name=name, namespace=namespace, labels=entry.metadata.labels)
            yield declared.standing_for(CoreService(metadata=metadata, spec=spec))


def machines(
    resources: Iterable[Declared[Any]], written: Mapping[str, object], problems: list[Problem]
) -> dict[str, WorkloadSpec]:
    """What workloads.yaml would say of each WorkloadEntry, by name; `written` are the names that it has already."""
    found: dict[str, WorkloadSpec] = {}
    every = tuple(resources)
    services = [one.resource for one in every if isinstance(one.resource, CoreService)]
    for declared in every:
        entry = declared.resource
        if not isinstance(entry, WorkloadEntry):
            continue
        service = next((one for one in services if _selects(one, entry)), None)
        if entry.name in written or entry.name in found:
            message = f"an instance is called `{entry.name}` already"
            problems.append(declared.problem("duplicate", message, ("metadata", "name"), "rename one"))
        elif service is None:
            message = f"no Service of `{entry.namespace}` selects the machine `{entry.name}`"
            problems.append(declared.problem("reference", message, ("spec", "labels"), SELECT_IT))
        elif unknown := [name for name in entry.spec.ports if name not in {_port.name for _port in service.spec.ports}]:
            message = f"the service `{service.name}` has no port `{unknown[0]}`"
            remedy = f"it has {', '.join(one.name for one in service.spec.ports)}"
            problems.append(declared.problem("reference", message, ("spec", "ports", unknown[0]), remedy))
        elif unknown := [
            name for name in entry.given_inbound if name not in {port.name for port in service.spec.ports}
        ]:
            message = f"the service `{service.name}` has no port `{unknown[0]}`"
            remedy = f"it has {', '.join(one.name for one in service.spec.ports)}"
            path = ("metadata", "annotations", f"{INBOUND_OF}{unknown[0]}")
            problems.append(declared.problem("reference", message, path, remedy))
        elif missing := _unreached(entry, service):
            message = f"where `{entry.name}` is reached on port `{missing}` of `{service.name}` is not said"
            remedy = f"add the annotation `{INBOUND_OF}{missing}`"
            problems.append(declared.problem("port", message, ("metadata", "annotations"), remedy))
        else:
            found[entry.name] = _spec(entry, service)
    return found


def _unreached(entry: WorkloadEntry, service: CoreService) -> str | None:
    """The name of a port, not the first one, of which it is not known where peers reach it."""
    further = (port.name for port in service.spec.ports[1:] if not entry.is_proxyless)
    return next((name for name in further if entry.inbound_port(name, first=False) is None), None)


def _selects(service: CoreService, entry: WorkloadEntry) -> bool:
    return service.namespace == entry.namespace and service.spec.selector.items() <= entry.spec.labels.items()


def _spec(entry: WorkloadEntry, service: CoreService) -> WorkloadSpec:
    ports: dict[int, dict[str, Any]] = {}
    for port in service.spec.ports:
        number = port.target_port if isinstance(port.target_port, int) else port.port
        name = port.target_port if isinstance(port.target_port, str) else port.name
        if number not in ports and name not in {one["name"] for one in ports.values()}:
            listens = entry.spec.ports.get(port.name, number)
            own = {} if entry.is_proxyless else {"app_port": listens}
            reached = listens if entry.is_proxyless else entry.inbound_port(port.name, first=not ports)
            ports[number] = {"port": number, "name": name, "protocol": port.speaks, "inbound_port": reached, **own}
    return WorkloadSpec(
        service=service.name,
        ports=tuple(ports.values()),  # type: ignore[arg-type]  # as a file has them: the model itself would ask us
        labels=entry.spec.labels,
        service_account=entry.spec.service_account,
        namespace=entry.namespace,
        locality=entry.spec.locality,
        weight=entry.spec.weight,
        address=entry.spec.address,
        outbound_port=None if entry.is_proxyless else entry.outbound_port,
        proxyless=entry.is_proxyless,
    )


def _named(port: EntryPort) -> str:
    """The port's name in the words of a core Service, whose protocol stands in front."""
    protocol = port.protocol.lower()
    said = port.name.partition("-")[0] == protocol
    return port.name if said else f"{protocol}-{port.name}"[:63].rstrip("-")
