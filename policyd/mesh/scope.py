"""Sidecars against the mesh: what the proxy of an instance knows of Services and Hosts, and how it is reached.

Law: of the Sidecars that hold for an instance the narrowest that says something has the word: with a selector, of its
namespace, of the root namespace. Where none does, everything is known. What is not known is not routed; what may be
called, policies say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from policyd.errors import Problem
from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.hosts import covers
from policyd.mesh.istio.connection_pool import ConnectionPool
from policyd.mesh.istio.server_tls import ServerTls
from policyd.mesh.istio.sidecar import IngressListener, Sidecar, SidecarSpec
from policyd.mesh.levels import Alone
from policyd.mesh.matching import did_you_mean
from policyd.mesh.model import Instance, Mesh, Served, Service
from policyd.mesh.outside import Outside
from policyd.mesh.selection import check_names, check_selects, namespace_of
from policyd.mesh.service_names import names
from policyd.mesh.sidecars import holds, level, said_of
from policyd.mesh.targets import Targets

KIND: Final = "Sidecar"
OWN, ANY, NONE = ".", "*", "~"


@dataclass(frozen=True, slots=True)
class Scope:
    """What proxies know: hosts by the namespaces that they are in and by port (0: any), None for everything.

    With `any_name` a name that nothing declares is led outside.
    """

    hosts: frozenset[tuple[str, str, int]] | None = None
    any_name: bool = False

    def sees(self, service: Service, port: int) -> bool:
        """Whether a port of a Service is known."""
        return self._knows(service.namespace, names(service, service.namespace), port)

    def sees_outside(self, outside: Outside, port: int) -> bool:
        """Whether a port of a Host is known."""
        return self._knows(outside.namespace, (outside.host,), port)

    def _knows(self, namespace: str, spelled: Collection[str], port: int) -> bool:
        return self.hosts is None or any(
            space in (ANY, namespace) and number in (0, port) and any(covers(host, one) for one in spelled)
            for space, host, number in self.hosts
        )


EVERYTHING: Final = Scope()


def scope_of(mesh: Mesh, instance: Instance) -> Scope:
    """What the proxy of an instance knows."""
    said = said_of(mesh.sidecars, instance)
    policy = next((one.outbound_traffic_policy for one in said if one.outbound_traffic_policy is not None), None)
    mode = policy.mode if policy is not None else mesh.outbound.mode
    any_name = instance.role == "sidecar" and mode == "ALLOW_ANY"
    listeners = next((one.egress for one in said if one.egress), None)
    if listeners is None:
        return Scope(any_name=any_name)
    own = namespace_of(instance)
    found = (
        (*host.partition("/")[::2], listener.port.number if listener.port else 0)
        for listener in listeners
        for host in listener.hosts
    )
    hosts = frozenset((own if space == OWN else space, host, port) for space, host, port in found if space != NONE)
    return Scope(hosts, any_name)


def any_name_somewhere(mesh: Mesh) -> bool:
    """Whether some proxy may lead a name that nothing declares outside."""
    policies = (one.spec.outbound_traffic_policy for one in mesh.sidecars)
    return mesh.outbound.mode == "ALLOW_ANY" or any(one is not None and one.mode == "ALLOW_ANY" for one in policies)


def pool_of(mesh: Mesh, instance: Instance, served: Served) -> ConnectionPool:
    """How many connections and requests to a port of its application an instance's proxy has under way."""
    said = said_of(mesh.sidecars, instance)
    entry = _entry(said, served)
    if entry is not None and entry.connection_pool is not None:
        return entry.connection_pool
    return next((one.inbound_connection_pool for one in said if one.inbound_connection_pool), None) or ConnectionPool()


def tls_of(mesh: Mesh, instance: Instance, served: Served) -> ServerTls | None:
    """How a sidecar proves itself to who is not of the mesh; None: in no way."""
    entry = _entry(said_of(mesh.sidecars, instance), served)
    return entry.tls if entry is not None else None


def with_ingress(declaration: Declaration, instances: Mapping[str, Instance]) -> dict[str, Instance]:
    """The instances, each with where its application listens and its sidecar does, as far as Sidecars say that."""
    sidecars = tuple(one.resource for one in declaration.of(Sidecar))
    if not any(one.spec.ingress for one in sidecars):
        return dict(instances)
    return {
        name: dataclasses.replace(
            instance, ports=tuple(_placed(instance, served, said_of(sidecars, instance)) for served in instance.ports)
        )
        for name, instance in instances.items()
    }


