"""AUTO_PASSTHROUGH: the asked name says which Service of the mesh a connection is for, as sidecars write it into SNI.

Law: what is passed on is never opened here, so the sidecar at the other end sees the caller's own certificate, and
decides about it; at the gateway the connection is decided by the name. A name of any other form leads nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from policyd.mesh.hosts import CLUSTER_DOMAIN, covers
from policyd.mesh.model import Instance, Listen, Mesh, Service
from policyd.xds.resources import clusters, connections, edges, tcp
from policyd.xds.resources.model import sni_cluster


def meant(mesh: Mesh, instance: Instance, one: edges.Opened) -> Iterator[tuple[Service, int, str]]:
    """The Services that a server's hosts are for, each with its ports and their subsets."""
    caller = mesh.caller(instance)
    for service in mesh.services.values():
        served = one.server.hosts_for(one.gateway.namespace, service.namespace)
        if any(covers(host, f"{service.id}.svc.{CLUSTER_DOMAIN}") for host in served):
            for port in service.ports:
                for subset in ("", *mesh.destination(caller, service).subsets):
                    yield service, port.number, subset


def ways(mesh: Mesh, instance: Instance, listen: Listen) -> Iterator[dict[str, Any]]:
    """The clusters of a port's servers: the instances as callers know them, without TLS of ours."""
    caller = mesh.caller(instance)
    servers = edges.opened(mesh, instance, listen.declared)
    found = (to for one in servers if one.server.to_every_service for to in meant(mesh, instance, one))
    for service, port, subset in dict.fromkeys((service.id, port, subset) for service, port, subset in found):
        yield clusters.passed_on(mesh, caller, mesh.services[service], port, subset)


def routes(mesh: Mesh, instance: Instance, one: edges.Opened) -> Iterator[dict[str, Any]]:
    """The routes of a server's tunnels, by the name that the client asks for; with Istio's whole name, too."""
    for service, port, subset in meant(mesh, instance, one):
        name = sni_cluster(service.id, port, subset)
        for asked in (name, f"{name}.svc.{CLUSTER_DOMAIN}"):
            yield {"match": connections.asks_for(asked), "route": {"cluster": name, **tcp.ENDS_HERE}}
