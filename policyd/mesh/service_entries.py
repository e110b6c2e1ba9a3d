"""ServiceEntries against the mesh: what they declare becomes Hosts, each name and port once.

Law: a name of the mesh is never a Host, and an address that no Host may have is refused where it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policyd.errors import Problem
from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.hosts import resolve
from policyd.mesh.istio.service_entry import EntryEndpoint, ServiceEntry
from policyd.mesh.matching import is_address
from policyd.mesh.model import Instance, Service
from policyd.mesh.outside import (
    Network,
    Outbound,
    Outside,
    OutsideEndpoint,
    OutsidePort,
    forbidden,
    is_forbidden,
)

ALLOW_IT = "list it under `allowAddresses` of `egress` in policyd.yaml if that is meant"


def build_outside(
    declaration: Declaration,
    outbound: Outbound,
    instances: Mapping[str, Instance],
    services: Mapping[str, Service],
    problems: list[Problem],
) -> tuple[Outside, ...]:
    """Every Host that is declared, in the order of declaration."""
    never = forbidden({instance.address for instance in instances.values()}, outbound.allow)
    found: list[Outside] = []
    for declared in declaration.of(ServiceEntry):
        if declared.resource.is_inside:
            continue
        _check_ports(declared, problems)
        _check_endpoints(declared, never, problems)
        for at, outside in enumerate(_hosts(declared.resource)):
            path = ("spec", "hosts", at)
            if (id_ := resolve(outside.host, declared.resource.namespace)) in services:
                message = f"the host `{outside.host}` is the service `{id_}` of the mesh"
                problems.append(declared.problem("duplicate", message, path, "rename or remove one"))
            elif any(_collide(outside, other) for other in found):
                message = f"the host `{outside.host}` has one of these ports in another ServiceEntry already"
                problems.append(declared.problem("duplicate", message, path, "declare each port of a host once"))
            else:
                found.append(outside)
    return tuple(found)


def _hosts(entry: ServiceEntry) -> Iterable[Outside]:
    spec = entry.spec
    ports = tuple(OutsidePort(p.number, p.name, p.protocol, p.target_port or p.number) for p in spec.ports)
    endpoints = tuple(_endpoint(one) for one in spec.endpoints)
    seen_by = _seen_by(entry)
    for host in spec.hosts:
        yield Outside(
            host=host,
            resolution=spec.resolution,
            ports=ports,
            endpoints=endpoints,
            seen_by=seen_by,
            vips=spec.vips,
            namespace=entry.namespace,
            names=spec.subject_alt_names,
        )


def _endpoint(one: EntryEndpoint) -> OutsideEndpoint:
    return OutsideEndpoint(one.address, dict(one.ports), one.weight or 0, one.locality or "", dict(one.labels))


def _seen_by(entry: ServiceEntry) -> frozenset[str] | None:
    if "*" in entry.spec.export_to:
        return None
    return frozenset(entry.namespace if name == "." else name for name in entry.spec.export_to if name != "~")


def _collide(one: Outside, other: Outside) -> bool:
    """Tell whether a proxy would see one name and port twice."""
    seen = one.seen_by is None or other.seen_by is None or bool(one.seen_by & other.seen_by)
    names = {one.host, *one.vips} & {other.host, *other.vips}
    return seen and bool(names) and bool({p.number for p in one.ports} & {p.number for p in other.ports})


def _check_ports(declared: Declared[ServiceEntry], problems: list[Problem]) -> None:
    numbers: set[int] = set()
    names: set[str] = set()
    for at, port in enumerate(declared.resource.spec.ports):
        if port.number in numbers or port.name in names:
            message, remedy = f"port {port.number} (`{port.name}`) repeats a number or a name", "give each its own"
            problems.append(declared.problem("duplicate", message, ("spec", "ports", at), remedy))
        numbers.add(port.number)
        names.add(port.name)
    if len(declared.resource.spec.hosts) > 1 and declared.resource.spec.addresses:
        message = "several hosts share `addresses`, so that an address means none of them"
        problems.append(declared.problem("duplicate", message, ("spec", "addresses"), "write one ServiceEntry a host"))
    for at, endpoint in enumerate(declared.resource.spec.endpoints):
        for name in endpoint.ports:
            if name not in names:
                message = f"no port is called `{name}`"
                path = ("spec", "endpoints", at, "ports", name)
                problems.append(declared.problem("reference", message, path, f"there are {', '.join(sorted(names))}"))


def _check_endpoints(declared: Declared[ServiceEntry], never: tuple[Network, ...], problems: list[Problem]) -> None:
    static = declared.resource.spec.resolution == "STATIC"
    for at, endpoint in enumerate(declared.resource.spec.endpoints):
        path = ("spec", "endpoints", at, "address")
        if not is_address(endpoint.address):
            if static:
                message = f"`{endpoint.address}` is no IP address, which `resolution: STATIC` needs"
                problems.append(declared.problem("field", message, path, "write one, or set `resolution: DNS`"))
        elif is_forbidden(endpoint.address, never):
            message = f"`{endpoint.address}` is an address that no host outside may have"
            problems.append(declared.problem("address", message, path, ALLOW_IT))
