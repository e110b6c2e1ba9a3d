"""The version of a journal folder's form, in its file `format`.

Law: a newer one is refused by who reads and who writes, so that nothing is passed over that an older policyd does not
know. A folder without the file is of version 1: open segments only, nothing sealed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from policyd.audit.disk import Disk
from policyd.errors import StateError

FORMAT: Final = 2
FORMAT_FILE: Final = "format"
_MAX_BYTES: Final = 32


def check_format(directory: Path) -> None:
    """Raise StateError for a journal of a version that this policyd does not know."""
    try:
        with (directory / FORMAT_FILE).open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError:  # not there, or not readable, as the segments then are not
        return
    version = text.strip()
    if len(text) > _MAX_BYTES or not version.isdigit() or not int(version):
        raise StateError(f"`{directory}` is corrupted: `{FORMAT_FILE}` has no version", remedy="restore it from a copy")
    if int(version) > FORMAT:
        message = f"the journal `{directory}` has format {int(version)}, this policyd knows {FORMAT}"
        raise StateError(message, remedy="use the newer policyd that wrote it")


def set_format(disk: Disk, directory: Path) -> None:
    """Check the version, and give a folder without one ours; raises StateError, OSError."""
    check_format(directory)
    disk.write_once(directory / FORMAT_FILE, lambda: f"{FORMAT}\n")
