"""The aggregated discovery service: carries one stream's requests to its state and its pushes to the proxy.

Law: a proxy gets the Snapshot of the instance that it has proved to be, and no other; one stream a proxy, the
newest; a stream that breaks a bound ends, and no other stream notices. What to send is decided by `stream`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc

from policyd.envoy_api import EnvoyApi
from policyd.errors import PolicydError, StreamError
from policyd.peer import spiffe_peer
from policyd.spiffe import SpiffeId
from policyd.xds import stream, wire
from policyd.xds.cache import SnapshotCache
from policyd.xds.debounce import Debounce
from policyd.xds.snapshot import SHORT_NAMES, kind
from policyd.xds.status import ProxyStatus, type_statuses
from policyd.xds.stream import Push, Request, StreamState

SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD: Final = "DeltaAggregatedResources"
FIRST_MESSAGE_SECONDS: Final = 10.0
MAX_STREAMS: Final = 5_000

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
    """One open stream."""

    node: wire.Node
    peer: SpiffeId
    since: float  # of the service's clock
    state: StreamState
    woken: asyncio.Future[None]
    is_due: bool = False  # a change is to be sent now
    ended_because: str = ""
    changed_at: float | None = None  # when something changed that it has not confirmed

    def wake(self, _: object = None) -> None:
        """Have its own task look what is to be done."""
        if not self.woken.done():
            self.woken.set_result(None)

    def end(self, why: str) -> None:
        """Have the stream ended by its own task."""
        self.ended_because = self.ended_because or why
        self.wake()


class DiscoveryService:
    """Delta ADS over grpc.aio. Add `handler()` to a server; `close` ends the streams.

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
        self._debounce = Debounce(quiet, longest)
        self._changed: deque[_Connection] = deque()  # filled by whatever thread changes the cache
        self._told = False  # the event loop knows that something changed
        self._waiting: set[_Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._connections: dict[str, _Connection] = {}
        self._streams = 0
        self._closed = False

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler of the service; messages stay bytes, `wire` reads them."""
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._serve)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})

    def statuses(self) -> tuple[ProxyStatus, ...]:
        """The connected proxies, by instance; to be called in the service's own event loop."""
        epoch = self._wall() - self._clock()
        return tuple(
            ProxyStatus(
                node_id,
                str(one.peer),
                True,
                one.node.version,
                epoch + one.since,
                type_statuses(one.state, self._cache.get(node_id), epoch),
            )
            for node_id, one in sorted(self._connections.items())
        )

    def close(self) -> None:
        """End every stream, and refuse new ones; Envoys keep what they have and come back."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in self._connections.values():
            connection.end("policyd is shutting down")

    async def _serve(self, _requests: object, context: Context) -> None:
        if self._streams >= MAX_STREAMS:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no more streams now")
        self._streams += 1
        try:
            await self._admit_and_run(context)
        except StreamError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        finally:
            self._streams -= 1

    async def _admit_and_run(self, context: Context) -> None:
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
        request, node = wire.decode(data, self._api)
        if node is None:
            raise StreamError("the first request of a stream names its node")
        await self._admit(peer, node, context)
        if self._closed:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "policyd is shutting down")
        woken = asyncio.get_running_loop().create_future()
        await self._run(_Connection(node, peer, self._clock(), stream.start(), woken), request, context)

    async def _admit(self, peer: SpiffeId, node: wire.Node, context: Context) -> None:
        try:
            self._authorize(peer, node.id)
        except PolicydError as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.message)

    async def _run(self, connection: _Connection, request: Request, context: Context) -> None:
        node_id = connection.node.id
        if before := self._connections.get(node_id):
            before.end("the proxy opened another stream")
        self._connections[node_id] = connection
        self._observer.connections(len(self._connections))
        loop = asyncio.get_running_loop()

        def wake() -> None:
            if connection.changed_at is None:
                connection.changed_at = self._clock()
            self._changed.append(connection)
            if not self._told:  # one call for all that a change concerns
                self._told = True
                loop.call_soon_threadsafe(self._note)

        unwatch = self._cache.watch(node_id, wake)
        try:
            await self._receive(connection, request, context)
            await self._converse(connection, context)
        finally:
            unwatch()
            if self._connections.get(node_id) is connection:
                del self._connections[node_id]
            self._observer.connections(len(self._connections))

    def _note(self) -> None:
        """A change came for some: they are due after a quiet moment."""
        self._told = False
        while self._changed:
            self._waiting.add(self._changed.popleft())
        now = self._clock()
        self._debounce = self._debounce.note(now)
        due = self._debounce.due()
        assert due is not None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due - now), self._release)

    def _release(self) -> None:
        """The moment has come for all that wait."""
        self._timer, self._debounce = None, self._debounce.done()
        waiting, self._waiting = self._waiting, set()
        for connection in waiting:
            connection.is_due = True
            connection.wake()

    async def _converse(self, connection: _Connection, context: Context) -> None:
        """Take requests and changes as they come, until either side ends the stream."""
        reading = self._read(connection, context)
        try:
            while True:
                await self._woken(connection)
                if connection.ended_because:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, connection.ended_because)
                has_come = reading.done()
                if has_come:
                    data = reading.result()
                    if data is grpc.aio.EOF:
                        return
                    await self._receive(connection, wire.decode(data, self._api)[0], context)
                    reading = self._read(connection, context)
                if connection.is_due or not has_come:  # a request is answered with all that is to be sent
                    await self._update(connection, context)
        finally:
            reading.cancel()

    def _read(self, connection: _Connection, context: Context) -> asyncio.Task[Any]:
        reading: asyncio.Task[Any] = asyncio.ensure_future(context.read())
        reading.add_done_callback(connection.wake)
        return reading

    async def _woken(self, connection: _Connection) -> None:
        """Wait until there is something to be done; one future and no task, since all streams wait most of the time."""
        loop, timeout = asyncio.get_running_loop(), self._timeout(connection)
        timer = None if timeout is None else loop.call_later(timeout, connection.wake)
        try:
            await connection.woken
        finally:
            if timer is not None:
                timer.cancel()
        connection.woken = loop.create_future()  # before anything else may wake it again

    def _timeout(self, connection: _Connection) -> float | None:
        """Seconds until something is due, None if nothing will be."""
        now = self._clock()
        due = stream.due(connection.state, now)
        return None if due is None else max(0.0, due - now)

    async def _receive(self, connection: _Connection, request: Request, context: Context) -> None:
        if request.type_url not in SHORT_NAMES:
            raise StreamError(f"`{request.type_url[:200]}` is no type that policyd serves")
        known = connection.state.types.get(request.type_url)
        answers = known is not None and known.pending is not None and known.pending.nonce == request.nonce
        snapshot = self._cache.get(connection.node.id)
        connection.state, pushes = stream.receive(connection.state, request, snapshot, self._clock())
        if answers and request.error is not None:
            self._observer.rejected(
                connection.node.id, kind(request.type_url), request.error[: stream.MAX_ERROR_LENGTH]
            )
        await self._send(connection, pushes, context)
        if answers and request.error is None and not pushes:
            self._note_converged(connection, counts=True)

    def _note_converged(self, connection: _Connection, *, counts: bool) -> None:
        """Where nothing is on its way to a proxy any more, the last change has arrived."""
        waits = connection.is_due or connection in self._waiting or connection in self._changed
        if connection.changed_at is None or waits or any(one.pending for one in connection.state.types.values()):
            return
        if counts:
            self._observer.converged(self._clock() - connection.changed_at)
        connection.changed_at = None

    async def _update(self, connection: _Connection, context: Context) -> None:
        """Send what has become due: after a change, a rejection's wait, or a reconnect's grace."""
        if connection.is_due:
            connection.is_due = False
            await self._admit(connection.peer, connection.node, context)
        snapshot = self._cache.get(connection.node.id)
        if snapshot is not None:
            connection.state, pushes = stream.update(connection.state, snapshot, self._clock())
            await self._send(connection, pushes, context)
            if not pushes:  # the change was of no concern to it
                self._note_converged(connection, counts=False)

    async def _send(self, connection: _Connection, pushes: tuple[Push, ...], context: Context) -> None:
        for push in pushes:
            await context.write(wire.encode(push, self._api))
            self._observer.pushed(connection.node.id, kind(push.type_url))
