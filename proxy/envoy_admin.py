"""Envoy's administration interface, over its Unix socket: one request, one bounded answer.

Law: just enough HTTP/1.1 for that one peer; whatever goes wrong is an EnvoyError.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import quote

from policyd.errors import EnvoyError

TIMEOUT = 5.0
MAX_BYTES = 8 << 20


async def ask(
    socket: Path, target: str, *, method: str = "GET", timeout: float = TIMEOUT, most: int = MAX_BYTES
) -> tuple[int, bytes]:
    """Send `method target` and return status and body, of `most` bytes.

    Raises EnvoyError when there is no answer within `timeout`.
    """
    request = f"{method} {target} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(timeout):
            return await _exchange(socket, request, most)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise EnvoyError(f"Envoy does not answer at `{socket}`: {error or 'no answer in time'}") from None


async def is_ready(socket: Path) -> bool:
    """Whether Envoy has its first configuration and serves (`/ready` is 200)."""
    try:
        status, _ = await ask(socket, "/ready", timeout=1.0)
    except EnvoyError:
        return False
    return status == 200


async def stats(socket: Path, pattern: str) -> str:
    """The counters and gauges whose names a regex finds, a line each; raises EnvoyError."""
    _, body = await ask(socket, f"/stats?filter={quote(pattern, safe='')}")
    return body.decode(errors="replace")


async def _exchange(socket: Path, request: str, most: int) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(request.encode("ascii"))
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if b"transfer-encoding: chunked" in head.lower():
            return status, await _chunks(reader, most)
        return status, await reader.read(most)
    finally:
        writer.transport.abort()


async def _chunks(reader: asyncio.StreamReader, most: int) -> bytes:
    body = bytearray()
    while size := int(await reader.readuntil(b"\r\n"), 16):
        if len(body) + size > most:
            raise ValueError(f"more than {most} bytes")
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    return bytes(body)
