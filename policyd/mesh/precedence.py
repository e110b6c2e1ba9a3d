"""Which VirtualService has the rules of a host, for the sidecars of a namespace.

Law: the narrowest host wins; of equal ones that kept to the namespace, then that given to it by name, then
that given to all. One host never has the rules of two: what would be equal is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from policyd.errors import Problem
from policyd.mesh.declaration import Declared
from policyd.mesh.hosts import CLUSTER_DOMAIN, covers, resolve
from policyd.mesh.istio.common import export_rank
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.model import Service


class Precedence:
    """The VirtualServices that hold in the sidecars of a namespace, by the hosts that they name."""

    def __init__(self, virtual_services: Iterable[VirtualService], namespace: str, services: Mapping[str, Service]):
        ranked = [
            (rank, owner)
            for owner in virtual_services
            if owner.in_mesh and (rank := export_rank(owner.spec.export_to, owner.namespace, namespace)) is not None
        ]
        self._of: dict[str, VirtualService] = {}
        for _, owner in sorted(ranked, key=lambda found: found[0]):
            for host in owner.spec.hosts:
                self._of.setdefault(key(host, owner.namespace, services), owner)
        self._wild = sorted((host for host in self._of if host.startswith("*")), key=len, reverse=True)

    def of(self, service: Service) -> VirtualService | None:
        """The VirtualService that has the rules of a Service, if any."""
        if found := self._of.get(service.id):
            return found
        name = f"{service.id}.svc.{CLUSTER_DOMAIN}"
        return next((self._of[pattern] for pattern in self._wild if covers(pattern, name)), None)

    def outside(self, services: Mapping[str, Service]) -> Iterator[tuple[str, VirtualService]]:
        """The other hosts that have rules: names outside the mesh, and patterns of such."""
        for host, owner in self._of.items():
            if host not in services and not inside(host):
                yield host, owner


def key(host: str, namespace: str, services: Mapping[str, Service]) -> str:
    """What a VirtualService's host means: the id of a Service, else the name or pattern itself."""
    id_ = resolve(host, namespace)
    return id_ if id_ is not None and id_ in services else host


def inside(host: str) -> bool:
    """Tell whether a host or pattern can mean names of Services only."""
    return host == "*" or host.endswith((f".{CLUSTER_DOMAIN}", ".svc"))


def check_hosts_once(
    declared: Iterable[Declared[VirtualService]], services: Mapping[str, Service], problems: list[Problem]
) -> None:
    """No namespace sees two VirtualServices of one host in its sidecars, equally near."""
    owners: defaultdict[str, list[tuple[Declared[VirtualService], int]]] = defaultdict(list)
    for found in declared:
        for at, host in enumerate(found.resource.spec.hosts if found.resource.in_mesh else ()):
            owners[key(host, found.resource.namespace, services)].append((found, at))
    namespaces = {service.namespace for service in services.values()}
    for several in owners.values():
        for later, (found, at) in enumerate(several):
            rivals = (other.resource for other, _ in several[:later])
            rival = next((other for other in rivals if _meet(other, found.resource, namespaces)), None)
            if rival is not None:
                host = found.resource.spec.hosts[at]
                message = f"the host `{host}` has its rules in the VirtualService `{rival.id}` already"
                remedy = "write all rules of a host into one"
                problems.append(found.problem("duplicate", message, ("spec", "hosts", at), remedy))


def _meet(one: VirtualService, other: VirtualService, namespaces: Iterable[str]) -> bool:
    if one.id == other.id:
        return False  # one that names a host twice, or a name that is refused as declared twice
    for namespace in namespaces:
        rank = export_rank(one.spec.export_to, one.namespace, namespace)
        if rank is not None and rank == export_rank(other.spec.export_to, other.namespace, namespace):
            return True
    return False
