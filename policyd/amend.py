"""A change to a folder's mesh by name instead of by hand: made as texts, checked as a whole, then written.

Law: nothing is written of which the folder would be refused; what is written is what was checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from policyd.errors import StateError
from policyd.mesh.edit import Edit, edit, named
from policyd.mesh.files import WorkloadsFile
from policyd.sources.files import Folder, digest
from policyd.sources.writing import write_together
from policyd.state_paths import WORKLOADS_FILE
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

    def replaced(self, file: str, text: str, before: str) -> Edit:
        """What another text of a file comes to, if it is still the one that was edited, whose SHA-256 is `before`.

        Raises StateError where it is not, InvalidInput with all that would be wrong then.
        """
        folder = self._read()
        if hash_of(folder.texts.get(file)) != before:
            remedy = "load it again, and make the change in what is there now"
            raise StateError(f"`{file}` was changed meanwhile", remedy=remedy)
        after = replace(folder, texts={**folder.texts, file: text})
        self._check(replace(after, digest=digest(after.known)))
        return Edit((), {file: text})

    def write(self, made: Edit) -> None:
        """Write what was checked; raises StateError, with nothing changed."""
        write_together(self._directory, made.texts)


def hash_of(text: str | None) -> str:
    """By which two texts of a file are told apart; "" where there is none."""
    return "" if text is None else hashlib.sha256(text.encode()).hexdigest()


def default_namespace(folder: Folder) -> str:
    """The namespace of resources without one; raises InvalidInput."""
    document = load_one(folder.text(WORKLOADS_FILE) or "", WORKLOADS_FILE)
    found = parse(WorkloadsFile, document, [])
    return (found or WorkloadsFile()).defaults.namespace
