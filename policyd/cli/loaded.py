"""A folder checked as the server checks it, without starting anything: for all commands that work offline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policyd.reload import Live
    from policyd.sources.files import Folder


@dataclass(frozen=True, slots=True)
class Loaded:
    """A folder's texts and what they came to."""

    folder: Folder
    live: Live

    @property
    def directory(self) -> Path:
        """Where it lies."""
        return self.folder.directory


def load_folder(directory: Path) -> Loaded:
    """Read and check everything that `policyd serve` would load; raises InvalidInput with every problem.

    Ports that the folder leaves open are assumed, so nothing is taken and no state is made.
    """
    from policyd.mesh.placement import assumed
    from policyd.reload import load, shipped_schemas
    from policyd.sources.files import read_folder
    from policyd.spiffe import SpiffeId
    from policyd.xds.resources.model import Control

    folder = read_folder(directory)
    nowhere = Control("127.0.0.1", (1,), SpiffeId.server("cluster.local"))  # nobody is sent this
    return Loaded(folder, load(folder, shipped_schemas(), assumed, nowhere))
