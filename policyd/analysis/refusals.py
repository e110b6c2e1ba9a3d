"""What a folder is refused for, under Istio's codes.

Law: where a problem stands says what it is about: the kind of the resource, and the place in it. What has no code of
Istio's keeps its message under a code of our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from policyd.errors import InvalidInput, Problem
from policyd.mesh.declare import MESH_FOLDER
from policyd.policy.finding_model import Finding, of_problems
from policyd.yaml import Document, Place, load

_TABLE: Final[tuple[tuple[str, str, str, str, str], ...]] = (
    # kind, code of the problem, place, a part of the message, and what it is then
    ("VirtualService", "duplicate", r"spec\.hosts\..*", "", "IST0109"),
    ("VirtualService", "reference", r"spec\.hosts\..*", "none of its gateways", "IST0132"),
    ("VirtualService", "reference", r".*\.port", "", "IST0112"),
    ("VirtualService", "reference", r".*", "", "IST0101"),
    ("Gateway", "reference", r"spec\.servers\..*\.port.*", "", "IST0162"),
    ("Gateway", "conflict", r".*", "", "IST0145"),
    ("Gateway", "credential", r".*", "", "IST0101"),
    ("Gateway", "reference", r".*", "", "IST0101"),
    ("DestinationRule", "reference", r"spec\.host", "", "IST0174"),
    ("DestinationRule", "tls", r".*", "", "IST0113"),
    ("DestinationRule", "reference", r".*", "", "IST0101"),
    ("PeerAuthentication", "reference", r"spec\.selector.*|metadata.*", "", "IST0127"),
    ("RequestAuthentication", "reference", r"spec\.selector.*|metadata.*", "", "IST0127"),
    ("Sidecar", "duplicate", r".*", " already", "IST0110"),
    ("Sidecar", "reference", r"spec\.workloadSelector.*|metadata.*", "", "IST0127"),
    ("Sidecar", "reference", r".*", "", "IST0101"),
    ("Service", "reference", r"spec\.selector.*", "", "IST0127"),
)
_Places = dict[tuple[int, int], tuple[str, str]]  # by line and column
_SCHEMA: Final = frozenset({"yaml", "kind", "field", "text", "size", "name"})


def coded(problems: Iterable[Problem], texts: Mapping[str, str]) -> list[Finding]:
    """The problems of a folder with these texts, as findings."""
    files: dict[str, _Places] = {}
    found = []
    for problem in problems:
        if not problem.file.startswith(MESH_FOLDER):
            found += of_problems([problem])
            continue
        if problem.file not in files:
            files[problem.file] = _places_in(_documents(texts.get(problem.file, ""), problem.file))
        code = _code(problem, *files[problem.file].get((problem.line, problem.column), ("", "")))
        found.append(Finding(code, problem.message, problem.file, problem.line, problem.column, remedy=problem.remedy))
    return found


def _documents(text: str, file: str) -> tuple[Document, ...]:
    try:
        return load(text, file)
    except InvalidInput:
        return ()


def _code(problem: Problem, kind: str, place: str) -> str:
    """What a problem at a place of a resource of a kind is."""
    for wanted, code, pattern, part, means in _TABLE:
        if (wanted, code) == (kind, problem.code) and part in problem.message and re.fullmatch(pattern, place):
            return means
    if place.endswith(".regex") or "is no regex" in problem.message or "RE2" in problem.message:
        return "IST0122"
    return "IST0106" if problem.code in _SCHEMA else "PM0001"


def _places_in(documents: Iterable[Document]) -> _Places:
    """The kind and the path of what stands at each line and column, of several the deepest."""
    found: _Places = {}
    for document in documents:
        kind = str(document.value.get("kind", "")) if isinstance(document.value, dict) else ""
        for path, place in _places(document.place):
            if path:
                found.setdefault((place.line, place.column), (kind, ".".join(map(str, path))))
    return found


def _places(place: Place, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Place]]:
    """Every place below one, the deeper ones first."""
    for step, below in place.children.items():
        yield from _places(below, (*path, step))
    yield path, place
