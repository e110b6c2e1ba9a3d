"""The shadow folder: policies that are tried beside those of the mesh's folder, and read together with them.

Law: it is a folder of policies and nothing else; one that is missing, empty or the active one itself is refused by its
name, so that nobody believes to try what is not there.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from policyd.config.settings import SETTINGS_FILE, parse_settings
from policyd.errors import InvalidInput, Problem
from policyd.sources.files import FOLDERS, MAX_FILES, MAX_TOTAL_BYTES, Folder, digest, read_folder
from policyd.sources.reading import names_in, read_text, real

POLICIES: Final = "policies"


class FolderReader:
    """Reads a mesh's folder with its shadow folder: `option`, else the one that its settings name, else none."""

    def __init__(self, directory: Path, option: Path | None = None) -> None:
        self.directory = directory
        # `..` is taken out too, so that people know it
        self._option = Path(os.path.abspath(option)) if option else None  # noqa: PTH100
        self._place = self._option

    def __call__(self) -> Folder:
        """Read both; raises InvalidInput with every Problem."""
        folder = read_folder(self.directory)
        self._place = self._option or _setting(folder)
        return folder if self._place is None else with_shadow(folder, self._place)

    def place(self) -> Path | None:
        """Where the shadow folder was, or should have been, when it was read last."""
        return self._place


def with_shadow(folder: Folder, place: Path) -> Folder:
    """The folder with the policies at `place` as its shadow; raises InvalidInput with every Problem."""
    shown = _shown(folder.directory, place)
    _check_place(folder.directory, place, shown)
    problems: list[Problem] = []
    texts: dict[str, str] = {}
    for name in names_in(place, shown, FOLDERS[POLICIES], problems):
        text = read_text(place, place / name, f"{shown}/{name}", problems)
        texts[f"{shown}/{name}"] = text or ""
        if len(texts) > MAX_FILES or sum(map(len, texts.values())) > MAX_TOTAL_BYTES:
            problems.append(Problem("size", "more files, or bytes, than a folder may have", shown))
            break
    if not texts and not problems:
        problems.append(Problem("shadow", "the shadow folder has no policies", shown, remedy=_REMEDY))
    if problems:
        raise InvalidInput(problems)
    both = replace(folder, shadow=texts, shadow_place=shown)
    return replace(both, digest=digest(both.known))


_REMEDY: Final = "name a folder of `.cedar` files, or none"


def _setting(folder: Folder) -> Path | None:
    try:
        name = parse_settings(folder.text(SETTINGS_FILE) or "").shadow.policies
    except InvalidInput:  # which is said when all of the folder is checked
        return None
    return folder.directory / name if name else None


def _check_place(directory: Path, place: Path, shown: str) -> None:
    message, remedy = "", _REMEDY
    if not place.is_dir():
        message = "the shadow folder is not there" if not place.exists() else "the shadow folder is no folder"
    elif real(place) == real(directory / POLICIES):
        message, remedy = "the shadow folder is the one of the active policies", "copy it, and change the copy"
    elif (place / POLICIES).is_dir():
        message, remedy = "the shadow folder is a mesh's folder", f"did you mean `{shown}/{POLICIES}`?"
    if message:
        raise InvalidInput([Problem("shadow", message, shown, remedy=remedy)])


def _shown(directory: Path, place: Path) -> str:
    """As people know it: below the mesh's folder by the path in it, elsewhere by the whole path."""
    whole = place.absolute()
    return str(whole.relative_to(directory) if whole.is_relative_to(directory) else whole)
