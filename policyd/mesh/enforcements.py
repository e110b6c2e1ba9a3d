"""Enforcements against the mesh: who decides at each sidecar, policyd (`central`) or the sidecar itself.

Law: the narrowest level that says something has the word, whole: workload, namespace, mesh. Where nobody says anything
policyd decides. Whether a sidecar can decide is not known here, see policyd.local.enforcing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from policyd.errors import Problem
from policyd.mesh.declaration import Declaration
from policyd.mesh.istio.enforcement import Enforcement
from policyd.mesh.levels import NARROWEST_FIRST, Alone, Level, level_of
from policyd.mesh.model import Instance
from policyd.mesh.selection import check_names, check_selects, holds_for

KIND: Final = "Enforcement"


def level(resource: Enforcement) -> Level:
    """Whom an Enforcement is for."""
    return level_of(resource, names_workloads=bool(resource.spec.selector.match_labels))


def enforcement_of(resources: Iterable[Enforcement], instance: Instance) -> Enforcement | None:
    """What holds at an instance; None: policyd decides there."""
    by_level = {level(one): one for one in resources if _holds(one, instance)}
    return next((by_level[name] for name in NARROWEST_FIRST if name in by_level), None)


def check_enforcements(
    declaration: Declaration, instances: Mapping[str, Instance], problems: list[Problem]
) -> tuple[Enforcement, ...]:
    """Each holds for somebody, alone on its level; returns them all."""
    declared = declaration.of(Enforcement)
    check_names(declared, KIND, problems)
    alone = Alone(KIND, level)
    for one in declared:
        selected = [instance for instance in instances.values() if _holds(one.resource, instance)]
        path = ("spec", "selector") if one.resource.spec.selector.match_labels else ("metadata",)
        check_selects(one, KIND, selected, path, problems)
        alone.check(one, selected, problems)
    return tuple(one.resource for one in declared)


def _holds(resource: Enforcement, instance: Instance) -> bool:
    return instance.role == "sidecar" and holds_for(resource, resource.spec.selector.match_labels, instance)
