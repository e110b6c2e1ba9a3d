"""Changes to the files of a mesh folder, as new texts: resources put in, changed and taken out.

Law: what is not about a resource that is named stays as it is, byte for byte: other documents of the file, their
comments, separators. A resource that is there is changed where it stands; a new one gets a file of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from policyd.errors import InvalidInput, Problem
from policyd.mesh.declare import MESH_FOLDER
from policyd.mesh.istio.kinds import KINDS, key_of
from policyd.mesh.matching import did_you_mean
from policyd.yaml import Document, load

What = Literal["created", "changed", "unchanged", "removed"]
MAX_TEXT: Final = 3 << 20  # bytes that are applied at once

_SEPARATOR = re.compile(r"^---(?=[ \t]|$).*\n?", re.MULTILINE)  # YAML 1.2, 9.1.2: never content at the start of a line
_COMMENTS = re.compile(r"(?:[ \t]*(?:#.*)?\n)*")
_SHORT: Final[Mapping[str, str]] = {
    "vs": "VirtualService", "gw": "Gateway", "dr": "DestinationRule", "se": "ServiceEntry", "we": "WorkloadEntry",
    "wg": "WorkloadGroup", "pa": "PeerAuthentication", "ra": "RequestAuthentication", "svc": "Service",
    "gc": "GatewayClass", "gtw": "Gateway.gateway.networking.k8s.io", "refgrant": "ReferenceGrant",
    "btlspolicy": "BackendTLSPolicy",
}  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class ResourceId:
    """A resource by its kind, namespace and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a resource, and the file in which it stands."""

    resource: ResourceId
    what: What
    file: str


@dataclass(frozen=True, slots=True)
class Edit:
    """What was done, and the files with their new texts; None where a file goes."""

    changes: tuple[Change, ...]
    texts: Mapping[str, str | None] = field(default_factory=dict)

    def applied(self, texts: Mapping[str, str]) -> dict[str, str]:
        """All texts as they are then."""
        after = {**texts, **self.texts}
        return {path: text for path, text in after.items() if text is not None}


@dataclass(frozen=True, slots=True)
class Piece:
    """One document as text, and as the values in it (None: nothing but comments)."""

    text: str
    value: Any = None
    line: int = 1

    def resource(self, namespace: str) -> ResourceId | None:
        """What it is, where `namespace` is that of resources without one; None where that cannot be told."""
        value = self.value if isinstance(self.value, dict) else {}
        metadata = value.get("metadata")
        given = metadata if isinstance(metadata, dict) else {}
        kind, own, name = key_of(value), given.get("namespace", namespace), given.get("name")
        if not (isinstance(kind, str) and isinstance(own, str) and isinstance(name, str) and kind and own and name):
            return None
        return ResourceId(kind, own, name)


def kind_of(text: str) -> str:
    """A kind by its name, its plural or Istio's short name, in any case; raises InvalidInput."""
    names = {name.lower(): name for name in KINDS}
    names |= {_plural(name): kind for name, kind in list(names.items())}
    kind = names.get(text.lower()) or _SHORT.get(text.lower())
    if kind is None:
        near = did_you_mean(text, KINDS, ()) or f"known are {', '.join(sorted(KINDS))}"
        raise InvalidInput([Problem("kind", f"`{text[:80]}` is no kind of a mesh folder", remedy=near)])
    return kind


def _plural(kind: str) -> str:
    name, dot, group = kind.partition(".")
    ending = "es" if name.endswith("s") else "s"
    by_y = name.endswith("y") and name[-2] not in "aeiou"
    return f"{name[:-1]}ies{dot}{group}" if by_y else f"{name}{ending}{dot}{group}"


def pieces(text: str, file: str) -> tuple[Piece, ...]:
    """The documents of a file with their texts; raises InvalidInput."""
    documents = [one for one in load(text, file, max_bytes=MAX_TEXT) if one.value is not None]
    found = []
    for start, end in _spans(text):
        first = text.count("\n", 0, start) + 1
        last = first + text.count("\n", start, end)
        here = [one for one in documents if first <= one.place.line <= last]
        if len(here) > 1:
            message = "two documents without `---` between them"
            raise InvalidInput([here[1].problem("yaml", message, remedy="put `---` between them")])
        found.append(Piece(text[start:end], here[0].value if here else None, first))
        documents = [one for one in documents if one not in here]
    return tuple(found)


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Where each document's text begins and ends, without the separators."""
    start = 0
    for found in _SEPARATOR.finditer(text):
        content = found.group()[3:].strip()
        yield start, found.start()
        start = found.start() + 3 if content and not content.startswith("#") else found.end()
    yield start, len(text)


