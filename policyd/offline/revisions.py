"""A kept revision as what it was: its folder, checked again under its own schema, for all who look back.

Law: offline; what was kept decides as it did, or it is said that this version of policyd reads it otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from policyd.cedar.schema import parse_schema
from policyd.errors import InvalidInput
from policyd.offline.loaded import load_texts
from policyd.reload.live import shipped_schemas
from policyd.reload.parsed import ISSUANCE_FILE, OPERATORS_FILE
from policyd.sources.files import Folder, digest
from policyd.sources.revisions import SHORT, Kept, Kit, find, read
from policyd.state_paths import state_paths

if TYPE_CHECKING:
    from policyd.reload.live import Live

_OTHER_SETS: Final = (ISSUANCE_FILE, OPERATORS_FILE)  # of these sets the schemas are not kept


def load_revision(directory: Path, prefix: str, at: datetime | None = None) -> tuple[Kept, Live]:
    """Load what was kept of the folder `directory` under a revision, `at` a time or last.

    Raises UsageError for what is no hash, NotFound where nothing or several are meant, StateError where it is damaged,
    InvalidInput where this version of policyd refuses it.
    """
    root = state_paths(directory).revisions
    kit = read(root, find(root, prefix, at))
    return kit.kept, live_of(kit, directory)


def live_of(kit: Kit, directory: Path) -> Live:
    """Check what was kept as `policyd serve` did; raises InvalidInput, its files named after the revision."""
    texts = {
        path: text for path, text in kit.texts.items() if not path.startswith("cases/") and path not in _OTHER_SETS
    }
    folder = Folder(directory, texts, digest(texts))
    try:
        schemas = replace(shipped_schemas(), mesh=parse_schema(kit.schema, "mesh"))
        return load_texts(folder, schemas)
    except InvalidInput as error:
        named = f"revision:{kit.kept.revision[:SHORT]}"
        problems = [replace(one, file=f"{named}/{one.file}" if one.file else named) for one in error.problems]
        raise InvalidInput(problems) from None
