"""OTLP over gRPC: Envoys tell of their spans on the connection by which they are configured (mutual TLS).

Law: who speaks is the certificate's say, and speaks of the services of its own instances only. Tracing never holds up
anything else: beyond a rate spans are refused, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final, Protocol

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from policyd.errors import IdentityError
from policyd.rate import Rate, RateLimit
from policyd.spiffe import SpiffeId
from policyd.telemetry.traces_otlp import read
from policyd.telemetry.traces_window import Fill, Window

SERVICE: Final = trace_service_pb2.DESCRIPTOR.services_by_name["TraceService"].full_name
RATE: Final = Rate(per_second=100, burst=400)  # messages of all proxies together; each has many spans

Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here


class Counted(Protocol):
    """What is counted of it; policyd.telemetry.metrics.Metrics is one."""

    def spans(self, taken: int, refused: int) -> None:
        """So many spans came, and were taken or refused."""

    def window(self, fill: Fill) -> None:
        """So full is the window."""


class TracesService(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans into a window; `services` are those that an identity may tell of, none of a stranger."""

    def __init__(
        self,
        window: Window,
        services: Callable[[SpiffeId], Collection[str]],
        counted: Counted,
        *,
        peer: Callable[[Context], SpiffeId],
        clock: Callable[[], float],
    ) -> None:
        self._window = window
        self._services = services
        self._counted = counted
        self._peer = peer
        self._rate = RateLimit(RATE, clock)

    async def Export(self, request: trace_service_pb2.ExportTraceServiceRequest, context: Context) -> Any:  # noqa: N802
        """Take what is sent."""
        try:
            peer = self._peer(context)
        except IdentityError as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        services = self._services(peer)
        if not services:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"`{peer}` serves nothing here")
        if not self._rate.allow(""):
            self._counted.spans(0, sum(len(one.spans) for each in request.resource_spans for one in each.scope_spans))
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many spans, trace fewer requests")
        told = read(request, str(peer), services)
        self._window.add(told.spans)
        self._counted.spans(len(told.spans), told.refused)
        self._counted.window(self._window.fill())
        return told.reply()
