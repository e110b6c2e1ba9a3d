"""Workloads without a sidecar against the mesh: their applications speak xDS by themselves, as gRPC does.

Law: what stands in a sidecar's way in vain is refused where it is written. Nobody else is reached where such an
application listens, and nobody in plain text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from policyd.errors import Problem
from policyd.mesh.captured import captured
from policyd.mesh.declaration import Declaration
from policyd.mesh.files import WorkloadSpec
from policyd.mesh.istio.request_authentication import RequestAuthentication
from policyd.mesh.istio.sidecar import Sidecar
from policyd.mesh.istio.workload_entry import TEMPLATES, WorkloadEntry
from policyd.mesh.model import Instance, Served
from policyd.mesh.sidecars import said_of
from policyd.mesh.tokens import issuers_of
from policyd.yaml import Path

PROTOCOL: Final = "grpc"
CODE: Final = "proxyless"
TAKE_OUT: Final = "take it out"
HAS_NONE: Final = "which has no sidecar"


def declared_at(declaration: Declaration, name: str, message: str, remedy: str, field: Path = ()) -> Problem:
    """A Problem of an instance, where it is declared proxyless, or at a field of its own."""
    for entry in declaration.of(WorkloadEntry):
        if entry.resource.name == name:
            return entry.problem(CODE, message, ("metadata", "annotations", TEMPLATES), remedy)
    path = ("workloads", name, *(field or ("proxyless",)))
    return declaration.workloads_document.problem(CODE, message, path, remedy)


def check_proxyless(declaration: Declaration, instances: Mapping[str, Instance], problems: list[Problem]) -> None:
    """Each speaks gRPC and nothing else, by mutual TLS, and nothing is said of the sidecar that it has not."""
    sidecars = tuple(one.resource for one in declaration.of(Sidecar))
    authentications = tuple(one.resource for one in declaration.of(RequestAuthentication))
    for name, instance in instances.items():
        if not instance.proxyless:
            continue
        found = [*_of_ports(instance.ports), *_of_others(sidecars, authentications, instance)]
        problems += (declared_at(declaration, name, f"`{name}` {message}", remedy) for message, remedy in found)
        spec = declaration.workloads.workloads[name]
        problems += (
            declared_at(declaration, name, f"`{field[-1]}` means nothing to `{name}`, {HAS_NONE}", remedy, field)
            for field, remedy in _in_vain(spec)
        )


def _of_ports(ports: Iterable[Served]) -> Iterator[tuple[str, str]]:
    for port in ports:
        if port.protocol != PROTOCOL:
            yield (
                f"speaks {port.protocol} on port {port.number}, and proxyless workloads speak {PROTOCOL}",
                f"write `protocol: {PROTOCOL}`, or give it a sidecar",
            )
        if port.peers != "STRICT":
            yield (
                f"takes plain text on port {port.number}, and a proxyless workload takes mutual TLS alone",
                "let a PeerAuthentication say STRICT for it",
            )


def _of_others(
    sidecars: Iterable[Sidecar], authentications: tuple[RequestAuthentication, ...], instance: Instance
) -> Iterator[tuple[str, str]]:
    """What resources say of it that only a sidecar could do."""
    said = said_of(sidecars, instance)
    if any(one.ingress for one in said):
        yield "has a Sidecar with `ingress`, and no sidecar", "take it out of what that selects"
    elif captured(sidecars, instance):
        yield "is to be captured, and has no sidecar", "take it out of what the Sidecar selects"
    if issuers_of(authentications, instance):
        yield "has a RequestAuthentication, and gRPC looks at no tokens", "take it out of what that selects"


def _in_vain(spec: WorkloadSpec) -> Iterator[tuple[Path, str]]:
    """Fields of workloads.yaml that are of a sidecar, or of an application behind one."""
    given = {
        "appPort": (spec.app_port, "write `inboundPort`, where its application listens"),
        "outboundPort": (spec.outbound_port, TAKE_OUT),
        "health": (spec.health, f"{TAKE_OUT}; peers find out by themselves whether it is there"),
    }
    yield from (((field,), remedy) for field, (value, remedy) in given.items() if value is not None)
    if spec.metrics is not None and spec.metrics.port is None:
        yield ("metrics",), "say by `port` of it where the application shows them, which is not where it speaks gRPC"
    for at, port in enumerate(spec.ports):
        if port.app_port is not None:
            yield ("ports", at, "appPort"), "write `inboundPort`, where its application listens"
