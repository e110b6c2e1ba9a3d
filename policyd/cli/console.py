"""`policyd console`: a link that opens the console of a folder, once; and how `up` and `serve` start it.

Law: who can read the key in the state folder is its owner, and may come in. A link is printed for people and never
logged.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from policyd.cli.lazy import leaf
from policyd.cli.options import Dir, Json
from policyd.names import CONSOLE_LISTENING

if TYPE_CHECKING:
    from policyd.state_paths import StatePaths

MODULE: Final = "policyd.console"
PATH: Final = "/enter?link="

app = leaf()


@app.command()
def console(
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Print a link that opens the console of what runs, once and within ten minutes.

    The console runs beside `policyd up`, and beside `policyd serve --console`.
    """
    from policyd.cli import output
    from policyd.instance import folder
    from policyd.state_paths import state_paths

    found = link(state_paths(folder(directory)))
    if as_json:
        output.print_json({"link": found})
    else:
        output.show(found)


def link(paths: StatePaths) -> str:
    """A link to the console that runs; raises NotRunning, or StateError for a broken file."""
    from policyd import tickets
    from policyd.errors import NotRunning
    from policyd.instance import read_json
    from policyd.sources.console_key import key_of

    found = read_json(paths.console)
    if found is None or not _runs(found.get("pid")):
        remedy = "it runs beside `policyd up`, and beside `policyd serve --console`"
        raise NotRunning(f"no console runs for `{paths.root.parent}`", remedy=remedy)
    nonce = secrets.token_bytes(tickets.NONCE_BYTES)
    ticket = tickets.link(key_of(paths), f"unix:{os.getuid()}", int(time.time()), nonce)
    return f"{found.get('scheme')}://{found.get('address')}{PATH}{ticket}"


def command(directory: Path) -> list[str]:
    """How the console is started."""
    return [sys.executable, "-m", MODULE, "--dir", str(directory)]


def address_in(line: str) -> str:
    """Where the console listens, if that is what a line of its output says, else ""."""
    try:
        said: Any = json.loads(line) if CONSOLE_LISTENING in line else None
    except ValueError:
        return ""
    facts: Mapping[str, Any] = said if isinstance(said, dict) else {}
    return f"{facts.get('scheme')}://{facts.get('address')}" if facts.get("event") == CONSOLE_LISTENING else ""


def _runs(pid: object) -> bool:
    """Whether a process is there."""
    if not isinstance(pid, int) or pid <= 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
