"""A folder whose files are replaced together, as long as a program keeps them: key, certificate and roots of one kind.

Law: what is there is of one another at every instant. Each generation is a folder of its own, readable by its owner
alone, and one rename of a link takes the next one into use, as Kubernetes does it with secrets; programs see it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from policyd.ca.files import sync_folder, write_new

CURRENT: Final = ".current"
PREFIX: Final = ".generation-"


def replace_together(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make `files`, by name, those of `folder`, all at once and on the disk; raises OSError: then nothing changed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))  # of mode 0700
    try:
        for name, data in files.items():
            write_new(made / name, data)
        sync_folder(made)
        _link(folder / CURRENT, made.name)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    for name in files:
        _link(folder / name, f"{CURRENT}/{name}")
    sync_folder(folder)
    for other in folder.glob(f"{PREFIX}*"):
        if other != made:
            shutil.rmtree(other, ignore_errors=True)


def _link(path: Path, target: str) -> None:
    """Have `path` be a link to `target`, whatever it was before; one that is that already is left alone."""
    with suppress(OSError):
        if str(path.readlink()) == target:
            return
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(path)
