"""What resources of the Gateway API may refer to: Services with their ports, Hosts outside, and the gateway instances.

Law: a port speaks here what it does in the Mesh: what its Service says of it, else what its workloads say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from policyd.mesh.declaration import Declared
from policyd.mesh.files import PortSpec, WorkloadsFile, WorkloadSpec
from policyd.mesh.istio.service import CoreService, ServicePort
from policyd.mesh.istio.service_entry import ServiceEntry
from policyd.mesh.protocols import Protocol, takes_connections, takes_requests
from policyd.strict import NOTHING

EDGE: Mapping[str, str] = {"istio": "ingressgateway"}  # the label of gateways that have no other one


@dataclass(frozen=True, slots=True)
class KnownPort:
    """A port of a Service or of a Host."""

    number: int
    name: str
    requests: bool
    connections: bool


@dataclass(frozen=True, slots=True)
class Edge:
    """A gateway instance: its Service, its labels, the ports that it opens, and at which address."""

    name: str
    service: str
    labels: Mapping[str, str]
    listens: frozenset[int]
    address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Known:
    """All that may be referred to: Services by id, Hosts outside by name, ServiceEntries of one by id."""

    services: Mapping[str, tuple[KnownPort, ...]]
    hosts: Mapping[str, tuple[KnownPort, ...]] = field(default_factory=dict)
    entries: Mapping[str, str] = field(default_factory=dict)  # `<namespace>/<name>` -> its Host
    looked_up: frozenset[str] = frozenset()  # Hosts whose addresses are looked up as they are asked for
    edges: tuple[Edge, ...] = ()

    @property
    def at_edge(self) -> frozenset[str]:
        """The Services (ids) of gateways, to which no route leads."""
        return frozenset(edge.service for edge in self.edges)


def known(workloads: WorkloadsFile, resources: Iterable[Declared[Any]]) -> Known:
    """What a folder declares."""
    every = [one.resource for one in resources]
    default = workloads.defaults.namespace
    services = {f"{one.service}.{one.namespace or default}": _own(one) for one in workloads.workloads.values()}
    for one in every:
        if isinstance(one, CoreService):
            services[f"{one.name}.{one.namespace}"] = tuple(_declared(one, workloads.workloads.values(), default))
    outside = [one for one in every if isinstance(one, ServiceEntry) and not one.is_inside]
    hosts = {
        host: tuple(
            _port(port.number, port.name, requests=port.protocol.startswith(("HTTP", "GRPC"))) for port in ports
        )
        for one in outside
        for host in one.spec.hosts
        if "*" not in host and (ports := one.spec.ports)
    }
    edges = tuple(
        Edge(
            name,
            f"{name}.{spec.namespace or default}",
            {"app": name, **EDGE, **spec.labels},
            frozenset(spec.listen),
            spec.address,
        )
        for name, spec in workloads.gateways.items()
    )
    entries = {one.id: one.spec.hosts[0] for one in outside if len(one.spec.hosts) == 1}
    looked_up = frozenset(
        host for one in outside if one.spec.resolution in ("NONE", "DYNAMIC_DNS") for host in one.spec.hosts
    )
    return Known(services, hosts, entries, looked_up, edges)


def _port(number: int, name: str, *, requests: bool) -> KnownPort:
    return KnownPort(number, name, requests, not requests)


def _own(spec: WorkloadSpec) -> tuple[KnownPort, ...]:
    return tuple(_speaking(port.port, port.called, port.speaks) for _, port in spec.serves)


def _speaking(number: int, name: str, protocol: Protocol) -> KnownPort:
    return KnownPort(number, name, takes_requests(protocol), takes_connections(protocol))


def _declared(service: CoreService, workloads: Iterable[WorkloadSpec], default: str) -> Iterator[KnownPort]:
    selected = [
        spec
        for spec in workloads
        if (spec.namespace or default) == service.namespace
        and service.spec.selector.items() <= {"app": spec.service, **(spec.labels or NOTHING)}.items()
    ]
    behind = [port for spec in selected for _, port in spec.serves]
    for port in service.spec.ports:
        yield _speaking(port.port, port.name, port.says or _behind(port, behind) or port.speaks)


def _behind(port: ServicePort, behind: Iterable[PortSpec]) -> Protocol | None:
    target = port.target_port or port.port
    return next((one.speaks for one in behind if target in (one.port, one.called)), None)
