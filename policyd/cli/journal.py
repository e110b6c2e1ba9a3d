"""The journal that a command reads: where it is, and what is said of lines that are broken."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policyd.errors import BrokenRecord


def journal_of(directory: Path | None) -> Path:
    """The folder of the journal; raises StateError where there is none."""
    from policyd.errors import StateError
    from policyd.instance import folder as find_folder
    from policyd.state_paths import state_paths

    folder = find_folder(directory)
    journal = state_paths(folder).journal
    if not journal.is_dir():
        raise StateError(f"`{folder}` has no journal", remedy=f"start it with `policyd up {folder}`")
    return journal


def say_broken(error: BrokenRecord) -> None:
    """Warn of what cannot be read, which hinders nothing else."""
    from policyd.wording import clean

    sys.stderr.write(f"warning: {clean(str(error))}\n")
