"""`grpc.health.v1` on a port: whether what it serves may be used now, for load balancers and probes.

Law: SERVING is said only while the server is ready at that very moment, and never again once it begins to end. Who
asks proves an identity, as for every other service of the port.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime
from typing import Any, Final

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from policyd.ca.peer import peer_of
from policyd.errors import PolicydError

SERVICE: Final = "grpc.health.v1.Health"
LOOK_SECONDS: Final = 0.5  # how late a watcher may hear of a change
MAX_WATCHES: Final = 256

Context = Any  # of grpc and grpc.aio, whose types lack what is used here
NotReady = Callable[[], str]


class Health:
    """The health of the port that serves `services` (full names); "" asks about the whole port.

    `not_ready` gives the reason why the server is not ready, "" when it is; `clock` the time, to judge who asks.
    """

    def __init__(self, services: Iterable[str], not_ready: NotReady, clock: Callable[[], datetime]) -> None:
        self._services = frozenset({"", SERVICE, *services})
        self._not_ready = not_ready
        self._clock = clock
        self._ending = asyncio.Event()
        self._watches = 0

    def end(self) -> None:
        """Say NOT_SERVING from now on, also to who watches; to be called in the event loop."""
        self._ending.set()

    def handler(self) -> grpc.GenericRpcHandler:
        """Check and Watch, for a server of grpc.aio."""
        return _handler(
            Check=grpc.unary_unary_rpc_method_handler(self._check, *_MESSAGES),
            Watch=grpc.unary_stream_rpc_method_handler(self._watch, *_MESSAGES),
        )

    def blocking_handler(self) -> grpc.GenericRpcHandler:
        """Check alone, for a server of few threads, one of which each watcher would keep for itself."""
        return _handler(Check=grpc.unary_unary_rpc_method_handler(self._check_blocking, *_MESSAGES))

    def _status(self) -> int:
        ready = not (self._ending.is_set() or self._not_ready())
        status: int = HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
        return status

    def _refusal(self, service: str, context: Context) -> tuple[grpc.StatusCode, str] | None:
        try:
            peer_of(context.auth_context(), self._clock())
        except PolicydError as error:
            return grpc.StatusCode.UNAUTHENTICATED, error.message
        if service not in self._services:
            return grpc.StatusCode.NOT_FOUND, "this port has no such service"
        return None

    def _check_blocking(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        if refusal := self._refusal(request.service, context):
            context.abort(*refusal)
        return HealthCheckResponse(status=self._status())

    async def _check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        if refusal := self._refusal(request.service, context):
            await context.abort(*refusal)
        return HealthCheckResponse(status=self._status())

    async def _watch(self, request: HealthCheckRequest, context: Context) -> AsyncIterator[HealthCheckResponse]:
        refusal = self._refusal(request.service, context)
        if refusal and refusal[0] is not grpc.StatusCode.NOT_FOUND:
            await context.abort(*refusal)
        if refusal:  # the protocol's word for it; no service comes later, so that there is nothing to wait for
            yield HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
            return
        if self._watches >= MAX_WATCHES:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watch already")
        self._watches += 1
        try:
            async for status in self._changes():
                yield HealthCheckResponse(status=status)
        finally:
            self._watches -= 1

    async def _changes(self) -> AsyncIterator[int]:
        """The status now and whenever it is another one, until the server ends."""
        told: int | None = None
        while True:
            ending = self._ending.is_set()
            if (status := self._status()) != told:
                told = status
                yield status
            if ending:
                return
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._ending.wait()
            except TimeoutError:
                continue


_MESSAGES: Final = (HealthCheckRequest.FromString, HealthCheckResponse.SerializeToString)


def _handler(**methods: Any) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(SERVICE, methods)
