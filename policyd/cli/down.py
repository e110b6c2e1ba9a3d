"""`policyd down`: end what `up`, or `serve`, started for a folder."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from policyd.cli.lazy import leaf
from policyd.cli.options import Json

END_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.05

app = leaf()


@app.command()
def down(
    given: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="The mesh's folder.", show_default=False)
    ] = None,
    directory: Annotated[Path | None, typer.Option("--dir", help="The same, as other commands have it.")] = None,
    as_json: Json = False,
) -> None:
    """End everything that runs for a folder: applications first, then proxies, then the server.

    State stays: the next `policyd up` goes on with the same certificate authority and journal.
    """
    from policyd.cli import output
    from policyd.instance import folder

    where = folder(given or directory)
    ended = end(where)
    if as_json:
        output.print_json({"ended": ended})
    else:
        output.show(f"ended what ran for `{where}`" if ended else f"nothing was running for `{where}`")


def end(directory: Path) -> bool:
    """End what runs for `directory` and wait for it; tell whether there was anything. Raises StateError."""
    from policyd.errors import NotRunning
    from policyd.instance import UP_FILE, answers, is_held, read_json, server
    from policyd.state_paths import state_paths

    if is_held(directory):
        found = read_json(state_paths(directory).root / UP_FILE) or {}
        ended = _terminate(found.get("pid"))
        _wait(lambda: not is_held(directory) and ended(), "`policyd up`", directory)
        return True
    if not answers(directory):
        return False
    with suppress(NotRunning), server(directory) as client:
        client.shutdown()
    _wait(lambda: not answers(directory), "`policyd serve`", directory)
    return True


def _terminate(pid: object) -> Callable[[], bool]:
    """Send SIGTERM to the holder of the folder's lock; returns how to tell that it has ended."""
    if not isinstance(pid, int) or pid <= 1:
        return lambda: True
    try:
        process = os.pidfd_open(pid)  # a process, whatever becomes of its number
        signal.pidfd_send_signal(process, signal.SIGTERM)
    except ProcessLookupError:  # it is ending
        return lambda: True
    return lambda: bool(select.select([process], [], [], 0)[0])


def _wait(gone: Callable[[], bool], what: str, directory: Path) -> None:
    from policyd.errors import StateError

    deadline = time.monotonic() + END_SECONDS
    while not gone():
        if time.monotonic() > deadline:
            logs = directory / ".policyd" / "run"
            raise StateError(f"{what} did not end within {END_SECONDS:g} s", remedy=f"look at the logs in `{logs}`")
        time.sleep(LOOK_SECONDS)
