"""The bundle endpoint: this trust domain's bundle for whoever asks, as SPIFFE's federation has it, and for those who
know OpenID Connect alone the keys of its tokens, as that has it.

Law: nothing here is secret, and nobody has to show who it is. It answers GET with the bundle of now and nothing else,
to a bounded number of connections, each for a bounded time.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from policyd.ca.files import read_secret
from policyd.config.addresses import Address
from policyd.config.authority import BundleEndpointSettings
from policyd.errors import KeyFileError, PolicydError, StateError
from policyd.server.transport import Identity

MAX_CONNECTIONS: Final = 64
MAX_HEAD: Final = 8 << 10  # bytes of a request
SECONDS: Final = 5.0
_ENOUGH: Final = b"\r\n\r\n"


class Pair(Protocol):
    """The certificate and the key to show, in PEM; raises KeyFileError where there are none."""

    def __call__(self) -> tuple[bytes, bytes]:
        """As they are now."""


def endpoint_identity(settings: BundleEndpointSettings, directory: Path, identity: Identity) -> Pair:
    """policyd's own SVID (`https_spiffe`), or what stands in files that somebody else renews (`https_web`)."""
    certificate, key = settings.certificate_file, settings.key_file
    if certificate is None or key is None:

        def own() -> tuple[bytes, bytes]:
            current = identity.current()
            return current.chain, current.key

        return own

    def of_files() -> tuple[bytes, bytes]:
        try:
            return (directory / certificate).read_bytes(), read_secret(directory / key)
        except OSError as error:
            message = f"`{directory / certificate}` cannot be read: {error.strerror}"
            raise KeyFileError(message, remedy="it is a file of certificates in PEM") from None

    return of_files


class BundleEndpoint:
    """Serves what `page` gives of a path at `address`, as the block runs; raises StateError or KeyFileError."""

    def __init__(self, address: Address, page: Callable[[str], bytes], pair: Pair, *, seconds: float = SECONDS) -> None:
        """`seconds` are those in which a request has to come, and its answer to go."""
        self._seconds = seconds
        self._address = address
        self._page = page
        self._pair = pair
        self._shown: tuple[bytes, bytes] | None = None
        self._context = self._renewed()
        self._open = 0

    async def __aenter__(self) -> None:
        first = self._context
        first.sni_callback = self._choose  # which is called for each handshake, whatever was asked for
        try:
            self._server = await asyncio.start_server(
                self._serve,
                self._address.host,
                self._address.port,
                ssl=first,
                limit=MAX_HEAD,
                ssl_handshake_timeout=SECONDS,
                ssl_shutdown_timeout=SECONDS,
            )
        except OSError as error:
            message = f"cannot listen on `{self._address}`: {error.strerror or error}"
            raise StateError(message, remedy="give another port as `ca.bundleEndpoint.listen`") from None

    @property
    def port(self) -> int:
        """Where it is."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._server.wait_closed(), SECONDS)

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str, _first: ssl.SSLContext) -> None:
        with suppress(PolicydError, OSError):  # what was good is shown on
            self._renewed()
        connection.context = self._context

    def _renewed(self) -> ssl.SSLContext:
        """What to show now; made anew only where it is another."""
        pair = self._pair()
        if pair != self._shown:
            self._context, self._shown = _context(*pair), pair
        return self._context

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                async with asyncio.timeout(self._seconds):
                    head = await reader.readuntil(_ENOUGH)
                    writer.write(answer(head, self._page))
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        except (OSError, TimeoutError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._open -= 1
            writer.transport.abort()


def answer(head: bytes, page: Callable[[str], bytes]) -> bytes:
    """What is said to a request that begins with `head`."""
    method, _, rest = head.partition(b" ")
    target, _, version = rest.partition(b"\r\n")[0].rpartition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        return _response("400 Bad Request", b"")
    if method not in (b"GET", b"HEAD"):
        return _response("405 Method Not Allowed", b"", "allow: GET, HEAD\r\n")
    document = page(target.partition(b"?")[0].decode("latin-1"))
    whole = _response("200 OK", document, "content-type: application/json\r\ncache-control: no-cache\r\n")
    return whole if method == b"GET" else whole[: len(whole) - len(document)]


def _response(status: str, body: bytes, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


def _context(chain: bytes, key: bytes) -> ssl.SSLContext:
    """OpenSSL reads keys from files only, so it is given one that lies in memory and has no name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0  # a connection that is resumed would show no certificate
    with _in_memory(chain) as certificates, _in_memory(key) as secret:
        try:
            context.load_cert_chain(certificates, secret)
        except (ssl.SSLError, OSError) as error:
            message = "the certificate and the key of the bundle endpoint do not fit together"
            raise KeyFileError(message, remedy=f"compare the two files: {error}"[:200]) from None
    return context


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """The path of a file without a name, as long as the block runs."""
    descriptor = os.memfd_create("policyd", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
