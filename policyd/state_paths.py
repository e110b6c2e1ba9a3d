"""Which folder is a mesh's, and where its state and its sockets lie.

Law: names alone; nothing is made here. A path that a socket could not have is refused before anything is opened.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policyd.environment import Environment
from policyd.errors import StateError, UsageError

STATE_FOLDER: Final = ".policyd"
WORKLOADS_FILE: Final = "workloads.yaml"  # what shows a folder that was never up
MAX_SOCKET_PATH: Final = 107  # sun_path of unix(7), without its closing NUL
SOCKET_NAME_ROOM: Final = 40  # what the names of sockets below the runtime folder need at least


def find_directory(option: str | None, environment: Environment, cwd: Path) -> Path:
    """Return the folder: `--dir`, else POLICYD_DIR, else the nearest one from `cwd` upwards that is a mesh's.

    Raises UsageError if there is none, or if what was named is no folder.
    """
    named = option or environment.directory
    if named:
        directory = Path(os.path.realpath(cwd / named))  # a link in a circle is no folder, and no fault
        if not directory.is_dir():
            raise UsageError(f"`{named}` is no folder", remedy="name an existing one")
        return directory
    for candidate in (cwd, *cwd.parents):
        if (candidate / STATE_FOLDER).is_dir() or (candidate / WORKLOADS_FILE).is_file():
            return candidate.resolve()
    remedy = "name it with `--dir`, or run the command inside it"
    raise UsageError(f"no folder with `{WORKLOADS_FILE}` from `{cwd}` upwards", remedy=remedy)


@dataclass(frozen=True, slots=True)
class StatePaths:
    """What lies in a folder's state folder, `root`."""

    root: Path

    @property
    def format(self) -> Path:
        """The version of the state's format."""
        return self.root / "format"

    @property
    def ca(self) -> Path:
        """The authority's keys and certificates."""
        return self.root / "ca"

    @property
    def tokens(self) -> Path:
        """The join tokens, hashed."""
        return self.root / "tokens.db"

    @property
    def journal(self) -> Path:
        """The journal's files."""
        return self.root / "journal"

    @property
    def revisions(self) -> Path:
        """What was in force, by revision."""
        return self.root / "revisions"

    @property
    def spools(self) -> Path:
        """How far the agents' spools of local decisions are on record."""
        return self.root / "spools.json"

    @property
    def distrusted(self) -> Path:
        """The workloads whose sidecars decided otherwise than policyd, by revision."""
        return self.root / "distrusted.json"

    @property
    def health(self) -> Path:
        """Which instances answered, for the next start."""
        return self.root / "health.json"

    @property
    def columns(self) -> Path:
        """A copy of the journal for questions, derived from it; made anew when it is gone."""
        return self.root / "columns"

    @property
    def mask_key(self) -> Path:
        """The key of the keyed hash that masked values become."""
        return self.root / "mask.key"

    @property
    def placement(self) -> Path:
        """Ports and proxy secrets."""
        return self.root / "placement.json"

    @property
    def jwks(self) -> Path:
        """The keys of issuers that were fetched last."""
        return self.root / "jwks"

    @property
    def federation(self) -> Path:
        """The bundles of other trust domains."""
        return self.root / "federation"

    @property
    def relations(self) -> Path:
        """The other trust domains that a command named."""
        return self.root / "federation.json"

    @property
    def server(self) -> Path:
        """Process id and addresses of the server, while it serves."""
        return self.root / "server.json"

    @property
    def left(self) -> Path:
        """There once a server ended in order while agents were connected: their proxies may run on."""
        return self.root / "left"

    @property
    def console(self) -> Path:
        """Where the console listens, while it does."""
        return self.root / "console.json"

    @property
    def console_key(self) -> Path:
        """The key of its links and sessions."""
        return self.root / "console.key"

    @property
    def lock(self) -> Path:
        """Held by the one process that serves the folder."""
        return self.root / "lock"


def state_paths(directory: Path) -> StatePaths:
    """Return where the state of `directory` lies."""
    return StatePaths(directory / STATE_FOLDER)


def instance_name(directory: Path) -> str:
    """Return the short name that stands for a folder where its path would be too long."""
    return hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]


def runtime_directory(directory: Path, environment: Environment, uid: int) -> Path:
    """Return where the sockets of `directory` lie: below XDG_RUNTIME_DIR, else the user's own temporary folder.

    Raises StateError where paths below it would be too long for a Unix socket.
    """
    base = environment.runtime / "policyd" if environment.runtime else environment.temporary / f"policyd-{uid}"
    runtime = base / instance_name(directory)
    if len(str(runtime).encode()) + SOCKET_NAME_ROOM > MAX_SOCKET_PATH:
        variable = "XDG_RUNTIME_DIR" if environment.runtime else "TMPDIR"
        raise StateError(
            f"sockets below `{runtime}` would have paths of more than {MAX_SOCKET_PATH} bytes",
            remedy=f"set {variable} to a shorter path",
        )
    return runtime
