"""One decision process as the server has it: its program, our end of its link, and what it has been given."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from policyd.authz.ruling import Ruling
from policyd.server.decider_life import DeciderLife
from policyd.server.handover import Given
from policyd.server.transport import GRPC
from policyd.telemetry.slots import Slots

_log = structlog.get_logger("policyd.server")


@dataclass(eq=False)
class DeciderProcess:
    """Made of what `launch` returns; `certificate` is what it shows, as it was given."""

    process: Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    life: DeciderLife
    given: Given | None = None
    certificate: object = None
    listening: bool = False
    rule: int = 0  # the number of the last one that it took
    gone: bool = False
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)

    def passed_on(self, number: int, ruling: Ruling) -> None:
        """What it was given as this rule is the same as another ruling, and the last one need not be kept."""
        if self.given is not None and self.given.number == number:
            self.given = Given(number, ruling)

    async def send(self, packed: Iterable[bytes]) -> None:
        """Pass on what is packed, at its pace; who has gone misses nothing."""
        with suppress(OSError):
            for one in packed:
                self.writer.write(one)
                await self.writer.drain()

    async def end(self, seconds: float) -> None:
        """Close the link, upon which it ends, and wait; it is killed when it takes longer."""
        self.writer.close()
        try:
            async with asyncio.timeout(seconds):
                await self.process.wait()
        except TimeoutError:
            _log.error("decider.killed", name=self.life.name, pid=self.process.pid)
            self.kill()
            await self.process.wait()

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            self.process.kill()


async def launch(slots: Slots) -> tuple[Process, asyncio.StreamReader, asyncio.StreamWriter]:
    """Start a process that counts in `slots`; it knows nothing yet."""
    ours, theirs = socket.socketpair()
    descriptors = (theirs.fileno(), slots.descriptor)
    command = [sys.executable, "-P", "-m", "policyd.server.decider", *map(str, descriptors)]
    try:
        process = await asyncio.create_subprocess_exec(
            *command, str(slots.regions), stdin=DEVNULL, pass_fds=descriptors, env={**os.environ, **GRPC}
        )
        reader, writer = await asyncio.open_connection(sock=ours)
    finally:
        theirs.close()
    return process, reader, writer
