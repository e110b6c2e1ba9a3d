"""Agents without Envoys for bench/ca_rotation.py: each joins, and runs the agent's own session over its own connection.

Law: what is simulated are Envoys alone; joining, watching, trusting, renewing and telling is proxy.session's. It joins
with the tokens of the first line, through relays, since policyd takes few joins a second from one address.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

from policyd.join_token import parse_token
from proxy.book import Book
from proxy.bootstrap import Endpoint
from proxy.control import Control
from proxy.dns.server import Resolver
from proxy.fleet import Fleet
from proxy.join import join
from proxy.outside import Outside, utc_now
from proxy.probes import Probes
from proxy.session import Session

JOINS = 15  # from one address; policyd lets 20 of them be at once


class _Fleet:
    """What a session wants of its Envoys, of which there are none."""

    def behind(self, _sequence: int) -> tuple[str, ...]:
        """Nobody."""
        return ()

    def signers(self) -> frozenset[bytes]:
        """Nothing is shown."""
        return frozenset()

    def trust(self, *_: object) -> None:
        """There is nobody to tell."""

    def admin(self, _instance: str) -> None:
        """There is none."""

    async def apply(self, running: Iterable[object]) -> None:
        """Begin nothing."""
        for _ in running:
            pass


class _Resolver:
    """What answers names for captured applications, of which there are none."""

    async def serve(self, _captured: object) -> None:
        """Answer nobody."""


class _Probes:
    def apply(self, _wanted: object) -> None:
        """Ask nobody."""


async def main() -> None:
    """Join, be agents, and end with the input."""
    loop = asyncio.get_running_loop()
    tokens = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    tasks: list[asyncio.Task[Any]] = []
    for first in range(0, len(tokens), JOINS):
        some = tokens[first : first + JOINS]
        relay = await _relay(Endpoint.parse(parse_token(some[0]).address), f"127.0.1.{1 + first // JOINS}")
        tasks += [task for text in some for task in await _agent(text, relay)]
    print("{}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    for task in tasks:
        task.cancel()


async def _agent(text: str, relay: str) -> list[asyncio.Task[Any]]:
    joined = await join(replace(parse_token(text), address=relay), utc_now())
    outside = Outside(lambda event, **facts: None)
    control, book = Control(joined.server), Book(outside)
    book.use(control)
    fleet, probes = cast("Fleet", _Fleet()), cast("Probes", _Probes())
    resolver = cast("Resolver", _Resolver())
    session = Session(joined, None, control, fleet, probes, book, resolver, outside, lambda: None)
    works = (session.renew(), session.watch(), session.work(), session.tell())
    return [asyncio.create_task(work) for work in works]


async def _relay(to: Endpoint, source: str) -> str:
    """An address that leads to `to`, whose connections come from `source`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(to.host, to.port, local_addr=(source, 0))
        await asyncio.gather(_copy(reader, back), _copy(there, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


if __name__ == "__main__":
    asyncio.run(main())
