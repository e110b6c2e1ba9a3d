"""Other trust domains that an operator named by a command, beside those that policyd.yaml names.

Law: on record and on the disk before anybody is trusted. What policyd.yaml says of a trust domain is what holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from policyd.config.authority import FederatedSettings
from policyd.config.settings import Settings
from policyd.errors import FederationError, NotFound, StateError
from policyd.sources.files import Folder, digest
from policyd.sources.state import write_private

TEXT: Final = "federation.json"  # as a text of the folder that the server reads; no file of a folder has that name
MAX_RELATIONS: Final = 64
MAX_BYTES: Final = 1 << 18
_ALL: Final = TypeAdapter(tuple[FederatedSettings, ...])


class Relations:
    """Those of one mesh, kept in `file`; raises StateError where that is broken."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._held = _read(file)

    def all(self) -> tuple[FederatedSettings, ...]:
        """Every one, by trust domain."""
        return self._held

    def text(self) -> str:
        """All of them as they are kept; "" for none."""
        return _text(self._held) if self._held else ""

    def create(self, relation: FederatedSettings, record: Callable[[], object]) -> None:
        """Know another trust domain, once `record` is done; raises FederationError."""
        if any(one.trust_domain == relation.trust_domain for one in self._held):
            remedy = f"`policyd ca federation delete {relation.trust_domain}` first"
            raise FederationError(f"`{relation.trust_domain}` is known already", remedy=remedy)
        if len(self._held) >= MAX_RELATIONS:
            raise FederationError(f"{MAX_RELATIONS} other trust domains are known, and no more")
        self._keep((*self._held, relation), record)

    def delete(self, trust_domain: str, record: Callable[[], object]) -> None:
        """Let its workloads be strangers again, once `record` is done; raises NotFound, FederationError."""
        left = tuple(one for one in self._held if one.trust_domain != trust_domain)
        if left == self._held:
            remedy = "what policyd.yaml names goes there, see `policyd ca federation list`"
            raise NotFound(f"no command made `{trust_domain[:255]}` known", remedy=remedy)
        self._keep(left, record)

    def _keep(self, relations: tuple[FederatedSettings, ...], record: Callable[[], object]) -> None:
        record()
        try:
            write_private(self._file, _text(relations).encode())
        except OSError as error:
            raise FederationError(f"it cannot be kept: {(error.strerror or str(error)).lower()}") from None
        self._held = relations


def beside(folder: Folder, text: str) -> Folder:
    """A folder with the relations of `text`, as `Relations.text` has it; they are no file of its own."""
    if not text:
        return folder
    return replace(folder, texts={**folder.texts, TEXT: text}, digest=digest({TEXT: text, "": folder.digest}))


def with_relations(settings: Settings, text: str | None) -> Settings:
    """The settings with the trust domains of `text` besides, but for those that they name themselves."""
    if not text:
        return settings
    own = {settings.trust_domain, *(one.trust_domain for one in settings.ca.federation)}
    more = tuple(one for one in _parsed(text) if one.trust_domain not in own)
    ca = settings.ca.model_copy(update={"federation": (*settings.ca.federation, *more)})
    return settings.model_copy(update={"ca": ca})


def _read(file: Path) -> tuple[FederatedSettings, ...]:
    try:
        with file.open(encoding="utf-8") as opened:
            return _parsed(opened.read(MAX_BYTES))
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        remedy = "restore it from a copy, or remove it and create its relations anew"
        raise StateError(f"`{file}` cannot be read", remedy=remedy) from error


def _parsed(text: str) -> tuple[FederatedSettings, ...]:
    return tuple(sorted(_ALL.validate_json(text, by_name=True), key=lambda one: one.trust_domain))


def _text(relations: tuple[FederatedSettings, ...]) -> str:
    return json.dumps([one.model_dump(by_alias=True, exclude_none=True) for one in relations], indent=1)
