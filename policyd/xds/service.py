"""The aggregated discovery service: who may have a stream, and which streams there are.

Law: a proxy gets the Snapshot of the instance that it has proved to be, and no other; one stream an Envoy, the newest,
and some for an application that speaks gRPC, which has one for each of its targets; a stream that breaks a bound ends,
and no other stream notices. What is said on a stream is its `conversation`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import grpc

from policyd.envoy_api import EnvoyApi
from policyd.errors import PolicydError, StreamError
from policyd.peer import spiffe_peer
from policyd.spiffe import SpiffeId
from policyd.xds import v2
from policyd.xds.cache import SnapshotCache
from policyd.xds.conversation import Around, Authorize, Context, Conversation, Observer
from policyd.xds.debounce import Debounce
from policyd.xds.due import Due
from policyd.xds.status import ProxyStatus, together, type_statuses
from policyd.xds.stream import Request
from policyd.xds.variants import Differences, StateOfTheWorld, Variant

SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD: Final = "DeltaAggregatedResources"
WHOLE_METHOD: Final = "StreamAggregatedResources"
FIRST_MESSAGE_SECONDS: Final = 10.0
MAX_STREAMS: Final = 5_000
MAX_OF_ONE: Final = 64  # streams of one application


def peer_of(context: Context) -> SpiffeId:
    """Who calls, by the connection; raises IdentityError where that is not clear."""
    return spiffe_peer(context.auth_context())


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
        self._due: Due[Conversation] = Due(Debounce(quiet, longest), clock, Conversation.become_due)
        self._around = Around(cache, authorize, observer, clock, self._due)
        self._open: dict[str, list[Conversation]] = {}  # by node, none of them empty
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
            for node_id, streams in sorted(self._open.items())
        )

    def is_behind(self) -> bool:
        """Whether a connected proxy has not answered all that has changed; to be asked in the service's event loop."""
        return any(one.changed_at is not None for streams in self._open.values() for one in streams)

    def close(self) -> None:
        """End every stream, and refuse new ones; Envoys keep what they have and come back."""
        self._closed = True
        self._due.cancel()
        for streams in self._open.values():
            for conversation in streams:
                conversation.end("policyd is shutting down")

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
        if not variant.alone and len(self._open.get(node.id, ())) >= MAX_OF_ONE:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"`{node.id}` has {MAX_OF_ONE} streams already")
        reading = asyncio.current_task()
        assert reading is not None, "gRPC has a task for each stream"
        await self._run(Conversation(self._around, node, peer, self._clock(), variant, context, reading), request)

    async def _run(self, conversation: Conversation, request: Request | None) -> None:
        node_id = conversation.node.id
        streams = self._open.setdefault(node_id, [])
        for before in streams:
            if conversation.variant.alone or before.variant.alone:
                before.end("the proxy opened another stream")
        streams.append(conversation)
        self._observer.connections(len(self._open))
        unwatch = self._cache.watch(node_id, partial(conversation.changed, asyncio.get_running_loop()))
        try:
            await conversation.run(request)
        except asyncio.CancelledError:
            if conversation.ended is None:
                raise  # it is the proxy that has gone
            conversation.reading.uncancel()
        finally:
            unwatch()
            self._leave(conversation)
            if conversation.writing is not None:
                await asyncio.wait([conversation.writing])  # the end of a stream is the last thing that is written
        if conversation.ended is not None:
            await conversation.context.abort(*conversation.ended)

    def _leave(self, conversation: Conversation) -> None:
        conversation.leave()
        streams = self._open[conversation.node.id]
        streams.remove(conversation)
        if not streams:
            del self._open[conversation.node.id]
        self._observer.connections(len(self._open))
