"""The names by which callers reach a Service, and the Service that a destination names."""

from __future__ import annotations

from collections.abc import Mapping

from policyd.mesh.hosts import CLUSTER_DOMAIN, resolve
from policyd.mesh.istio.destination import Destination
from policyd.mesh.model import Service


def names(service: Service, caller_namespace: str) -> tuple[str, ...]:
    """Return the host names of `service`, without port; the short one only for callers of its namespace."""
    full = (f"{service.id}", f"{service.id}.svc", f"{service.id}.svc.{CLUSTER_DOMAIN}")
    return (service.name, *full) if service.namespace == caller_namespace else full


def domains(service: Service, port: int, caller_namespace: str) -> tuple[str, ...]:
    """Return what Host may be for a port of `service`: every name with it and, for the default port, without.

    These are the domains of an Envoy virtual host; those of a service's ports have none in common.
    """
    hosts = names(service, caller_namespace)
    bare = hosts if port == default_port(service) else ()
    return (*bare, *(f"{host}:{port}" for host in hosts))


def default_port(service: Service) -> int:
    """Return the port that a host name without one means: 80 if there is one, else the first."""
    numbers = [port.number for port in service.ports]
    return 80 if 80 in numbers else numbers[0]


def target(destination: Destination, namespace: str, services: Mapping[str, Service]) -> tuple[Service, int] | None:
    """Return the Service and port that a destination means in `namespace`; in a Mesh it always means one."""
    service = services.get(resolve(destination.host, namespace) or "")
    if service is None:
        return None
    numbers = [port.number for port in service.ports]
    if destination.port is None:
        return (service, numbers[0]) if len(numbers) == 1 else None
    return (service, destination.port.number) if destination.port.number in numbers else None
