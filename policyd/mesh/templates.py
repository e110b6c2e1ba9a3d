"""WorkloadGroups and those that are of them: what a group's template says fills in what an instance leaves open.

Law: an instance's own word comes first. Whoever has a group's labels in its namespace is of the group, be it a
WorkloadEntry or a workload of workloads.yaml.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from policyd.mesh.declaration import Declared
from policyd.mesh.files import WorkloadSpec
from policyd.mesh.istio.workload_entry import WorkloadEntry
from policyd.mesh.istio.workload_group import WorkloadGroup


def group_of(groups: Iterable[WorkloadGroup], namespace: str, labels: Mapping[str, str]) -> WorkloadGroup | None:
    """The first group that somebody with these labels is of."""
    return next((one for one in groups if is_of(one, namespace, labels)), None)


def is_of(group: WorkloadGroup, namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether somebody with these labels is of a group."""
    return group.namespace == namespace and group.spec.selects.items() <= labels.items()


def in_groups(resources: Iterable[Declared[Any]]) -> Iterator[Declared[Any]]:
    """The resources, the WorkloadEntries among them with what their groups say."""
    every = tuple(resources)
    groups = _groups(every)
    for declared in every:
        entry = declared.resource
        found = group_of(groups, entry.namespace, entry.spec.labels) if isinstance(entry, WorkloadEntry) else None
        yield declared if found is None else declared.standing_for(_entry(entry, found))


def of_groups(
    resources: Iterable[Declared[Any]], workloads: Mapping[str, WorkloadSpec], namespace: str
) -> dict[str, WorkloadSpec]:
    """The workloads of workloads.yaml with what their groups say; `namespace` is that of those that name none."""
    groups = _groups(resources)
    return {name: _workload(spec, groups, namespace) for name, spec in workloads.items()}


def _groups(resources: Iterable[Declared[Any]]) -> list[WorkloadGroup]:
    return [one.resource for one in resources if isinstance(one.resource, WorkloadGroup)]


def _entry(entry: WorkloadEntry, group: WorkloadGroup) -> WorkloadEntry:
    spec, template = entry.spec, group.spec.template
    annotations = {**group.spec.metadata.annotations, **entry.metadata.annotations}
    filled = {
        "labels": {**group.spec.gives, **spec.labels},
        "ports": {**template.ports, **spec.ports},
        "service_account": spec.service_account or template.service_account,
        "locality": spec.locality or template.locality,
        "weight": spec.weight or template.weight,
    }
    metadata = entry.metadata.model_copy(update={"annotations": annotations})
    return entry.model_copy(update={"metadata": metadata, "spec": spec.model_copy(update=filled)})


def _workload(spec: WorkloadSpec, groups: Iterable[WorkloadGroup], namespace: str) -> WorkloadSpec:
    own = {"app": spec.service, **spec.labels}
    group = group_of(groups, spec.namespace or namespace, own)
    if group is None:
        return spec
    template = group.spec.template
    filled = {
        "labels": {**group.spec.gives, **own},
        "service_account": spec.service_account or template.service_account,
        "locality": spec.locality or template.locality,
        "weight": spec.weight or template.weight,
    }
    return spec.model_copy(update=filled)
