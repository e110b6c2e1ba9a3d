"""A client of HTTP/3, and of the PROXY protocol."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent
from cryptography import x509
from cryptography.hazmat.primitives import serialization

PATIENCE = 20.0


@dataclass
class Answer:
    """What came back by HTTP/3."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def status(self) -> int:
        return int(self.headers[":status"])


class _Client(QuicConnectionProtocol):
    async def ask(self, headers: Mapping[str, str]) -> Answer:
        if self._quic._close_event is not None:  # it was told before anybody asked
            raise ConnectionError(self._quic._close_event.reason_phrase)
        self.http, self.answer = H3Connection(self._quic), Answer()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stream = self._quic.get_next_available_stream_id()
        self.http.send_headers(stream, [(name.encode(), text.encode()) for name, text in headers.items()], True)
        self.transmit()
        async with asyncio.timeout(PATIENCE):
            await self.done
        return self.answer

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated) and hasattr(self, "http") and not self.done.done():
            self.done.set_exception(ConnectionError(event.reason_phrase))
        for found in self.http.handle_event(event) if hasattr(self, "http") else ():
            self._hear(found)

    def _hear(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            self.answer.headers |= {name.decode(): text.decode() for name, text in event.headers}
        if isinstance(event, DataReceived):
            self.answer.body += event.data
        if isinstance(event, HeadersReceived | DataReceived) and event.stream_ended:
            self.done.set_result(None)


def get(port: int, name: str, path: str, roots: str, host: str = "", client: tuple[str, str] | None = None) -> Answer:
    """Ask a port of this machine for `host` at the server of that name (SNI), showing a certificate with its key.

    ConnectionError where there is none, or it ends the connection.
    """
    settings = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=name)
    settings.load_verify_locations(cadata=roots.encode())
    if client is not None:
        certificate, key = (text.encode() for text in client)
        settings.certificate = x509.load_pem_x509_certificate(certificate)
        settings.private_key = serialization.load_pem_private_key(key, None)

    async def ask() -> Answer:
        async with (
            asyncio.timeout(PATIENCE),
            connect("127.0.0.1", port, configuration=settings, create_protocol=_Client) as client,
        ):
            assert isinstance(client, _Client)
            asked = {":method": "GET", ":scheme": "https", ":authority": host or name, ":path": path}
            return await client.ask(asked)

    return asyncio.run(ask())


def header(version: int, client: str) -> bytes:
    """A PROXY header for a client of port 1234."""
    if version == 1:
        return f"PROXY TCP4 {client} 192.0.2.80 1234 80\r\n".encode()
    addresses = ipaddress.ip_address(client).packed + ipaddress.ip_address("192.0.2.80").packed
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, 0x11, 12) + addresses + struct.pack("!HH", 1234, 80)


def behind(port: int, first: bytes, path: str, source: str = "127.0.0.1") -> bytes:
    """What a gateway answers a plain request that comes with these first bytes; nothing where it closes."""
    request = f"GET {path} HTTP/1.1\r\nHost: behind.example\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE, source_address=(source, 0)) as connection:
        try:
            connection.sendall(first + request.encode())
            return b"".join(iter(lambda: connection.recv(4096), b""))
        except ConnectionError:
            return b""
