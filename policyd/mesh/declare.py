"""A folder's texts become a Declaration: every file parsed, every field checked, nothing cross-checked yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from policyd.errors import InvalidInput, Problem
from policyd.mesh.credentials import Credentials
from policyd.mesh.declaration import Declaration, Declared, Read
from policyd.mesh.files import GROUPS_FILE, GroupsFile, WorkloadsFile
from policyd.mesh.gateway_api.known import known
from policyd.mesh.gateway_api.translate import translate
from policyd.mesh.istio.kinds import ELSEWHERE, KINDS, LATER, key_of
from policyd.mesh.machines import machines, services_inside
from policyd.mesh.templates import in_groups, of_groups
from policyd.state_paths import WORKLOADS_FILE
from policyd.strict import Model, describe, parse
from policyd.yaml import Document, load, load_one

MESH_FOLDER: Final = "mesh/"
KEYS_FOLDER: Final = "jwks/"

T = TypeVar("T", bound=tuple[Any, ...])
F = TypeVar("F", bound=Model)


def declare(
    files: Mapping[str, str], before: Declaration | None = None, credentials: Credentials | None = None
) -> Declaration:
    """Parse the declared files (path in the folder, or URI of a key set -> text); others are passed over.

    A file that says the same as in `before` is not parsed again. `credentials` are the files of certificates, None
    where they are not at hand. Raises InvalidInput with every problem of every file.
    """
    problems: list[Problem] = []
    reader = _Reader(before.read if before else {}, problems)
    workloads_document, workloads = reader.one(files, WORKLOADS_FILE, WorkloadsFile)
    groups_document, groups = reader.one(files, GROUPS_FILE, GroupsFile)
    resources: list[Declared[Any]] = []
    for path in sorted(files):
        if path.startswith(MESH_FOLDER) and path.endswith((".yaml", ".yml")):
            resources += reader.resources(files[path], path, workloads.defaults.namespace)
    if not problems:
        resources = [*in_groups(resources)]
        resources += list(services_inside(resources, problems))
        written = {**workloads.workloads, **workloads.gateways}
        more = machines(resources, written, problems)
        own = of_groups(resources, workloads.workloads, workloads.defaults.namespace)
        workloads = workloads.model_copy(update={"workloads": {**own, **more}})
    if problems:
        raise InvalidInput(problems)
    translated = translate(resources, known(workloads, resources), credentials)
    return Declaration(
        workloads,
        workloads_document,
        groups,
        groups_document,
        (*resources, *translated.resources),
        {path: text for path, text in files.items() if path.startswith(KEYS_FOLDER) or "://" in path},
        reader.read,
        translated.statuses,
    )


class _Reader:
    """Reads files, or takes what was read before; adds the problems of all to one list."""

    def __init__(self, before: Mapping[str, Read], problems: list[Problem]) -> None:
        self.read: dict[str, Read] = {}
        self._before = before
        self._problems = problems

    def one(self, files: Mapping[str, str], path: str, model: type[F]) -> tuple[Document, F]:
        """A file of one document, as its model."""

        def make(text: str, problems: list[Problem]) -> tuple[Document, F]:
            document = _one({path: text}, path, problems)
            return document, parse(model, document, problems) or model()

        return self._remember(path, files.get(path, ""), "", make)

    def resources(self, text: str, path: str, namespace: str) -> tuple[Declared[Any], ...]:
        """A file of resources."""
        return self._remember(path, text, namespace, lambda text, new: tuple(_resources(text, path, namespace, new)))

    def _remember(self, path: str, text: str, namespace: str, make: Callable[[str, list[Problem]], T]) -> T:
        known = self._before.get(path)
        if known is not None and known.text == text and known.namespace == namespace:
            self.read[path] = known
            found: T = known.found  # type: ignore[assignment]  # by the same maker of this path
            return found
        problems: list[Problem] = []
        found = make(text, problems)
        self._problems += problems
        if not problems:
            self.read[path] = Read(text, namespace, found)
        return found


def _one(files: Mapping[str, str], path: str, problems: list[Problem]) -> Document:
    try:
        return load_one(files.get(path, ""), path)
    except InvalidInput as error:
        problems += error.problems
        return Document(path, {})


def _resources(text: str, path: str, namespace: str, problems: list[Problem]) -> list[Declared[Any]]:
    try:
        documents = load(text, path)
    except InvalidInput as error:
        problems += error.problems
        return []
    found = (_resource(document, namespace, problems) for document in documents if document.value is not None)
    return [declared for declared in found if declared is not None]


def _resource(document: Document, namespace: str, problems: list[Problem]) -> Declared[Any] | None:
    if not isinstance(document.value, dict):
        problems.append(document.problem("kind", f"a resource is a mapping, not {describe(document.value)}"))
        return None
    missing = [field for field in ("apiVersion", "kind") if field not in document.value]
    if missing:
        problems += [document.problem("kind", f"`{field}` is missing", remedy="add it") for field in missing]
        return None
    kind, key = document.value["kind"], key_of(document.value)
    model = KINDS.get(key) if key is not None else None
    if key is None or model is None:
        shown = f"the kind `{kind[:80]}` is not supported" if isinstance(kind, str) else "`kind` must be text"
        remedy = ELSEWHERE.get(str(kind), "").replace("FILE", document.file)
        remedy = remedy or f"supported are {', '.join(sorted(KINDS))}"
        problems.append(document.problem("kind", shown, ("kind",), remedy))
        return None
    resource = parse(model, document, problems, LATER[key])
    return Declared(resource.within(namespace), document) if resource is not None else None
