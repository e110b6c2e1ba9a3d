"""The aggregated discovery service: carries one stream's requests to its state and its pushes to the proxy.

Law: a proxy gets the Snapshot of the instance that it has proved to be, and no other; one stream an Envoy, the newest,
and some for an application that speaks gRPC, which has one for each of its targets; a stream that breaks a bound ends,
and no other stream notices. What to send is decided by `stream`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import grpc

from policyd.envoy_api import EnvoyApi
from policyd.errors import PolicydError, StreamError
from policyd.peer import spiffe_peer
from policyd.spiffe import SpiffeId
from policyd.xds import stream, v2, wire
from policyd.xds.cache import SnapshotCache
from policyd.xds.debounce import Debounce
from policyd.xds.due import Due
from policyd.xds.snapshot import SHORT_NAMES, kind
from policyd.xds.status import ProxyStatus, together, type_statuses
from policyd.xds.stream import Push, Request, StreamState
from policyd.xds.variants import Differences, Said, StateOfTheWorld, Variant

SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD: Final = "DeltaAggregatedResources"
WHOLE_METHOD: Final = "StreamAggregatedResources"
FIRST_MESSAGE_SECONDS: Final = 10.0
MAX_STREAMS: Final = 5_000
MAX_OF_ONE: Final = 64  # streams of one application

Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here
Authorize = Callable[[SpiffeId, str], None]


class Observer(Protocol):
    """Who hears what happens: metrics and logs. `kind` is one of `clusters`, `endpoints` and so on."""

    def pushed(self, node_id: str, kind: str) -> None:
        """A response was sent."""

    def rejected(self, node_id: str, kind: str, text: str) -> None:
        """A proxy rejected one, with this text of its own."""

    def converged(self, seconds: float) -> None:
        """A proxy has confirmed all that a change brought it, so long after the change."""

    def connections(self, count: int) -> None:
        """So many proxies are connected now."""


def peer_of(context: Context) -> SpiffeId:
    """Who calls, by the connection; raises IdentityError where that is not clear."""
    return spiffe_peer(context.auth_context())


@dataclass(eq=False)
class _Connection:
    """One open stream, the task that reads it, and what is to be written to it."""

    node: wire.Node
    peer: SpiffeId
    since: float  # of the service's clock
    state: StreamState
    variant: Variant
    context: Context
    reading: asyncio.Task[Any]
    outbox: deque[Said] = field(default_factory=deque)
    writing: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None  # of what is to be sent later though nothing happens
    is_due: bool = False  # a change is to be sent now
    ended: tuple[grpc.StatusCode, str] | None = None  # by us, and why
    changed_at: float | None = None  # when something changed that it has not answered

    def end(self, why: str, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        """Have the stream ended by its own task."""
        if self.ended is None:
            self.ended = (code, why)
            self.reading.cancel()


class _Methods(grpc.GenericRpcHandler):
    """Methods of several services, by their paths."""

    def __init__(self, methods: Mapping[str, grpc.RpcMethodHandler[bytes, bytes]]) -> None:
        self._methods = methods

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """The method of a path, if it is one of these."""
        return self._methods.get(call.method)


class DiscoveryService:
    """ADS over grpc.aio, in both variants. Add `handler()` to a server; `close` ends the streams.

    `authorize` raises a PolicydError unless the peer may be that node; it is asked again at each change.
    `clock` counts seconds and only goes forward, `wall` gives seconds since the epoch. `quiet` and `longest`
    are Debounce's.
    """

    def __init__(
        self,
        cache: SnapshotCache,
        authorize: Authorize,
        observer: Observer,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        peer: Callable[[Context], SpiffeId] = peer_of,
        api: EnvoyApi | None = None,
        quiet: float = 0.03,
        longest: float = 10.0,
    ) -> None:
        self._cache = cache
        self._authorize = authorize
        self._observer = observer
        self._clock = clock
        self._wall = wall
        self._peer = peer
        self._api = api
        self._due: Due[_Connection] = Due(Debounce(quiet, longest), clock, self._is_due)
        self._connections: dict[str, list[_Connection]] = {}  # by node, none of them empty
        self._streams = 0
        self._closed = False

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler of the service; messages stay bytes, `wire` reads them."""
        return _Methods(
            {
                f"/{SERVICE}/{METHOD}": grpc.stream_stream_rpc_method_handler(self._differences),
                f"/{SERVICE}/{WHOLE_METHOD}": grpc.stream_stream_rpc_method_handler(self._state_of_the_world),
                f"/{v2.SERVICE}/{METHOD}": grpc.stream_stream_rpc_method_handler(v2.refuse),
                f"/{v2.SERVICE}/{WHOLE_METHOD}": grpc.stream_stream_rpc_method_handler(v2.refuse),
            }
        )

    def statuses(self) -> tuple[ProxyStatus, ...]:
        """The connected proxies, by instance; to be called in the service's own event loop."""
        epoch = self._wall() - self._clock()
        return tuple(
            ProxyStatus(
                node_id,
                str(streams[-1].peer),
                True,
                streams[-1].node.version,
                epoch + min(one.since for one in streams),
                together([type_statuses(one.state, self._cache.get(node_id), epoch) for one in streams]),
            )
            for node_id, streams in sorted(self._connections.items())
        )

    def is_behind(self) -> bool:
        """Whether a connected proxy has not answered all that has changed; to be asked in the service's event loop."""
        return any(one.changed_at is not None for streams in self._connections.values() for one in streams)

    def close(self) -> None:
        """End every stream, and refuse new ones; Envoys keep what they have and come back."""
        self._closed = True
        self._due.cancel()
        for streams in self._connections.values():
            for connection in streams:
                connection.end("policyd is shutting down")

    async def _differences(self, _requests: object, context: Context) -> None:
        await self._serve(context, Differences(self._api, f"stream of {self._wall():.6f}"))

    async def _state_of_the_world(self, _requests: object, context: Context) -> None:
        await self._serve(context, StateOfTheWorld(self._api))

    async def _serve(self, context: Context, variant: Variant) -> None:
        if self._streams >= MAX_STREAMS:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no more streams now")
        self._streams += 1
        try:
            await self._admit_and_run(context, variant)
        except StreamError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        finally:
            self._streams -= 1

    async def _admit_and_run(self, context: Context, variant: Variant) -> None:
        try:
            peer = self._peer(context)
        except PolicydError as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, error.message)
        try:
            data = await asyncio.wait_for(context.read(), FIRST_MESSAGE_SECONDS)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no first request came")
        if data is grpc.aio.EOF:
            return
        request, node = variant.read(data)
        if node is None:
            raise StreamError("the first request of a stream names its node")
        try:
            self._authorize(peer, node.id)
        except PolicydError as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.message)
        if self._closed:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "policyd is shutting down")
        if not variant.alone and len(self._connections.get(node.id, ())) >= MAX_OF_ONE:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"`{node.id}` has {MAX_OF_ONE} streams already")
        reading = asyncio.current_task()
        assert reading is not None, "gRPC has a task for each stream"
        await self._run(_Connection(node, peer, self._clock(), stream.start(), variant, context, reading), request)

    async def _run(self, connection: _Connection, request: Request | None) -> None:
        node_id = connection.node.id
        streams = self._connections.setdefault(node_id, [])
        for before in streams:
            if connection.variant.alone or before.variant.alone:
                before.end("the proxy opened another stream")
        streams.append(connection)
        self._observer.connections(len(self._connections))
        loop = asyncio.get_running_loop()

        def wake() -> None:
            if connection.changed_at is None:
                connection.changed_at = self._clock()
            self._due.note(connection, loop)

        unwatch = self._cache.watch(node_id, wake)
        try:
            await self._converse(connection, request)
        except asyncio.CancelledError:
            if connection.ended is None:
                raise  # it is the proxy that has gone
            connection.reading.uncancel()
        finally:
            unwatch()
            self._leave(connection)
            if connection.writing is not None:
                await asyncio.wait([connection.writing])  # the end of a stream is the last thing that is written
        if connection.ended is not None:
            await connection.context.abort(*connection.ended)

    def _leave(self, connection: _Connection) -> None:
        if connection.timer is not None:
            connection.timer.cancel()
        connection.outbox.clear()
        streams = self._connections[connection.node.id]
        streams.remove(connection)
        if not streams:
            del self._connections[connection.node.id]
        self._observer.connections(len(self._connections))

    def _is_due(self, connection: _Connection) -> None:
        connection.is_due = True
        asyncio.get_running_loop().call_soon(self._update, connection)  # each by itself: nobody waits for all

    async def _converse(self, connection: _Connection, request: Request | None) -> None:
        """Take requests as they come, until either side ends the stream; changes come without this task."""
        self._receive(connection, request)
        while (data := await connection.context.read()) is not grpc.aio.EOF:
            self._receive(connection, connection.variant.read(data)[0])

    def _receive(self, connection: _Connection, request: Request | None) -> None:
        if request is None:
            return
        if request.type_url not in SHORT_NAMES:
            raise StreamError(f"`{request.type_url[:200]}` is no type that policyd serves")
        answered = stream.answered(connection.state, request)
        snapshot = self._cache.get(connection.node.id)
        connection.state, pushes = stream.receive(connection.state, request, snapshot, self._clock())
        if answered and request.error is not None:
            text = stream.words(answered, request.error)
            self._observer.rejected(connection.node.id, kind(request.type_url), text)
        self._send(connection, pushes)
        if answered and not pushes:
            self._note_converged(connection, counts=request.error is None)

    def _note_converged(self, connection: _Connection, *, counts: bool) -> None:
        """Where nothing is on its way to a proxy any more, the last change has arrived, or was refused."""
        waits = connection.is_due or self._due.awaits(connection)
        if connection.changed_at is None or waits or any(one.pending for one in connection.state.types.values()):
            return
        if counts:
            self._observer.converged(self._clock() - connection.changed_at)
        connection.changed_at = None

    def _update(self, connection: _Connection) -> None:
        """Send what has become due: after a change, a rejection's wait, or a reconnect's grace."""
        if connection.ended is not None or connection not in self._connections.get(connection.node.id, ()):
            return
        try:
            if connection.is_due:
                connection.is_due = False
                self._authorize(connection.peer, connection.node.id)
        except PolicydError as error:
            connection.end(error.message, grpc.StatusCode.PERMISSION_DENIED)
            return
        snapshot = self._cache.get(connection.node.id)
        if snapshot is not None:
            connection.state, pushes = stream.update(connection.state, snapshot, self._clock())
            self._send(connection, pushes)
            if not pushes:  # the change was of no concern to it
                self._note_converged(connection, counts=False)

    def _send(self, connection: _Connection, pushes: tuple[Push, ...]) -> None:
        """Have it written, and look again when something else is due."""
        loop, now = asyncio.get_running_loop(), self._clock()
        connection.outbox.extend(map(connection.variant.say, pushes))
        if connection.outbox and connection.writing is None:
            connection.writing = loop.create_task(self._write(connection))
        if connection.timer is not None:
            connection.timer.cancel()
        due = stream.due(connection.state, now)
        connection.timer = None if due is None else loop.call_later(max(0.0, due - now), self._update, connection)

    async def _write(self, connection: _Connection) -> None:
        """Pass on what is to be sent, at the proxy's pace."""
        try:
            while connection.outbox:
                said = connection.outbox.popleft()
                self._observer.pushed(connection.node.id, kind(said.type_url))
                await connection.context.write(connection.variant.write(said))
        except grpc.aio.BaseError:  # it has gone, as the task that reads is told too
            connection.outbox.clear()
        finally:
            connection.writing = None
