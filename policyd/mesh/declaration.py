"""All that a folder declares, as values.

Law: a Declaration keeps the document of each thing, so that a fault found later has its file and line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from policyd.errors import Problem
from policyd.mesh.files import GroupsFile, WorkloadsFile
from policyd.mesh.gateway_api.conditions import Status
from policyd.mesh.istio.common import Resource
from policyd.mesh.istio.kinds import key_of
from policyd.yaml import Document, Path

R = TypeVar("R", bound=Resource)
S = TypeVar("S", bound=Resource)


@dataclass(frozen=True, slots=True)
class Declared(Generic[R]):
    """A resource and the document that it stands in; its namespace is filled in."""

    resource: R
    document: Document

    def problem(self, code: str, message: str, path: Path = (), remedy: str = "") -> Problem:
        """Return a Problem at `path` of the resource."""
        return self.document.problem(code, message, path, remedy)

    def standing_for(self, resource: S) -> Declared[S]:
        """Return another resource that this one means; it stands at the same place."""
        return Declared(resource, self.document)

    @property
    def stands(self) -> bool:
        """Whether it is what the document says; else it only follows from that."""
        return key_of(self.document.value) == self.resource.kind_key


@dataclass(frozen=True, slots=True)
class Read:
    """What a file was found to say: all of it follows from its text and from the namespace of what has none."""

    text: str
    namespace: str
    found: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Declaration:
    """Everything declared, file by file; `workloads_document` and `groups_document` tell lines.

    `key_sets` are texts of key sets by their file in the folder, or by the URI that they were fetched from. `read` is
    what each file says, for the next Declaration. `statuses` are what is told of resources of the Gateway API, by kind
    and id.
    """

    workloads: WorkloadsFile
    workloads_document: Document
    groups: GroupsFile
    groups_document: Document
    resources: tuple[Declared[Any], ...] = ()
    key_sets: Mapping[str, str] = field(default_factory=dict)
    read: Mapping[str, Read] = field(default_factory=dict, repr=False, compare=False)
    statuses: Mapping[tuple[str, str], Status] = field(default_factory=dict, repr=False, compare=False)

    def of(self, kind: type[R]) -> tuple[Declared[R], ...]:
        """The resources of one kind, in the order of files and documents."""
        return tuple(found for found in self.resources if isinstance(found.resource, kind))

    def with_status(self, declared: Declared[Any], known: Callable[[Status], Status]) -> dict[str, Any]:
        """What a resource's document says, and what is told of it, as far as it is known to be in force."""
        status = self.statuses.get((declared.resource.kind_key, declared.resource.id))
        value: dict[str, Any] = declared.document.value
        return value if status is None else {**value, "status": known(status).shown()}
