"""What `policyd policy diff` compares: a folder, a revision that was in force, what is in force now, or what is tried.

Law: a side is checked as `policyd serve` would check it; a folder that exists goes before a revision of its name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from policyd.authz.ruling import Ruling
from policyd.cedar.http import HttpFacts
from policyd.errors import InvalidInput, NotFound
from policyd.instance import existing, folder, server
from policyd.mesh.model import Mesh
from policyd.offline.loaded import load_folder
from policyd.offline.revisions import live_of
from policyd.policy.cases import parse_cases
from policyd.sources.files import Folder, read_folder
from policyd.sources.revisions import MIN_PREFIX, SHORT, find, read
from policyd.state_paths import state_paths

LIVE: Final = "live"
SHADOW: Final = "shadow"
REVISION: Final = "revision:"
_HASH: Final = re.compile(rf"[0-9a-f]{{{MIN_PREFIX},64}}")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: what decides there, its cases, and what else a reader should know of it."""

    ruling: Ruling
    cases: Sequence[HttpFacts]
    remarks: Sequence[str] = ()


def sides(old: str, new: str, directory: Path | None) -> tuple[Side, Side]:
    """Load both; raises NotFound for a name that is neither, NotRunning for `live`, InvalidInput, StateError.

    Revisions are those of `directory`, without it those of the other side's folder, else of the nearest.
    """
    beside = directory or next((Path(name) for name in (new, old) if _is_served(Path(name))), None)
    before, after = (Path(name) if Path(name).is_dir() else None for name in (old, new))
    return _side("OLD", old, beside, after), _side("NEW", new, beside, before)


def _is_served(path: Path) -> bool:
    return state_paths(path).revisions.is_dir()


def _side(label: str, name: str, beside: Path | None, other: Path | None) -> Side:
    prefix = name.removeprefix(REVISION)
    if prefix != name:
        return _past(label, prefix, folder(beside))
    if Path(name).is_dir():
        return _present(name)
    if name == LIVE:
        where = folder(beside)
        with server(where) as client:
            return _past(label, client.status().revision, where)
    if name == SHADOW:
        return _tried(label, folder(other or beside))
    if _HASH.fullmatch(name):
        return _past(label, name, folder(beside))
    remedy = f"name a folder, `{REVISION}<hash>`, `{LIVE}` or `{SHADOW}`; `policyd policy revisions` lists revisions"
    raise NotFound(f"`{name[:80]}` is no folder and no revision", remedy=remedy)


def _present(name: str) -> Side:
    """A folder as it is; what is wrong with it is told as in the folder of that name, as there are two."""
    directory = existing(Path(name))
    try:
        ruling = load_folder(directory, cases=False).live.ruling
        return Side(ruling, _cases(read_folder(directory), ruling.mesh))
    except InvalidInput as error:
        raise InvalidInput([replace(one, file=str(Path(name) / one.file)) for one in error.problems]) from None


def _tried(label: str, directory: Path) -> Side:
    ruling = load_folder(directory, cases=False).live.ruling.shadow
    if ruling is None:
        message, remedy = (
            f"`{directory}` has no shadow policies",
            "mark some `@shadow`, or name a folder in policyd.yaml",
        )
        raise NotFound(message, remedy=remedy)
    remark = f"{label} is the shadow of `{directory.name}`, revision {ruling.revision[:SHORT]}"
    return Side(ruling, _cases(read_folder(directory), ruling.mesh), [remark])


def _past(label: str, prefix: str, directory: Path) -> Side:
    root = state_paths(directory).revisions
    kit = read(root, find(root, prefix))
    ruling = live_of(kit, directory).ruling
    remarks = [f"{label} is revision {kit.kept.revision[:SHORT]}, in force from {kit.kept.last:%Y-%m-%d %H:%M:%S}Z"]
    if ruling.revision != kit.kept.revision:
        remarks.append(f"  policyd {kit.kept.version} kept it; this version may read it otherwise")
    return Side(ruling, _cases(kit.folder(directory), ruling.mesh), remarks)


def _cases(declared: Folder, mesh: Mesh) -> list[HttpFacts]:
    """The requests of a folder's cases, as far as they are requests of the mesh."""
    return [one.question for one in parse_cases(declared.below("cases"), mesh) if isinstance(one.question, HttpFacts)]
