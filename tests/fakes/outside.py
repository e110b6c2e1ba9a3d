"""What lies outside a mesh: a DNS server with the names of a test, and an HTTP server that keeps what reached it."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

_ADDRESS = 1  # the record type A
_NO_SUCH_NAME = 0x8183
_ANSWER = 0x8180


class Dns:
    """Answers for `names` (to IPv4 addresses) on a UDP port of the loopback, no other name exists."""

    def __init__(self, names: Mapping[str, list[str]]) -> None:
        self._names = names
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            message, client = self._socket.recvfrom(4096)
            if not message:
                return
            self._socket.sendto(self._answer(message), client)

    def _answer(self, message: bytes) -> bytes:
        labels, at = [], 12
        while length := message[at]:
            labels.append(message[at + 1 : at + 1 + length].decode())
            at += 1 + length
        name, (kind,) = ".".join(labels).lower(), struct.unpack(">H", message[at + 1 : at + 3])
        found = self._names.get(name, []) if kind == _ADDRESS else []
        flags = _ANSWER if name in self._names else _NO_SUCH_NAME
        head = message[:2] + struct.pack(">HHHHH", flags, 1, len(found), 0, 0) + message[12 : at + 5]
        records = (b"\xc0\x0c" + struct.pack(">HHIH", _ADDRESS, 1, 1, 4) + socket.inet_aton(ip) for ip in found)
        return head + b"".join(records)


class ForwardProxy:
    """Answers CONNECT by way of `targets`, 403 for others; `asked` is what it was asked for, with headers."""

    def __init__(self, address: str) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.targets: dict[str, tuple[str, int]] = {}
        self._socket = socket.create_server((address, 0))
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self._socket.accept()[0],), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            first, *lines = head.decode().strip().split("\r\n")
            method, target, _ = first.split(" ")
            parts = (line.lower().partition(":") for line in lines)
            self.asked.append((f"{method} {target}", {name: value.strip() for name, _, value in parts}))
            if target not in self.targets:
                client.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
                return
            with socket.create_connection(self.targets[target], 10) as there:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=_copy, args=(there, client), daemon=True)
                back.start()
                _copy(client, there)
                back.join(10)


def _copy(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            to.sendall(data)
    with suppress(OSError):
        to.shutdown(socket.SHUT_WR)


class Outside:
    """An HTTP server on an address; `seen` are the requests that reached it, as `METHOD Host path`."""

    def __init__(self, address: str, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[str] = []
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(f"{self.command} {self.headers['host']} {self.path}")
                body = f"{self.server.server_address[0]!s}\n".encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815 - the names that http.server looks for

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((address, port), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
