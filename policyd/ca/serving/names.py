"""What the agent of a captured instance is told: the names of the mesh that its application may look up.

Law: they are those that the instance's proxy knows, and mean there what they mean here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from policyd._pb import agent_pb2
from policyd.mesh.captured import captured
from policyd.mesh.hosts import CLUSTER_DOMAIN
from policyd.mesh.model import Instance, Mesh
from policyd.mesh.scope import scope_of
from policyd.mesh.selection import namespace_of

SUFFIXES: Final = (".svc", f".svc.{CLUSTER_DOMAIN}")


def captured_messages(mesh: Mesh, instances: tuple[Instance, ...]) -> Iterator[agent_pb2.Captured]:
    """A message for each of an agent's instances of which something is captured."""
    for instance in instances if mesh.virtual else ():
        if captured(mesh.sidecars, instance).outbound:
            yield agent_pb2.Captured(
                instance=instance.name,
                namespace=namespace_of(instance),
                suffixes=SUFFIXES,
                names=_names(mesh, instance),
            )


def _names(mesh: Mesh, instance: Instance) -> Iterator[agent_pb2.Name]:
    scope = scope_of(mesh, instance)
    for id_, service in mesh.services.items():
        if any(scope.sees(service, port.number) for port in service.ports):
            virtual = mesh.virtual[id_]
            yield agent_pb2.Name(name=id_, service=True, addresses=[virtual.v4.packed, virtual.v6.packed])
    namespace = namespace_of(instance)
    for outside in mesh.outside:
        if not outside.is_seen(namespace) or not any(scope.sees_outside(outside, one.number) for one in outside.ports):
            continue
        found = mesh.virtual.get(outside.host)
        if found is not None:
            yield agent_pb2.Name(name=outside.host, addresses=[found.v4.packed, found.v6.packed])
        elif outside.vips and "*" not in outside.host:
            yield agent_pb2.Name(
                name=outside.host, addresses=[ipaddress.ip_address(vip).packed for vip in outside.vips]
            )
