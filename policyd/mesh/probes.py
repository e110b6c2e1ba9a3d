"""WorkloadGroups against the mesh: which instances are asked whether they answer, and where.

Law: an instance is of one group at most, and a group that is for nobody is a slip.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from policyd.errors import Problem
from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.istio.workload_group import WorkloadGroup
from policyd.mesh.model import Instance
from policyd.mesh.selection import check_names, namespace_of
from policyd.mesh.templates import is_of

KIND: Final = "WorkloadGroup"


def with_probes(
    declaration: Declaration, instances: Mapping[str, Instance], problems: list[Problem]
) -> dict[str, Instance]:
    """The instances, each with the probe of its group; check what is declared."""
    declared = declaration.of(WorkloadGroup)
    check_names(declared, KIND, problems)
    group: dict[str, WorkloadGroup] = {}
    for one in declared:
        members = [instance for instance in instances.values() if _is_of(one.resource, instance)]
        _check(one, members, group, problems)
        group |= {instance.name: one.resource for instance in members}
    return {
        name: dataclasses.replace(instance, probe=group[name].spec.probe) if name in group else instance
        for name, instance in instances.items()
    }


def probed_port(instance: Instance, port: int) -> int:
    """Where a probe's port is on the machine: one of the workload's own is where the application listens."""
    served = instance.serving(port)
    return served.app_port if served is not None else port


def _is_of(group: WorkloadGroup, instance: Instance) -> bool:
    return instance.role == "sidecar" and is_of(group, namespace_of(instance), instance.labels)


def _check(
    declared: Declared[WorkloadGroup],
    members: Sequence[Instance],
    group: Mapping[str, WorkloadGroup],
    problems: list[Problem],
) -> None:
    resource = declared.resource
    where = "metadata" if resource.spec.metadata.labels else "template"
    path = ("spec", where, "labels")
    if not members:
        message = f"the {KIND} `{resource.id}` is for no instance"
        remedy = "no machine registers itself here: write a WorkloadEntry with these labels for each"
        problems.append(declared.problem("reference", message, path, remedy))
    if twice := next((one for one in members if one.name in group), None):
        message = f"`{twice.name}` is of the {KIND} `{group[twice.name].id}` already"
        problems.append(declared.problem("duplicate", message, path, "give one of both further labels"))
