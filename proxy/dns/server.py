"""The resolver's sockets: on loopback, by UDP and TCP, as long as an instance of this agent is captured.

Law: a question is held no longer than `SECONDS`, and no more than `MAX_ASKED` at a time; who asks more is told that it
failed. What is passed on goes under a number and from a port of our own choice, and only its answer comes back.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from proxy.dns.resolv_conf import text_of
from proxy.dns.resolvers import BEHIND_STUB, RESOLV_CONF, is_local, resolvers
from proxy.dns.zone import Zone

if TYPE_CHECKING:
    import dns.message

PORT: Final = 15053
HOSTS: Final = ("127.0.0.1", "::1")
DNS: Final = 53
SECONDS: Final = 5.0  # for a question that is passed on, all resolvers together
MAX_ASKED: Final = 512  # questions that are passed on at a time
MAX_CONNECTIONS: Final = 64
IDLE: Final = 10.0  # seconds of a TCP connection
Ask = Callable[["dns.message.QueryMessage", bool], Awaitable[bytes]]


class Resolver:
    """Call `serve` with each zone, None: nobody is captured, and `end` once; `say` tells what happens."""

    def __init__(
        self, say: Callable[..., None], resolv_conf: Path = RESOLV_CONF, port: int = PORT, upstream: int = DNS,
        seconds: float = SECONDS,
    ) -> None:  # fmt: skip
        self._say = say
        self._resolv_conf = resolv_conf
        self._port, self._upstream, self._seconds = port, upstream, seconds
        self._zone: Zone | None = None
        self._open: list[asyncio.DatagramTransport | asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0

    async def serve(self, zone: Zone | None) -> None:
        """Answer from this zone from now on."""
        before, self._zone = self._zone, zone
        if zone is None:
            self._close()
        elif not self._open:
            for host in HOSTS:
                await self._listen(host)
        if zone is not None and (before is None or before.names != zone.names):
            self._say("dns.names", instance=zone.instance, names=len(zone.names))

    async def end(self) -> None:
        """Answer nobody any more."""
        self._close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _close(self) -> None:
        for one in self._open:
            one.close()
        self._open = []

    async def _listen(self, host: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_datagram_endpoint(lambda: _Packets(self), local_addr=(host, self._port))
            self._open.append(transport)
            self._open.append(await asyncio.start_server(self._connected, host, self._port, limit=1 << 16))
        except OSError as error:
            self._say("dns.not_listening", host=host, port=self._port, reason=str(error)[:200])

    def asked(self, packet: bytes, reply: Callable[[bytes], None]) -> None:
        """A packet by UDP."""
        from proxy.dns.answer import Forward, Reply, answer, failed

        if self._zone is None:
            return
        match answer(self._zone, packet):
            case Reply(found):
                reply(found)
            case Forward(question) if len(self._tasks) < MAX_ASKED:
                self._spawn(self._passed_on(question, reply))
            case Forward(question):
                reply(failed(question))

    async def _passed_on(self, question: dns.message.QueryMessage, reply: Callable[[bytes], None]) -> None:
        reply(await self._forward(question, tcp=False))

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Questions by TCP, one after the other."""
        if self._connections >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections += 1
        try:
            while True:
                async with asyncio.timeout(IDLE):
                    packet = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                found = await self._answer(packet)
                if found is None:
                    return
                writer.write(len(found).to_bytes(2) + found)
                async with asyncio.timeout(IDLE):
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            return
        finally:
            self._connections -= 1
            writer.close()

    async def _answer(self, packet: bytes) -> bytes | None:
        from proxy.dns.answer import Forward, Reply, answer

        match answer(self._zone, packet, tcp=True) if self._zone is not None else None:
            case Reply(found):
                return found
            case Forward(question):
                return await self._forward(question, tcp=True)
        return None

    async def _forward(self, question: dns.message.QueryMessage, *, tcp: bool) -> bytes:
        """Ask the machine's resolvers one after the other, as long as none has more to say than that it cannot."""
        from proxy.dns.answer import failed, is_answer, is_refusal

        addresses, last = self._resolvers(), b""
        number = secrets.randbelow(1 << 16)
        wire = number.to_bytes(2) + question.to_wire()[2:]
        for address in addresses:
            with suppress(OSError, TimeoutError, EOFError):
                async with asyncio.timeout(self._seconds / len(addresses)):
                    ask = self._by_tcp if tcp else self._by_udp
                    found = await ask(address, wire, lambda packet: is_answer(packet, question, number))
                    last = question.id.to_bytes(2) + found[2:]
                    if not is_refusal(last):
                        return last
        return last or failed(question)

    async def _by_udp(self, address: str, wire: bytes, fits: Callable[[bytes], bool]) -> bytes:
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Answers(fits, answered), remote_addr=(address, self._upstream)
        )
        try:
            transport.sendto(wire)
            return await answered
        finally:
            transport.close()

    async def _by_tcp(self, address: str, wire: bytes, fits: Callable[[bytes], bool]) -> bytes:
        reader, writer = await asyncio.open_connection(address, self._upstream, limit=1 << 17)
        try:
            writer.write(len(wire).to_bytes(2) + wire)
            found = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            if not fits(found):
                raise OSError("an answer to something else")
            return found
        finally:
            writer.close()

    def _resolvers(self) -> tuple[str, ...]:
        found = resolvers(text_of(self._resolv_conf))
        if found and is_local(found):
            return resolvers(text_of(BEHIND_STUB)) or found
        return found


class _Packets(asyncio.DatagramProtocol):
    """Questions by UDP."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._resolver.asked(data, lambda packet: self._transport.sendto(packet, addr))


class _Answers(asyncio.DatagramProtocol):
    """The answer of one resolver to one question; what does not fit it is passed over."""

    def __init__(self, fits: Callable[[bytes], bool], answered: asyncio.Future[bytes]) -> None:
        self._fits, self._answered = fits, answered

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not self._answered.done() and self._fits(data):
            self._answered.set_result(data)

    def error_received(self, error: Exception) -> None:
        if not self._answered.done():
            self._answered.set_exception(error)
