"""All that applications without a sidecar are sent, in the parts in which snapshots are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE
from policyd.mesh.destinations import Caller
from policyd.mesh.model import Instance, Mesh, Service, inbound_listener
from policyd.mesh.precedence import Precedence
from policyd.mesh.scope import EVERYTHING, Scope
from policyd.xds.resources.model import Guard
from policyd.xds.resources.proxyless import calls, clusters, served
from policyd.xds.resources.reuse import Kept
from policyd.xds.snapshot import Resource

NO_GUARDS: Final[Mapping[str, Guard]] = {}


def of_service(mesh: Mesh, caller: Caller, service: Service, kept: Kept) -> Iterator[Resource]:
    """What a Service is to callers: each port that gRPC can call, and each of its subsets."""
    for port in clusters.ports(service, EVERYTHING):
        for subset in ("", *mesh.destination(caller, service).subsets):
            yield kept.make(CLUSTER, clusters.cluster(mesh, caller, service, port.number, subset))
            yield kept.make(ENDPOINT, clusters.endpoints(mesh, caller, service, port.number, subset))


def of_class(mesh: Mesh, caller: Caller, scope: Scope, kept: Kept) -> Iterator[Resource]:
    """How the Services are called that those of a class know."""
    held = Precedence(mesh.virtual_services, caller.namespace, mesh.services)
    for _, service in sorted(mesh.services.items()):
        for port in clusters.ports(service, scope):
            yield kept.make(ROUTE, calls.table(mesh, caller, held.of(service), service, port.number))
            yield from (kept.make(LISTENER, one) for one in calls.listeners(caller, service, port.number))


def own(instance: Instance, guards: Mapping[str, Guard], kept: Kept) -> Iterator[Resource]:
    """What only the application of one instance is sent, by who may call it at each of its listeners."""
    for port in instance.ports:
        guard = guards.get(inbound_listener(instance, port), served.NOBODY)
        yield from (kept.make(LISTENER, one) for one in served.listeners(instance, port, guard))
