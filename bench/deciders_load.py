"""A light generator of checks: whole HTTP/2 frames made beforehand, sent over mutual TLS, answers only counted.

What it costs is taken from the processes that are measured, where both share the cores; so it understands of HTTP/2 and
HPACK what one kind of call on one connection needs, and no more. RFC 9113 §4.1 and §6, RFC 7541 §6.2.2.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
ACK, END_STREAM, END_HEADERS = 1, 1, 4
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME: Final = struct.Struct(">BHBBI")  # length in two parts, type, flags, stream
WIDE: Final = 1 << 30  # bytes that we take of a connection before it must ask; no load here sends as many
RECEIVED: Final = 1 << 16


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame, its header included."""
    return FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def _plain(name: bytes, value: bytes) -> bytes:
    """A header field that no table keeps, of lengths below 127."""
    return b"\0%c%b%c%b" % (len(name), name, len(value), value)


def call_headers(method: str) -> bytes:
    """The header block of a gRPC call."""
    fields = ((":path", method), (":authority", "policyd"), ("te", "trailers"), ("content-type", "application/grpc"))
    return b"\x83\x87" + b"".join(_plain(name.encode(), value.encode()) for name, value in fields)  # POST, https


class Connection:
    """One connection that always has `streams` calls under way."""

    def __init__(self, port: int, identity: Path, method: str, body: bytes, streams: int) -> None:
        context = ssl.create_default_context(cafile=str(identity / "roots.pem"))
        context.load_cert_chain(identity / "certificate.pem", identity / "key.pem")
        context.set_alpn_protocols(["h2"])
        self.socket = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="policyd")
        self._headers = call_headers(method)
        self._message = b"\0" + len(body).to_bytes(4, "big") + body
        self._next = 1
        self._rest = b""
        self.answered = 0
        window = WIDE.to_bytes(4, "big")
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(WINDOW, 0, 0, window) + self._calls(streams))
        self.socket.setblocking(False)

    def _calls(self, number: int) -> bytes:
        frames = []
        for _ in range(number):
            frames.append(frame(HEADERS, END_HEADERS, self._next, self._headers))
            frames.append(frame(DATA, END_STREAM, self._next, self._message))
            self._next += 2
        return b"".join(frames)

    def read(self) -> None:
        """Take what has come; for each answer in it, ask again. Raises ConnectionError where a call has failed."""
        try:
            came = self.socket.recv(RECEIVED)
        except ssl.SSLWantReadError:
            return
        if not came:
            raise ConnectionError("the server closed a connection")
        data, position, ended, replies = self._rest + came, 0, 0, []
        while len(data) - position >= FRAME.size:
            high, low, kind, flags, _ = FRAME.unpack_from(data, position)
            behind = position + FRAME.size + (high << 16) + low
            if behind > len(data):
                break
            if kind in (RESET, GOAWAY):
                raise ConnectionError(f"the server ended a call or the connection: {data[position:behind].hex()}")
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                ended += 1
            elif kind in (SETTINGS, PING) and not flags & ACK:
                replies.append(frame(kind, ACK, 0, data[position + FRAME.size : behind] if kind == PING else b""))
            position = behind
        self._rest = data[position:]
        self.answered += ended
        if ended or replies:
            self._send(b"".join(replies) + self._calls(ended))

    def _send(self, data: bytes) -> None:
        self.socket.setblocking(True)  # a few kilobytes: they are taken at once
        self.socket.sendall(data)
        self.socket.setblocking(False)


def checks_per_second(
    ports: Sequence[int], identity: Path, method: str, body: bytes, streams: int, seconds: float
) -> float:
    """How many calls a second are answered on one connection to each port, over `seconds` after a warm-up."""
    connections = [Connection(port, identity, method, body, streams) for port in ports]
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        try:
            _turn(selector, seconds / 4)
            before, start = sum(connection.answered for connection in connections), time.perf_counter()
            _turn(selector, seconds)
            return (sum(connection.answered for connection in connections) - before) / (time.perf_counter() - start)
        finally:
            for connection in connections:
                connection.socket.close()


def _turn(selector: selectors.BaseSelector, seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for key, _ in selector.select(1.0):
            connection: Connection = key.data
            connection.read()
            while connection.socket.pending():
                connection.read()
