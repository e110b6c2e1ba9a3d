"""A Mesh becomes one snapshot for each instance: all that its Envoy is sent.

Law: proxies that are sent the same resource share it. A resource is built and serialised once a Mesh.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE
from policyd.mesh.destinations import Caller
from policyd.mesh.model import Instance, Mesh
from policyd.xds.resources import clusters, listeners, routes
from policyd.xds.resources.model import Control
from policyd.xds.snapshot import Resource, Snapshot, make_snapshot, resource


def build_snapshots(mesh: Mesh, control: Control) -> Mapping[str, Snapshot]:
    """The snapshot of every instance, by its name, without a dangling reference (else an error of the snapshot's)."""
    shared = _Shared(mesh, control)
    return {name: make_snapshot(_of(instance, shared)) for name, instance in mesh.instances.items()}


class _Shared:
    """What many proxies are sent, built once."""

    def __init__(self, mesh: Mesh, control: Control) -> None:
        self.mesh = mesh
        self.control = control
        self.authorization = _resource(CLUSTER, clusters.authorization(control))
        callers = {mesh.caller(one) for one in mesh.instances.values()}
        self.outbound = {caller: list(self._outbound(caller)) for caller in callers}
        callers = {mesh.caller(one) for one in mesh.instances.values() if one.role == "sidecar"}
        self.outbound_routes = {caller: _resource(ROUTE, routes.outbound(mesh, caller)) for caller in callers}

    def _outbound(self, caller: Caller) -> Iterator[Resource]:
        """What proxies of a class call: each port of each Service, and of its subsets."""
        for service in self.mesh.services.values():
            for port in service.ports:
                for subset in ("", *self.mesh.destination(caller, service).subsets):
                    yield _resource(CLUSTER, clusters.outbound(self.mesh, caller, service, port.number, subset))
                    yield _resource(ENDPOINT, clusters.endpoints(self.mesh, caller, service, port.number, subset))


def _of(instance: Instance, shared: _Shared) -> Iterable[Resource]:
    caller = shared.mesh.caller(instance)
    yield from shared.outbound[caller]
    yield shared.authorization
    if instance.role == "sidecar":
        yield _resource(CLUSTER, clusters.inbound(instance))
        yield _resource(LISTENER, listeners.inbound(instance, shared.control))
        yield _resource(LISTENER, listeners.outbound(instance))
        yield shared.outbound_routes[caller]
    for listen in instance.listens:
        yield _resource(LISTENER, listeners.gateway(instance, listen, shared.control))
        yield _resource(ROUTE, routes.gateway(shared.mesh, instance, listen))


def _resource(kind: str, value: dict[str, Any]) -> Resource:
    return resource(kind, value.get("cluster_name") or value["name"], value)
