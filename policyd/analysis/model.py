"""What every family of findings needs: a folder as it was understood, and a finding at a place of a resource."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.model import Mesh
from policyd.policy.finding_model import Finding
from policyd.yaml import Path

SUPPRESS: Final = "galley.istio.io/analyze-suppress"  # Istio's annotation: codes, `*` for all


@dataclass(frozen=True, slots=True)
class Analysed:
    """What is looked at: all that is declared, and the Mesh that came of it."""

    declaration: Declaration
    mesh: Mesh
    policies_read_users: bool = True


@dataclass(frozen=True, slots=True)
class Found:
    """A finding and the resource that it is about; None where it is about another file."""

    finding: Finding
    declared: Declared[Any] | None = None

    @property
    def is_suppressed(self) -> bool:
        """Whether the resource itself says that it is meant so."""
        if self.declared is None:
            return False
        said = self.declared.resource.metadata.annotations.get(SUPPRESS, "")
        codes = {code.strip() for code in said.split(",")}
        return "*" in codes or self.finding.code in codes


def at(declared: Declared[Any], code: str, message: str, path: Path, remedy: str = "") -> Found:
    """A finding at a place of a resource."""
    place = declared.document.find(path)
    finding = Finding(code, message, declared.document.file, place.line, place.column, remedy=remedy)
    return Found(finding, declared)


def in_workloads(analysed: Analysed, code: str, message: str, path: Path, remedy: str = "") -> Found:
    """A finding at a place of workloads.yaml."""
    document = analysed.declaration.workloads_document
    place = document.find(path)
    return Found(Finding(code, message, document.file, place.line, place.column, remedy=remedy))


Findings = Iterator[Found]
