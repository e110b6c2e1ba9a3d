"""Which instances a resource of security or scope holds for: those of its namespace, or of all, with its labels.

Law: the namespace of an instance is that of its Service. A resource of the root namespace holds in every namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from policyd.errors import Problem
from policyd.mesh.declaration import Declared
from policyd.mesh.istio.common import ROOT_NAMESPACE, Resource
from policyd.mesh.model import Instance


def namespace_of(instance: Instance) -> str:
    """The namespace that an instance is in."""
    return instance.service.partition(".")[2]


def holds_for(resource: Resource, labels: Mapping[str, str], instance: Instance) -> bool:
    """Whether a resource that selects these labels holds for an instance."""
    if resource.namespace not in (ROOT_NAMESPACE, namespace_of(instance)):
        return False
    return all(instance.labels.get(label) == value for label, value in labels.items())


def check_names(resources: Iterable[Declared[Any]], kind: str, problems: list[Problem]) -> None:
    """Each resource of a kind has a name of its own."""
    seen: dict[str, str] = {}
    for declared in resources:
        place = f"{declared.document.file}:{declared.document.find(('metadata', 'name')).line}"
        first = seen.setdefault(declared.resource.id, place)
        if first != place:
            message = f"the {kind} `{declared.resource.id}` is declared twice, first in {first}"
            problems.append(declared.problem("duplicate", message, ("metadata", "name"), "rename or remove one"))


def check_selects(
    declared: Declared[Any], kind: str, selected: Sequence[Instance], path: tuple[str, ...], problems: list[Problem]
) -> None:
    """A resource that holds for nobody is a slip."""
    if selected:
        return
    message = f"the {kind} `{declared.resource.id}` holds for no instance"
    remedy = f"compare its namespace (`{ROOT_NAMESPACE}` is all of them) and its labels with workloads.yaml"
    problems.append(declared.problem("reference", message, path, remedy))
