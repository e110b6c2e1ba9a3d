"""Which Sidecars hold for an instance, the narrowest first: with a selector, of its namespace, of the root one."""

from __future__ import annotations

from collections.abc import Iterable

from policyd.mesh.istio.sidecar import Sidecar, SidecarSpec
from policyd.mesh.levels import NARROWEST_FIRST, Level, level_of
from policyd.mesh.model import Instance
from policyd.mesh.selection import namespace_of


def said_of(sidecars: Iterable[Sidecar], instance: Instance) -> list[SidecarSpec]:
    """What Sidecars say for an instance, the narrowest first."""
    by_level = {level(one): one.spec for one in sidecars if holds(one, instance)}
    return [by_level[name] for name in NARROWEST_FIRST if name in by_level]


def level(resource: Sidecar) -> Level:
    """Whom a Sidecar is for."""
    return level_of(resource, names_workloads=resource.spec.workload_selector is not None)


def holds(resource: Sidecar, instance: Instance) -> bool:
    """A selector is for the Sidecar's own namespace, the root one too."""
    if instance.role != "sidecar":
        return False
    everywhere = level(resource) == "mesh"
    labels = resource.spec.labels.items()
    return (everywhere or resource.namespace == namespace_of(instance)) and labels <= instance.labels.items()
