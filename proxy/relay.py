"""The way of aggregated discovery from an application to policyd: a socket of one user here, mutual TLS from here on.

Law: only the agent's own user is let in, and is the instance that the agent says, whatever it says itself. What passes
is not read, but for the first message. This relay keeps and decides nothing: where one side ends a stream, so does the
other.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from policyd.envoy_api import EnvoyApi
from policyd.errors import StateError, StreamError
from policyd.xds import v2
from proxy.assignment import Spec
from proxy.bootstrap import Endpoint
from proxy.caller import user_of
from proxy.control import CHANNEL_OPTIONS
from proxy.front import Front, Look
from proxy.identity import Bundle, Svid
from proxy.runtime import afresh

SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD: Final = "StreamAggregatedResources"
WISH: Final = "envoy.service.discovery.v3.DiscoveryRequest"
SOCKET: Final = "xds.sock"
MAX_STREAMS: Final = 64  # gRPC has one for each target, and one for its server
MAX_REQUEST: Final = 1 << 20  # bytes, as policyd bounds them
MAX_RESPONSE: Final = 64 << 20
FIRST_MESSAGE_SECONDS: Final = 10.0
_INNER: Final = "r"
_SERVER_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_REQUEST),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.max_metadata_size", 16 << 10),
)
_CHANNEL_OPTIONS: Final = (
    *((name, value) for name, value in CHANNEL_OPTIONS if name != "grpc.max_receive_message_length"),
    ("grpc.max_receive_message_length", MAX_RESPONSE),
)

Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here


@dataclass(eq=False)
class _Way:
    """A connection to policyd as somebody, and how many streams use it."""

    channel: grpc.aio.Channel
    streams: int = 0


class Relay:
    """`use` before `start`, and whenever the identity is another; `stop` at the end."""

    def __init__(self, folder: Path, spec: Spec, xds: Endpoint, api: EnvoyApi, look: Look = user_of) -> None:
        self.socket = folder / SOCKET
        self._inner = folder / _INNER
        self._spec = spec
        self._xds = xds
        self._api = api
        self._front = Front(self.socket, self._inner / "s", look)
        self._server: grpc.aio.Server | None = None
        self._way: _Way | None = None
        self._streams = 0
        self._closing: set[asyncio.Future[None]] = set()

    def use(self, svid: Svid, bundle: Bundle) -> None:
        """Go on as `svid`; streams that are open stay on their connection until they end."""
        credentials = grpc.ssl_channel_credentials(bundle.pem(), svid.key_pem, svid.chain_pem())
        before = self._way
        self._way = _Way(grpc.aio.secure_channel(str(self._xds), credentials, options=_CHANNEL_OPTIONS))
        if before is not None:
            self._close_unused(before)

    async def start(self) -> None:
        """Listen; raises StateError where somebody else does, or nobody can."""
        afresh(self._inner)
        server = grpc.aio.server(options=_SERVER_OPTIONS)
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._serve)
        older: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(v2.refuse)
        served = {SERVICE: {METHOD: method}, v2.SERVICE: {METHOD: older}}
        server.add_generic_rpc_handlers(tuple(grpc.method_handlers_generic_handler(*one) for one in served.items()))
        try:
            server.add_insecure_port(f"unix:{self._inner / 's'}")
            await server.start()
        except RuntimeError as error:  # gRPC reports a socket that it cannot bind so
            raise StateError(f"discovery cannot be served in `{self._inner}`: {error}") from None
        self._server = server
        await self._front.start()

    async def stop(self) -> None:
        """End every stream, and leave nothing."""
        await self._front.stop()
        if self._server is not None:
            await self._server.stop(None)
        await asyncio.gather(*self._closing, return_exceptions=True)
        if self._way is not None:
            await self._way.channel.close()
            self._way = None
        shutil.rmtree(self._inner, ignore_errors=True)

    async def _serve(self, _requests: object, context: Context) -> None:
        caller, way = self._front.caller(context.peer()), self._way
        if caller is None or caller.uid != os.geteuid():
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "only the agent's own user is served here")
        if way is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the agent has no identity yet")
            return
        if self._streams >= MAX_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"an agent relays at most {MAX_STREAMS} streams")
        self._streams += 1
        way.streams += 1
        try:
            await self._relay(way, context)
        finally:
            self._streams -= 1
            way.streams -= 1
            self._close_unused(way)

    def _close_unused(self, way: _Way) -> None:
        if way is not self._way and not way.streams:
            closing = asyncio.ensure_future(way.channel.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _relay(self, way: _Way, context: Context) -> None:
        try:
            first = await asyncio.wait_for(context.read(), FIRST_MESSAGE_SECONDS)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no first request came")
            return
        if first is grpc.aio.EOF:
            return
        try:
            named = named_as(self._spec, first, self._api)
        except StreamError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
            return
        call: grpc.aio.StreamStreamCall[bytes, bytes] = way.channel.stream_stream(f"/{SERVICE}/{METHOD}")()
        both = [asyncio.ensure_future(_up(named, context, call)), asyncio.ensure_future(_down(call, context))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if both[1].done() and (code := await call.code()) is not grpc.StatusCode.OK:
                await context.abort(code, await call.details())
        finally:
            call.cancel()
            for each in both:
                each.cancel()
            await asyncio.gather(*both, return_exceptions=True)


def named_as(spec: Spec, data: bytes, api: EnvoyApi) -> bytes:
    """The first message of a stream, as that of the instance of `spec`; raises StreamError for what is none."""
    try:
        message: Any = api.message(WISH).FromString(data)
    except DecodeError:
        raise StreamError("what was sent is no DiscoveryRequest") from None
    message.node.id, message.node.cluster = spec.instance, spec.cluster
    packed: bytes = message.SerializeToString()
    return packed


async def _up(first: bytes, context: Context, call: Any) -> None:
    """What the application says, to policyd, at policyd's pace; returns when the application has ended."""
    try:
        await call.write(first)
        while (data := await context.read()) is not grpc.aio.EOF:
            await call.write(data)
    except (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError):  # policyd has ended it, and `_down` says how
        await asyncio.Event().wait()


async def _down(call: Any, context: Context) -> None:
    """What policyd says, to the application, at its pace; returns when policyd has ended."""
    while True:
        try:
            data = await call.read()
        except grpc.aio.AioRpcError:
            return
        if data is grpc.aio.EOF:
            return
        await context.write(data)