def _placed(instance: Instance, served: Served, said: Sequence[SidecarSpec]) -> Served:
    entry = _entry(said, served)
    if entry is None:
        return served
    served = dataclasses.replace(served, bind=entry.bind or "")
    if entry.socket:
        return dataclasses.replace(served, app_socket=entry.socket)
    if entry.address is None:
        return served
    host, port = entry.address
    if host in ("0.0.0.0", "::"):
        host = instance.address
    elif port == served.number:  # wherever that was put
        return served
    return dataclasses.replace(served, app_address=host, app_port=port)


def _entry(said: Sequence[SidecarSpec], served: Served) -> IngressListener | None:
    listeners = next((one.ingress for one in said if one.ingress), ())
    return next((one for one in listeners if one.port.number == served.number), None)


def check_sidecars(declaration: Declaration, targets: Targets, problems: list[Problem]) -> None:
    """Each holds for somebody, alone on its level, and a host that it spells out is there."""
    declared = declaration.of(Sidecar)
    check_names(declared, KIND, problems)
    spelled = {name for one in targets.services.values() for name in names(one, one.namespace)}
    spelled |= {one.host for one in targets.outside}
    alone = Alone(KIND, level)
    for one in declared:
        selected = [instance for instance in targets.instances.values() if holds(one.resource, instance)]
        path = ("spec", "workloadSelector") if one.resource.spec.workload_selector else ("metadata",)
        check_selects(one, KIND, selected, path, problems)
        alone.check(one, selected, problems)
        _check_hosts(one, spelled, problems)
        _check_ingress(one, selected, problems)


def _check_ingress(declared: Declared[Sidecar], selected: Sequence[Instance], problems: list[Problem]) -> None:
    """What is said of a port is of one that each selected instance has, and no port is left out."""
    listeners = declared.resource.spec.ingress
    numbers = {one.port.number for one in listeners}
    for instance in selected if listeners else ():
        known = {served.number: served for served in instance.ports}
        if missing := next((number for number in known if number not in numbers), None):
            message = f"port {missing} of `{instance.name}` is left out, so that nobody would reach it"
            problems.append(declared.problem("port", message, ("spec", "ingress"), "add it"))
        for at, one in enumerate(listeners):
            path = ("spec", "ingress", at)
            served = known.get(one.port.number)
            if served is None:
                message = f"`{instance.name}` has no port {one.port.number}"
                remedy = f"it has {', '.join(map(str, sorted(known)))} (`port` of workloads.yaml)"
                problems.append(declared.problem("port", message, (*path, "port", "number"), remedy))
            elif one.tls is not None and served.peers != "DISABLE":
                message = f"port {one.port.number} of `{instance.name}` takes the mesh's own mutual TLS"
                remedy = "let a PeerAuthentication say DISABLE for it, or take `tls` out"
                problems.append(declared.problem("tls", message, (*path, "tls"), remedy))
            elif one.address is not None and one.address[1] in {instance.outbound_port, served.inbound_port}:
                message = f"`{instance.name}`'s own sidecar listens on port {one.address[1]}"
                remedy = "name the port of the application"
                problems.append(declared.problem("port", message, (*path, "defaultEndpoint"), remedy))
            elif one.bind not in (None, instance.address, "0.0.0.0", "::"):
                message = f"peers reach `{instance.name}` at `{instance.address}`, where its sidecar then is not"
                remedy = f"bind `{instance.address}` or `0.0.0.0`"
                problems.append(declared.problem("address", message, (*path, "bind"), remedy))


def _check_hosts(declared: Declared[Sidecar], spelled: set[str], problems: list[Problem]) -> None:
    for at, listener in enumerate(declared.resource.spec.egress):
        for of, text in enumerate(listener.hosts):
            host = text.partition("/")[2]
            if host.startswith("*") or host in spelled:
                continue
            message = f"nothing in the mesh is called `{host}`"
            remedy = did_you_mean(host, spelled, problems) or "take it out, or declare it"
            problems.append(declared.problem("reference", message, ("spec", "egress", at, "hosts", of), remedy))
