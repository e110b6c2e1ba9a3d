"""Sidecars against the mesh: what the proxy of an instance knows of Services and Hosts.

Law: of the Sidecars that hold for an instance the narrowest has the word: with a selector, of its namespace, of the
root namespace. Without any, everything is known. What is not known is not routed; what may be called, policies say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from policyd.errors import Problem
from policyd.mesh.declare import Declaration, Declared
from policyd.mesh.hosts import covers, names
from policyd.mesh.istio.sidecar import Sidecar
from policyd.mesh.matching import did_you_mean
from policyd.mesh.model import Instance, Service
from policyd.mesh.outside import Outside
from policyd.mesh.selection import ROOT_NAMESPACE, check_names, check_selects, namespace_of

KIND: Final = "Sidecar"
OWN, ANY, NONE = ".", "*", "~"

Level = Literal["workload", "namespace", "mesh"]
_LEVELS: Final[tuple[Level, ...]] = ("workload", "namespace", "mesh")


@dataclass(frozen=True, slots=True)
class Scope:
    """What proxies know: hosts by the namespaces that they are in."""

    hosts: frozenset[tuple[str, str]]

    def sees(self, service: Service) -> bool:
        """Whether a Service is known."""
        spelled = names(service, service.namespace)
        return any(self._is_in(host, service.namespace) and self._is(host, spelled) for host in self.hosts)

    def sees_outside(self, outside: Outside) -> bool:
        """Whether a Host is known."""
        return any(self._is_in(host, outside.namespace) and self._is(host, (outside.host,)) for host in self.hosts)

    @staticmethod
    def _is_in(host: tuple[str, str], namespace: str) -> bool:
        return host[0] in (ANY, namespace)

    @staticmethod
    def _is(host: tuple[str, str], spelled: Iterable[str]) -> bool:
        return any(covers(host[1], one) for one in spelled)


def scope_of(resources: Iterable[Sidecar], instance: Instance) -> Scope | None:
    """What the proxy of an instance knows; None: everything."""
    by_level = {level(one): one for one in resources if _holds(one, instance)}
    chosen = next((by_level[name] for name in _LEVELS if name in by_level), None)
    if chosen is None:
        return None
    own = namespace_of(instance)
    found = (host.partition("/") for listener in chosen.spec.egress for host in listener.hosts)
    return Scope(frozenset((own if space == OWN else space, host) for space, _, host in found if space != NONE))


def level(resource: Sidecar) -> Level:
    """Whom a Sidecar is for."""
    if resource.spec.workload_selector is not None:
        return "workload"
    return "mesh" if resource.namespace == ROOT_NAMESPACE else "namespace"


def check_sidecars(
    declaration: Declaration,
    instances: Mapping[str, Instance],
    services: Mapping[str, Service],
    outside: Iterable[Outside],
    problems: list[Problem],
) -> None:
    """Each holds for somebody, alone on its level, and a host that it spells out is there."""
    declared = declaration.of(Sidecar)
    check_names(declared, KIND, problems)
    spelled = {name for one in services.values() for name in names(one, one.namespace)}
    spelled |= {one.host for one in outside}
    first: dict[tuple[str, Level], str] = {}
    for one in declared:
        selected = [instance for instance in instances.values() if _holds(one.resource, instance)]
        path = ("spec", "workloadSelector") if one.resource.spec.workload_selector else ("metadata",)
        check_selects(one, KIND, selected, path, problems)
        for instance in selected:
            other = first.setdefault((instance.name, level(one.resource)), one.resource.id)
            if other != one.resource.id:
                message = f"`{instance.name}` has a {KIND} for its {level(one.resource)} already, `{other}`"
                problems.append(one.problem("duplicate", message, ("metadata", "name"), "make one of both"))
                break
        _check_hosts(one, spelled, problems)


def _check_hosts(declared: Declared[Sidecar], spelled: set[str], problems: list[Problem]) -> None:
    for at, listener in enumerate(declared.resource.spec.egress):
        for of, text in enumerate(listener.hosts):
            host = text.partition("/")[2]
            if host.startswith("*") or host in spelled:
                continue
            message = f"nothing in the mesh is called `{host}`"
            remedy = did_you_mean(host, spelled, problems) or "take it out, or declare it"
            problems.append(declared.problem("reference", message, ("spec", "egress", at, "hosts", of), remedy))


def _holds(resource: Sidecar, instance: Instance) -> bool:
    """A selector is for the Sidecar's own namespace, the root one too."""
    if instance.role != "sidecar":
        return False
    everywhere = level(resource) == "mesh"
    labels = resource.spec.labels.items()
    return (everywhere or resource.namespace == namespace_of(instance)) and labels <= instance.labels.items()
