"""The page of metrics of one application, asked for on this machine: in time, and of a bounded size, or not at all."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import h11

SECONDS: Final = 2.0
MAX_BYTES: Final = 4 << 20
MAX_HEAD: Final = 32 << 10
_FORM: Final = "text/plain;version=0.0.4;q=1,*/*;q=0.1"


@dataclass(frozen=True, slots=True)
class PagePlace:
    """Where the application beside a sidecar shows its metrics."""

    instance: str
    host: str
    port: int
    path: str


async def page_of(place: PagePlace, seconds: float = SECONDS) -> str | None:
    """The text; None where there is no whole answer of 200 in time."""
    with suppress(OSError, TimeoutError, h11.RemoteProtocolError, ValueError):
        async with asyncio.timeout(seconds):
            return await _asked(place)
    return None


async def _asked(place: PagePlace) -> str | None:
    reader, writer = await asyncio.open_connection(place.host, place.port)
    try:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        host = f"[{place.host}]" if ":" in place.host else place.host
        headers = [("host", f"{host}:{place.port}"), ("accept", _FORM), ("connection", "close")]
        request = h11.Request(method="GET", target=place.path, headers=headers)
        writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        return await _body(connection, reader)
    finally:
        writer.transport.abort()


async def _body(connection: h11.Connection, reader: asyncio.StreamReader) -> str | None:
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(MAX_HEAD))
        elif isinstance(event, h11.Response) and event.status_code != 200:
            return None
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BYTES:
                return None
        elif isinstance(event, h11.EndOfMessage):
            return body.decode(errors="replace")
        elif isinstance(event, h11.ConnectionClosed):
            return None
