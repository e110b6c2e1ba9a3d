"""Hears of proxies which tokens they refused (Envoy's access log service), and puts them on record.

Law: a stream is of a proxy that has proved who it is, and about its own listeners. Who tells more than can be kept is
read more slowly, until Envoy drops what it cannot send and counts that; memory here is bounded.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import grpc
import structlog
from google.protobuf.message import DecodeError

from policyd import envoy_api
from policyd.audit.record import Entry
from policyd.authz.refused_tokens import entries, listener_of
from policyd.errors import IdentityError, IncompleteRequest, JournalError
from policyd.mesh.model import Mesh
from policyd.rate import Rate, RateLimit
from policyd.spiffe import SpiffeId
from policyd.xds.service import peer_of

SERVICE: Final = "envoy.service.accesslog.v3.AccessLogService"
METHOD: Final = "StreamAccessLogs"
MAX_STREAMS_OF_PEER: Final = 256  # one for each of its Envoys' threads and listeners
MAX_RATE: Final = Rate(per_second=200, burst=1000)  # of records, for each peer
WAIT_SECONDS: Final = 0.1

Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here
Keep = Callable[[Entry], Awaitable[object]]  # raises JournalError

_log = structlog.get_logger("policyd.server")


class RefusedTokens:
    """The service; `in_force` are the Mesh and the revision, `keep` puts an entry into the journal.

    `clock` counts seconds, `wall` tells the time.
    """

    def __init__(
        self,
        in_force: Callable[[], tuple[Mesh, str]],
        keep: Keep,
        *,
        clock: Callable[[], float],
        wall: Callable[[], datetime],
        peer: Callable[[Context], SpiffeId] = peer_of,
    ) -> None:
        self._in_force = in_force
        self._keep = keep
        self._peer = peer
        self._wall = wall
        self._limit = RateLimit(MAX_RATE, clock)
        self._streams: Counter[SpiffeId] = Counter()
        self._closed = asyncio.Event()
        self._message = envoy_api.message("envoy.service.accesslog.v3.StreamAccessLogsMessage")

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler of the service; messages stay bytes until their stream's peer is known."""
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_unary_rpc_method_handler(self._serve)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})

    def close(self) -> None:
        """End every stream."""
        self._closed.set()

    async def _serve(self, _: Any, context: Context) -> bytes:
        try:
            peer = self._peer(context)
        except IdentityError as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, error.message)
        if self._streams[peer] >= MAX_STREAMS_OF_PEER:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"a proxy has {MAX_STREAMS_OF_PEER} streams at most"
            )
        self._streams[peer] += 1
        try:
            await self._read(peer, context)
        except IncompleteRequest as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.message)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this is no message of an access log")
        finally:
            self._streams[peer] -= 1
            if not self._streams[peer]:
                del self._streams[peer]
        return b""

    async def _read(self, peer: SpiffeId, context: Context) -> None:
        name = ""
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            while True:
                reading = asyncio.ensure_future(context.read())
                await asyncio.wait({reading, closed}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.cancel()
                    return
                if (body := reading.result()) is grpc.aio.EOF:
                    return
                logged = self._message.FromString(body)
                name = logged.identifier.log_name or name
                await self._take(logged, name, peer)
        finally:
            closed.cancel()

    async def _take(self, logged: Any, name: str, peer: SpiffeId) -> None:
        """Keep what a message tells. A listener may have gone meanwhile, and then nobody knows what it was for."""
        mesh, revision = self._in_force()
        listener = listener_of(name, peer, mesh)
        for one in entries(logged, listener, mesh, revision, self._wall()):
            await self._pace(peer)
            try:
                await self._keep(one)
            except JournalError as error:  # the caller was refused all the same; the journal says that it misses one
                _log.error("journal.refused_token_not_kept", error=error.message)

    async def _pace(self, peer: SpiffeId) -> None:
        while not self._limit.allow(str(peer)) and not self._closed.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), WAIT_SECONDS)
