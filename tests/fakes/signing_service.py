"""A service that signs, over real HTTP or TLS, or does what it is told to instead."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


class SigningServer:
    """Signs with `key` for who bears `token`; `answer` does otherwise. `asked` is what it was asked to sign."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, *, token: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[bytes] = []
        self.answer: Answer | None = None
        signing = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                signing.asked.append(body)
                if signing.answer is not None:
                    signing.answer(self, body)
                elif token and self.headers["Authorization"] != f"Bearer {token}":
                    reply(self, 401, b"who are you?")
                else:
                    reply(self, 200, key.sign(body, ec.ECDSA(hashes.SHA256())))

            def do_GET(self) -> None:
                signing.asked.append(b"")
                assert signing.answer is not None, "nobody is asked for anything but signatures"
                signing.answer(self, b"")

            def log_message(self, *_: object) -> None:
                """It is silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}/sign?key=mesh"

    def __enter__(self) -> SigningServer:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    """Answer in full."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
