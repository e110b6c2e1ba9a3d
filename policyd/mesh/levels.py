"""The level on which a resource holds: for workloads that it names, for a namespace, or for the whole mesh.

Law: a resource of the root namespace that names no workload holds in the whole mesh. An instance has at most one of a
kind on each level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from policyd.errors import Problem
from policyd.mesh.declaration import Declared
from policyd.mesh.istio.common import ROOT_NAMESPACE, Resource
from policyd.mesh.model import Instance

Level = Literal["workload", "namespace", "mesh"]
NARROWEST_FIRST: Final[tuple[Level, ...]] = ("workload", "namespace", "mesh")


def level_of(resource: Resource, *, names_workloads: bool) -> Level:
    """Whom a resource is for."""
    if names_workloads:
        return "workload"
    return "mesh" if resource.namespace == ROOT_NAMESPACE else "namespace"


class Alone:
    """Checks the resources of one kind, in their order; `level` is that of each."""

    def __init__(self, kind: str, level: Callable[[Any], Level]) -> None:
        self._kind = kind
        self._level = level
        self._first: dict[tuple[str, Level], str] = {}

    def check(self, declared: Declared[Any], selected: Sequence[Instance], problems: list[Problem]) -> None:
        """Add the first of the instances that has another one on this level already."""
        level, own = self._level(declared.resource), declared.resource.id
        for instance in selected:
            other = self._first.setdefault((instance.name, level), own)
            if other != own:
                article = "an" if self._kind[0] in "AEIOU" else "a"
                message = f"`{instance.name}` has {article} {self._kind} for its {level} already, `{other}`"
                problems.append(declared.problem("duplicate", message, ("metadata", "name"), "make one of both"))
                return
