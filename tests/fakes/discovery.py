"""A discovery service over mutual TLS that says what a test tells it to, and notes who said what."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from policyd.spiffe import SpiffeId
from proxy.identity import Bundle, Svid, check_svid, make_key
from proxy.relay import METHOD, SERVICE
from tests.fakes.toy_ca import ToyCa
from tests.ports import free_port


def svid_of(ca: ToyCa, spiffe_id: SpiffeId) -> tuple[Svid, Bundle]:
    """A new one, and what verifies it."""
    key, bundle = make_key(), Bundle(ca.trust_domain, (ca.root.der,), 1)
    return check_svid(key, spiffe_id, ca.sign(key.public_key(), [str(spiffe_id)]), bundle, ca.now), bundle


@dataclass
class Discovery:
    """`start` and `stop` as often as wanted, always on the same port; what comes is in `heard`, with who said it."""

    ca: ToyCa
    port: int = field(default_factory=free_port)
    ended: int = 0  # streams
    heard: asyncio.Queue[tuple[str, bytes]] = field(default_factory=asyncio.Queue)
    streams: list[Any] = field(default_factory=list)

    async def start(self) -> None:
        """Serve."""
        key = make_key()
        chain = self.ca.sign(key.public_key(), [str(SpiffeId.server(self.ca.trust_domain))], dns=["policyd"])
        pem = b"".join(map(_pem, chain))
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        credentials = grpc.ssl_server_credentials([(key_pem, pem)], self.ca.root.pem, require_client_auth=True)
        self._server = grpc.aio.server()
        method: Any = grpc.stream_stream_rpc_method_handler(self._serve)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))
        self._server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        await self._server.start()

    async def stop(self) -> None:
        """End at once."""
        await self._server.stop(None)
        self.streams.clear()

    async def _serve(self, _requests: object, context: Any) -> None:
        self.streams.append(context)
        who = context.auth_context()["peer_spiffe_id"][0].decode()
        try:
            while (data := await context.read()) is not grpc.aio.EOF:
                self.heard.put_nowait((who, data))
                if data.endswith(b"end it"):
                    await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for you")
                await context.write(data + b"!")
        finally:
            self.ended += 1


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
