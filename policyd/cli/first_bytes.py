"""What a load balancer does before a gateway: each connection begins with a PROXY header (version 1), for a client."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

PIECE: Final = 1 << 16


def header(client: str, at: str) -> bytes:
    """The header of a connection of `client` (an IP address) to `at` (`host:port`)."""
    host, _, port = at.rpartition(":")
    ends = [ipaddress.ip_address(client), ipaddress.ip_address(host.strip("[]"))]
    if ends[0].version != ends[1].version:  # both are of one kind there; the gateway looks at the client's alone
        ends[1] = ipaddress.ip_address("::1" if ends[0].version == 6 else "127.0.0.1")
    return f"PROXY TCP{4 if ends[0].version == 4 else 6} {ends[0]} {ends[1]} 65535 {port}\r\n".encode()


@asynccontextmanager
async def balancer(at: str, first: bytes) -> AsyncIterator[str]:
    """Give `host:port` of a place whose connections go on to `at`, with these bytes in front."""
    open_: set[asyncio.StreamWriter] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.add(writer)
        host, _, port = at.rpartition(":")
        with suppress(OSError):
            from_there, to_there = await asyncio.open_connection(host.strip("[]"), int(port))
            open_.add(to_there)
            to_there.write(first)
            await asyncio.gather(_copy(reader, to_there), _copy(from_there, writer))
        writer.close()

    server = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    try:
        address = server.sockets[0].getsockname()
        yield f"{address[0]}:{address[1]}"
    finally:
        server.close()
        for writer in open_:
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
    writer.close()
