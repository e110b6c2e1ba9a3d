"""The secret discovery service of one sidecar, on a Unix socket that only its owner can reach.

Law: the protocol is the pure machine of policyd.xds.stream; this shell reads, writes and wakes streams when the
secrets change. Envoy takes a new secret without ending a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from policyd.envoy_api import SECRET, EnvoyApi
from policyd.xds import stream
from policyd.xds.snapshot import Snapshot, make_snapshot
from proxy.outside import Outside

SERVICE: Final = "envoy.service.secret.v3.SecretDiscoveryService"
_DISCOVERY = "envoy.service.discovery.v3"
_OWNER_ONLY = 0o600
_OPTIONS = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 1 << 18))


class SdsServer:
    """Serves the secrets of one sidecar at `socket`: `start` once, `serve` after each change, `stop` at the end.

    `confirmed` is called after Envoy has answered; `holds` tells what it has.
    """

    def __init__(
        self,
        api: EnvoyApi,
        socket: Path,
        instance: str,
        outside: Outside,
        confirmed: Callable[[], object] = lambda: None,
    ) -> None:
        self._socket = socket
        self._instance = instance
        self._say = outside.say
        self._clock = outside.monotonic
        self._request: Any = api.message(f"{_DISCOVERY}.DeltaDiscoveryRequest")
        self._response: Any = api.message(f"{_DISCOVERY}.DeltaDiscoveryResponse")
        self._server: grpc.aio.Server | None = None
        self._snapshot: Snapshot = make_snapshot(())
        self._changes: set[asyncio.Event] = set()
        self._streams: dict[asyncio.Event, stream.StreamState] = {}
        self._confirmed = confirmed

    async def start(self, snapshot: Snapshot) -> None:
        """Listen; the folder of the socket must be its owner's alone."""
        self._snapshot = snapshot
        self._socket.unlink(missing_ok=True)
        handler = grpc.stream_stream_rpc_method_handler(self._stream, self._heard, self._response.SerializeToString)
        server = grpc.aio.server(options=_OPTIONS)
        secrets = grpc.method_handlers_generic_handler(SERVICE, {"DeltaSecrets": handler})
        server.add_generic_rpc_handlers((secrets,))
        server.add_insecure_port(f"unix:{self._socket}")
        self._socket.chmod(_OWNER_ONLY)
        await server.start()
        self._server = server

    def serve(self, snapshot: Snapshot) -> None:
        """Hand the new secrets to every open stream."""
        self._snapshot = snapshot
        for change in self._changes:
            change.set()

    def holds(self, name: str) -> bool:
        """Whether every open stream that asked for the secret has confirmed the newest; true where none is open."""
        secret = self._snapshot.of(SECRET).get(name)
        newest = secret.version if secret is not None else ""
        asked = (state.types[SECRET] for state in self._streams.values() if SECRET in state.types)
        return all(known.has.get(name) == newest and not known.pending for known in asked if known.wants(name))

    async def stop(self) -> None:
        """End every stream and remove the socket."""
        if self._server is not None:
            await self._server.stop(None)
        self._socket.unlink(missing_ok=True)

    async def _stream(self, requests: AsyncIterator[stream.Request], _context: object) -> AsyncIterator[Any]:
        change = asyncio.Event()
        self._changes.add(change)
        state = stream.start()
        reading = asyncio.ensure_future(anext(requests, None))
        changing = asyncio.ensure_future(change.wait())
        try:
            while True:
                await self._something((reading, changing), state)
                if changing.done():
                    change.clear()
                    changing = asyncio.ensure_future(change.wait())
                if reading.done():
                    if (request := reading.result()) is None:
                        return
                    reading = asyncio.ensure_future(anext(requests, None))
                    self._note_rejected(state, request)
                    state, pushes = stream.receive(state, request, self._snapshot, self._clock())
                else:
                    state, pushes = stream.update(state, self._snapshot, self._clock())
                self._streams[change] = state
                self._confirmed()
                for push in pushes:
                    yield self._said(push)
        finally:
            self._changes.discard(change)
            self._streams.pop(change, None)
            self._confirmed()
            reading.cancel()
            changing.cancel()

    async def _something(self, waits: tuple[asyncio.Future[Any], ...], state: stream.StreamState) -> None:
        """Return when one of `waits` is done, or when the machine wants to be asked again."""
        now = self._clock()
        due = stream.due(state, now)
        timeout = None if due is None else due - now
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    def _note_rejected(self, state: stream.StreamState, request: stream.Request) -> None:
        if request.error is not None and (push := stream.answered(state, request)):
            reason = stream.words(push, request.error)[:500]
            self._say("sidecar.secret_rejected", instance=self._instance, reason=reason)

    def _heard(self, body: bytes) -> stream.Request:
        """Read a request and keep of it only what counts; its node, all that Envoy can do, has 61 KB."""
        message = self._request.FromString(body)
        error = message.error_detail.message if message.HasField("error_detail") else None
        return stream.Request(
            type_url=message.type_url,
            subscribe=tuple(message.resource_names_subscribe),
            unsubscribe=tuple(message.resource_names_unsubscribe),
            initial_versions=dict(message.initial_resource_versions),
            nonce=message.response_nonce,
            error=error,
        )

    def _said(self, push: stream.Push) -> Any:
        response = self._response(
            type_url=push.type_url,
            nonce=push.nonce,
            system_version_info=push.version,
            removed_resources=push.removed,
        )
        for each in push.resources:
            carried = response.resources.add(name=each.name, version=each.version)
            carried.resource.type_url = each.type_url
            carried.resource.value = each.body
        return response