def edit(texts: Mapping[str, str], namespace: str, apply: str, remove: Iterable[ResourceId] = ()) -> Edit:
    """Put the resources of `apply` (YAML documents) in and take others out; raises InvalidInput.

    `texts` are those of a folder, by path; `namespace` is that of resources without one.
    """
    editor = _Editor(texts, namespace)
    problems: list[Problem] = []
    for piece in pieces(apply, "-"):
        if piece.value is None:
            continue
        resource = piece.resource(namespace)
        if resource is None or resource.kind not in KINDS:
            document = Document("-", piece.value)
            message = "a document is no resource of a kind that a mesh folder may hold"
            problem = document.problem("kind", message, remedy="give it `apiVersion`, `kind` and `metadata.name`")
            problems.append(Problem(problem.code, message, "-", piece.line, remedy=problem.remedy))
            continue
        editor.put(resource, piece)
    missing = (resource for resource in remove if not editor.take(resource))
    problems += [Problem("reference", f"there is no {one}", remedy=editor.near(one)) for one in missing]
    if problems:
        raise InvalidInput(problems)
    return editor.edit()


class _Editor:
    """The texts as they come to be."""

    def __init__(self, texts: Mapping[str, str], namespace: str) -> None:
        self._namespace = namespace
        self._texts = {path: text for path, text in texts.items() if _is_mesh(path)}
        self._pieces = {path: list(pieces(text, path)) for path, text in self._texts.items()}
        self._places = {
            resource: (path, at)
            for path, found in self._pieces.items()
            for at, piece in enumerate(found)
            if (resource := piece.resource(namespace)) is not None
        }
        self._new: dict[str, str | None] = {}
        self._changes: list[Change] = []

    def put(self, resource: ResourceId, piece: Piece) -> None:
        """Write a resource where it stands, or into a file of its own."""
        place = self._places.get(resource)
        if place is None:
            path = self._free(resource)
            text = f"{piece.text.strip()}\n"
            self._texts[path] = text
            self._pieces[path] = [Piece(text, piece.value)]
            self._places[resource] = (path, 0)
            self._new[path] = text
            self._changes.append(Change(resource, "created", path))
            return
        path, at = place
        if self._pieces[path][at].value == piece.value:
            self._changes.append(Change(resource, "unchanged", path))
            return
        old = self._pieces[path][at].text
        lead = "" if piece.text.lstrip().startswith("#") else _COMMENTS.match(old).group()  # type: ignore[union-attr]
        self._replace(path, at, Piece(f"{lead}{piece.text.strip()}\n", piece.value))
        self._changes.append(Change(resource, "changed", path))

    def take(self, resource: ResourceId) -> bool:
        """Take a resource out; whether it was there."""
        place = self._places.pop(resource, None)
        if place is None:
            return False
        path, at = place
        self._changes.append(Change(resource, "removed", path))
        if all(piece.value is None for other, piece in enumerate(self._pieces[path]) if other != at):
            self._new[path] = None  # nothing else is in it
            self._texts.pop(path)
            self._pieces.pop(path)
            return True
        self._replace(path, at, Piece("", None))
        return True

    def near(self, resource: ResourceId) -> str:
        """What may have been meant."""
        known = [f"{one.namespace}/{one.name}" for one in self._places if one.kind == resource.kind]
        return did_you_mean(f"{resource.namespace}/{resource.name}", known, ()) or "see `policyd mesh get`"

    def edit(self) -> Edit:
        """All that was done."""
        return Edit(tuple(self._changes), dict(self._new))

    def _replace(self, path: str, at: int, piece: Piece) -> None:
        """Put another piece where one was; an empty one takes a separator with it."""
        text = self._texts[path]
        start, end = list(_spans(text))[at]
        if piece.value is None and not piece.text:
            separators = list(_SEPARATOR.finditer(text))
            if at > 0:
                start = separators[at - 1].start()
            elif separators:
                end = separators[0].end()
        made = text[:start] + piece.text + text[end:]
        self._texts[path] = made
        self._pieces[path] = list(pieces(made, path))
        for place, one in enumerate(self._pieces[path]):
            if (resource := one.resource(self._namespace)) is not None:
                self._places[resource] = (path, place)
        self._new[path] = made

    def _free(self, resource: ResourceId) -> str:
        """The name of a file that is not there yet."""
        own = "" if resource.namespace == self._namespace else f"{resource.namespace}-"
        stem = f"{MESH_FOLDER}{resource.kind.partition('.')[0].lower()}-{own}{resource.name}"
        names = (f"{stem}{suffix}.yaml" for suffix in ("", *(f"-{number}" for number in range(2, 10_000))))
        return next(name for name in names if name not in self._texts)


def _is_mesh(path: str) -> bool:
    return path.startswith(MESH_FOLDER) and path.endswith((".yaml", ".yml"))


def named(kind: str, text: str, namespace: str) -> ResourceId:
    """The resource that `<name>` or `<namespace>/<name>` means; raises InvalidInput for a kind that is none."""
    own, slash, name = text.rpartition("/")
    return ResourceId(kind_of(kind), own if slash else namespace, name)
