"""A server of one folder from its start to its end: the folder's state is its own, and a signal ends it."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from policyd.environment import PASSPHRASE, Environment, Level
from policyd.server.control_plane import ControlPlane
from policyd.server.last_good import LastGood, started
from policyd.server.speech import Speech
from policyd.server.state import exclusively
from policyd.server.transport import GRPC
from policyd.sources.shadow import FolderReader
from policyd.sources.state import prepare_state
from policyd.state_paths import StatePaths
from policyd.telemetry.logs import configure_logs

_log = structlog.get_logger("policyd.server")


def main(
    directory: Path,
    environment: Environment,
    *,
    log_json: bool = False,
    shadow: Path | None = None,
    deciders: int | None = None,
) -> None:
    """Serve `directory` until SIGTERM or SIGINT; raises PolicydError where it cannot start.

    `shadow` is a folder of policies to try beside its own, `deciders` how many processes decide.
    """

    def speak(level: Level) -> None:
        configure_logs(json_lines=log_json or None, level=level)

    speak(environment.log_level or "info")
    os.environ.pop(PASSPHRASE, None)  # nobody whom we start needs it
    os.environ.update(GRPC)
    paths = prepare_state(directory, os.getuid())
    with exclusively(paths):
        speech = Speech(speak, log_json or None, environment.log_level)
        asyncio.run(_serve(FolderReader(directory, shadow), paths, environment, speech, deciders))


async def _serve(
    read: FolderReader, paths: StatePaths, environment: Environment, speech: Speech, deciders: int | None
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def make(good: LastGood | None) -> ControlPlane:
        return ControlPlane(read, paths, stop, speech, deciders, good)

    async with AsyncExitStack() as stack:
        await started(stack, make, read.directory, paths, environment)
        await stop.wait()
        _log.info("server.stopping")
