"""A change to a folder's mesh by name instead of by hand: made as texts, checked as a whole, then written.

Law: nothing is written of which the folder would be refused; what is written is what was checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from policyd.mesh.declare import WORKLOADS_FILE, WorkloadsFile
from policyd.mesh.edit import Edit, edit, named
from policyd.sources.files import Folder, digest
from policyd.sources.writing import write_together
from policyd.strict import parse
from policyd.yaml import load_one


class Amender:
    """Changes the mesh of a folder. `read` reads the folder, `check` raises InvalidInput for what would be refused."""

    def __init__(self, directory: Path, read: Callable[[], Folder], check: Callable[[Folder], object]) -> None:
        self._directory = directory
        self._read = read
        self._check = check

    def amended(self, apply: str, remove: Iterable[tuple[str, str]] = ()) -> Edit:
        """What a change comes to; raises InvalidInput with all that would be wrong then.

        `apply` are resources as YAML; `remove` kinds with names, as `mesh.edit.named` reads them.
        """
        folder = self._read()
        namespace = default_namespace(folder)
        gone = [named(kind, name, namespace) for kind, name in remove]
        made = edit(folder.texts, namespace, apply, gone)
        texts = made.applied(folder.texts)
        after = replace(folder, texts=texts)
        self._check(replace(after, digest=digest(after.known)))
        return made

    def write(self, made: Edit) -> None:
        """Write what was checked; raises StateError, with nothing changed."""
        write_together(self._directory, made.texts)


def default_namespace(folder: Folder) -> str:
    """The namespace of resources without one; raises InvalidInput."""
    document = load_one(folder.text(WORKLOADS_FILE) or "", WORKLOADS_FILE)
    found = parse(WorkloadsFile, document, [])
    return (found or WorkloadsFile()).defaults.namespace
