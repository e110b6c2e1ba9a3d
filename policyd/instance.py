"""Which folder a command or the console is about, and how to reach what runs for it.

Law: each finds the same folder as every other; what runs is known by locks and sockets, never by a stale file.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from policyd.config.settings import SETTINGS_FILE, parse_settings
from policyd.environment import Environment, from_environ
from policyd.errors import NotRunning, PolicydError, StateError, UsageError
from policyd.home import HOME
from policyd.state_paths import find_directory, state_paths

if TYPE_CHECKING:
    from policyd.admin_client import AdminClient

UP_FILE: Final = "up.json"  # in the state folder: {"pid": ...} of the `up` that holds the lock
MAX_FILE: Final = 65_536


def environment() -> Environment:
    """Return what the environment says; raises UsageError."""
    return from_environ(os.environ)


def folder(option: Path | None) -> Path:
    """Return the folder that a command is about, absolute; raises UsageError."""
    return _at_home(find_directory(str(option) if option else None, environment(), Path.cwd()))


def _at_home(directory: Path) -> Path:
    """From now on the folder's own workloads are shown by their short names, and no others."""
    HOME.moved(lambda: trust_domain_of(directory))
    return directory


def trust_domain_of(directory: Path) -> str:
    """What the folder's settings say; where they cannot be read, "": every name is then shown with its trust domain."""
    try:
        text = (directory / SETTINGS_FILE).read_text(encoding="utf-8") if (directory / SETTINGS_FILE).exists() else ""
        return parse_settings(text).trust_domain
    except (PolicydError, OSError, ValueError):
        return ""


def existing(directory: Path | None) -> Path:
    """Return a folder given as an argument, absolute, or the nearest one; raises UsageError where there is none."""
    try:
        return _at_home(find_directory(str(directory) if directory else None, environment(), Path.cwd()))
    except UsageError as error:
        if directory:
            raise
        raise UsageError(error.message, remedy="name it, or run the command inside it") from None


def admin_socket(directory: Path) -> Path:
    """Return the socket of the server of `directory`; raises NotRunning, or StateError for a broken file."""
    from policyd.admin_client import not_running

    found = read_json(state_paths(directory).server)
    if found is None:
        raise not_running(directory)
    socket = found.get("admin_socket")
    if not isinstance(socket, str):
        raise StateError(f"`{state_paths(directory).server}` names no `admin_socket`", remedy="run `policyd down`")
    return Path(socket)


@contextmanager
def server(directory: Path) -> Iterator[AdminClient]:
    """Connect to the server of `directory` for the length of a block; raises NotRunning."""
    from policyd.admin_client import admin

    with admin(admin_socket(directory), directory) as client:
        yield client


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the mapping in a file of our own, None if it is not there; raises StateError for a broken one."""
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(MAX_FILE))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StateError(f"`{path}` cannot be read: {error}", remedy="run `policyd down`") from None
    if not isinstance(value, dict):
        raise StateError(f"`{path}` is broken", remedy="run `policyd down`")
    return value


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold the folder's lock for the length of a block; raises StateError while another `up` holds it.

    The lock is on the folder itself, so that it outlives the removal of the state; the kernel ends it with us.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = f"end it with `policyd down --dir {directory}`"
            raise StateError(f"`{directory}` is up already", remedy=remedy) from None
        yield
    finally:
        os.close(descriptor)


def is_held(directory: Path) -> bool:
    """Tell whether an `up` holds the folder's lock."""
    try:
        with alone(directory):
            return False
    except StateError:
        return True


def answers(directory: Path) -> bool:
    """Tell whether a server answers for `directory`."""
    try:
        with server(directory) as client:
            client.status()
    except (NotRunning, StateError):
        return False
    return True
