"""`policyd up`, step by step: check, lock, start, wait, show, stay, end.

Law: however it ends, what it started has ended and its temporary files are gone; the state and the logs stay.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policyd.cli import detached, report
from policyd.cli.check_run import run_checks
from policyd.cli.exits import Exit
from policyd.cli.progress import View, view
from policyd.cli.running import RunningMesh
from policyd.environment import Environment
from policyd.errors import InvalidInput, Problem, StateError
from policyd.instance import UP_FILE, alone, answers
from policyd.offline.loaded import Loaded, load_folder
from policyd.sources.state import prepare_state, private_folder, write_private
from policyd.state_paths import runtime_directory, state_paths

LOGS: Final = "run"  # in the state folder
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; `ready` is the descriptor on which a detached `up` says that it is up, else -1.

    `shadow` is a folder of policies to try beside the active ones; `console` wants one while it stays.
    """

    directory: Path
    check: bool = False
    fresh: bool = False
    timeout: float = 60.0
    as_json: bool = False
    ready: int = -1
    shadow: Path | None = None
    console: bool = True

    @property
    def stays(self) -> bool:
        """Whether it goes on after the table."""
        return self.ready >= 0 or (not self.check and sys.stdout.isatty())


@dataclass(frozen=True, slots=True)
class Folders:
    """Where logs and sockets go."""

    state: Path
    logs: Path
    runtime: Path


async def bring_up(options: Options, environment: Environment, environ: Mapping[str, str]) -> int:
    """Run the folder's mesh; returns the exit code. Raises PolicydError for what keeps it from coming up."""
    loaded = load_folder(options.directory, shadow=options.shadow)  # what cannot run is said before anything is touched
    if not loaded.live.mesh.instances:
        remedy = "declare what runs in workloads.yaml"
        raise InvalidInput([Problem("no_workloads", "there is nothing to run", "workloads.yaml", remedy=remedy)])
    with alone(options.directory), _folders(options, environment) as folders:
        work = asyncio.create_task(_run(options, loaded, folders, environ))
        loop = asyncio.get_running_loop()
        for number in ENDING:
            loop.add_signal_handler(number, work.cancel)
        try:
            return await work
        except asyncio.CancelledError:
            return Exit.INTERRUPTED


async def _run(options: Options, loaded: Loaded, folders: Folders, environ: Mapping[str, str]) -> int:
    screen = view(sys.stderr if options.as_json else sys.stdout)
    mesh = RunningMesh(
        options.directory, folders.state, folders.logs, folders.runtime, environ, screen, options.shadow,
        console=options.stays and options.console,
    )  # fmt: skip
    try:
        await mesh.start(options.timeout)
        screen.settle()
        outcomes = await run_checks(loaded, mesh.places)
        code = report.after_start(mesh, loaded, outcomes, as_json=options.as_json)
        if options.stays:
            await _stay(options, folders, screen)
            code = Exit.OK
        return code
    finally:
        with suppress(OSError):  # the terminal has gone
            screen.close()
        await _to_the_end(mesh)


async def _to_the_end(mesh: RunningMesh) -> None:
    """Stop all of it: a second Ctrl-C must not leave half of it running."""
    ending = asyncio.create_task(mesh.stop())
    while not ending.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(ending)
    ending.result()


async def _stay(options: Options, folders: Folders, screen: View) -> None:
    """Return when told to end."""
    if options.ready >= 0:
        detached.let_go(options.ready, folders.logs / detached.LOG)
    elif not options.as_json:
        report.staying()
    with suppress(asyncio.CancelledError):
        await report.changes(options.directory)


@contextmanager
def _folders(options: Options, environment: Environment) -> Iterator[Folders]:
    """Make the folders, and clean up what must not outlive us; raises StateError."""
    directory, uid = options.directory, os.getuid()
    if answers(directory):
        remedy = f"end it with `policyd down --dir {directory}`"
        raise StateError(f"a server runs for `{directory}` already", remedy=remedy)
    if options.fresh:
        _remove(state_paths(directory).root)
    paths = prepare_state(directory, uid)
    # left from before, they would tell the server that proxies run and hold their ports
    paths.server.unlink(missing_ok=True)
    paths.left.unlink(missing_ok=True)
    state = paths.root
    runtime = runtime_directory(directory, environment, uid)
    folders = Folders(state, state / LOGS, runtime / "agent")
    private_folder(folders.logs, uid)
    shutil.rmtree(folders.runtime, ignore_errors=True)  # of an `up` that was killed
    write_private(state / UP_FILE, json.dumps({"pid": os.getpid()}).encode())
    try:
        yield folders
    finally:
        (state / UP_FILE).unlink(missing_ok=True)
        shutil.rmtree(folders.runtime, ignore_errors=True)
        for empty in (runtime, runtime.parent):
            with suppress(OSError):  # another mesh of ours has its sockets there
                empty.rmdir()


def _remove(root: Path) -> None:
    try:
        shutil.rmtree(root)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StateError(f"`{root}` cannot be removed: {error.strerror or error}") from None
