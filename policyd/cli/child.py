"""One running program: started in a group of its own, read, and ended with everything that it started.

Law: it ends when we end, however we end (the kernel ends it, and the guard its group). Nothing is inherited but what
is given here.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from policyd.cli.child_log import ChildLog
from policyd.errors import ChildError
from proxy import launch

CHUNK: Final = 64 << 10
ODDS_SECONDS: Final = 1.0  # for output that is still in the pipe when the program has ended

Probe = Callable[[], Awaitable[str]]  # "" when healthy, else why not
Feed = Callable[[], Awaitable[bytes]]  # what to write to standard input, made anew for each start


def _nothing(line: str) -> None:
    """Listen to nothing."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and how to know that it is healthy.

    `feed` gives the beginning of its standard input, which then stays open until the program ends; without it the
    input is empty. `listen` gets each line that it prints. `grace` is in seconds, from SIGTERM to SIGKILL;
    `whole_group` sends SIGTERM to all that it started too.
    """

    name: str
    kind: str
    command: Sequence[str]
    cwd: Path
    environment: Mapping[str, str] = field(repr=False)
    probe: Probe
    feed: Feed | None = None
    listen: Callable[[str], None] = _nothing
    grace: float = 5.0
    whole_group: bool = True


class Child:
    """A started program; `wait` must be awaited, it also reads what is printed."""

    def __init__(self, program: Program, process: Process, log: ChildLog) -> None:
        self._program = program
        self._process = process
        self._reader = asyncio.create_task(_read(process, log))

    @property
    def group(self) -> int:
        """The id of its process and of its process group."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait for its end, end what it left behind, and return its code (negative: a signal)."""
        code = await self._process.wait()
        self._kill_group()
        await self._read_out()
        return code

    async def end(self) -> None:
        """SIGTERM, and SIGKILL to the whole group after the program's grace."""
        self._signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), self._program.grace)
        self._kill_group()
        await self._process.wait()
        await self._read_out()

    async def _read_out(self) -> None:
        await asyncio.wait({self._reader}, timeout=ODDS_SECONDS)
        self._reader.cancel()  # something escaped from the group and holds the pipe

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self._program.whole_group:
                os.killpg(self.group, number)
            elif self._process.returncode is None:
                self._process.send_signal(number)

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, signal.SIGKILL)


async def start(program: Program, log: ChildLog, given: bytes | None) -> Child:
    """Start `program`, writing `given` to its standard input; raises ChildError where it cannot be started."""
    name, *arguments = program.command
    path = shutil.which(name, path=program.environment.get("PATH"))
    if path is None:
        raise ChildError(f"could not be started: `{name}` is no program in PATH")
    wrapper = [sys.executable, "-I", "-S", str(launch.__file__), str(os.getpid()), path, *arguments]
    try:
        process = await asyncio.create_subprocess_exec(
            *wrapper,
            stdin=DEVNULL if given is None else PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            cwd=program.cwd,
            env=dict(program.environment),
            start_new_session=True,  # Ctrl-C is for us alone; we end our children in order
        )
    except OSError as error:
        raise ChildError(f"could not be started: {error.strerror or error}") from None
    if process.stdin is not None and given is not None:
        process.stdin.write(given)
    return Child(program, process, log)


async def _read(process: Process, log: ChildLog) -> None:
    assert process.stdout is not None
    while chunk := await process.stdout.read(CHUNK):
        log.write(chunk)
