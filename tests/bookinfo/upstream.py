"""A fake of whatever answers HTTP: a service, or a proxy. It keeps what it was asked and replies as told."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer: `delay` seconds later, and `missing` bytes of the announced body never come."""

    status: int = 200
    body: bytes = b""
    delay: float = 0.0
    missing: int = 0

    @classmethod
    def of(cls, value: object, *, status: int = 200, delay: float = 0.0) -> Reply:
        """Answer with a value as JSON."""
        return cls(status, json.dumps(value).encode(), delay)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came in; names of headers in lower case."""

    method: str
    target: str
    headers: dict[str, str]


class FakeUpstream:
    """Gives its replies in order, the last one for ever."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies)
        self._ended = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self.asked: list[Asked] = []
        self.address = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._server.close()
        for writer in tuple(self._writers):
            writer.close()
        async with asyncio.timeout(5):
            while self._writers:
                await asyncio.sleep(0.005)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while not self._ended.is_set():
                await self._answer(await reader.readuntil(b"\r\n\r\n"), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        line, *fields = head.decode("latin-1").strip().split("\r\n")
        method, target, _ = line.split(" ")
        pairs = (field.split(": ", 1) for field in fields)
        self.asked.append(Asked(method, target, {name.lower(): value for name, value in pairs}))
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        try:
            await asyncio.wait_for(self._ended.wait(), reply.delay or 0.001)
        except TimeoutError:
            length = len(reply.body) + reply.missing
            writer.write(f"HTTP/1.1 {reply.status} Said So\r\ncontent-length: {length}\r\n\r\n".encode() + reply.body)
            await writer.drain()
