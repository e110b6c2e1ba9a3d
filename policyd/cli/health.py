"""Is it up? Each probe asks once and answers "" or why not; it never raises and never waits long."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from policyd.errors import NotRunning, PolicydError
from policyd.instance import server

PROBE_SECONDS: Final = 2.0
MAX_ANSWER: Final = 1024  # bytes of which the first line is read
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])\b")


def server_probe(directory: Path) -> Callable[[], Awaitable[str]]:
    """Return the probe of the server of `directory`: up once it is ready."""

    def ask() -> str:
        try:
            with server(directory) as client:
                status = client.status()
        except NotRunning:
            return "it does not answer yet"
        except PolicydError as error:
            return error.message
        return "" if status.ready else status.not_ready_because or "it is not ready"

    async def probe() -> str:
        return await asyncio.to_thread(ask)

    return probe


def application_probe(port: int, path: str | None, socket: str = "") -> Callable[[], Awaitable[str]]:
    """Return the probe of an application: up once `path` answers below 400, or the port where it names no path.

    One that listens on a Unix `socket` (`@` begins an abstract one) has no port.
    """
    where = f"the socket `{socket}`" if socket else f"port {port}"

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if socket:
            return await asyncio.open_unix_connection(socket.replace("@", "\0", 1) if socket[0] == "@" else socket)
        return await asyncio.open_connection("127.0.0.1", port)

    async def probe() -> str:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return await _look(*await connect(), where, path)
        except TimeoutError:
            return f"{where} accepts and does not answer"
        except OSError:
            return f"nothing listens on {where} yet"

    return probe


async def _look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str, path: str | None) -> str:
    try:
        if path is None:
            return ""
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        found = _STATUS_LINE.match(await reader.read(MAX_ANSWER))
        if found is None:
            return f"{where} does not speak HTTP"
        return "" if int(found[1]) < 400 else f"`{path}` answers {int(found[1])}"
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
