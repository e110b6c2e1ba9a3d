"""Spans over the wire: taken from who serves what they tell of, refused from anybody else, and beyond a rate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent

from policyd.errors import IdentityError
from policyd.spiffe import SpiffeId
from policyd.telemetry.service import RATE, TracesService
from policyd.telemetry.traces_window import Fill, Window
from tests.telemetry.spans import TRACE
from tests.telemetry.test_traces_otlp import SPAN, message

WEB = SpiffeId.workload("cluster.local", "default", "web")
STRANGER = SpiffeId.workload("cluster.local", "default", "stranger")


@dataclass
class Counted:
    """What was counted."""

    told: list[tuple[int, int]] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)

    def spans(self, taken: int, refused: int) -> None:
        self.told.append((taken, refused))

    def window(self, fill: Fill) -> None:
        self.fills.append(fill)


@dataclass
class Wire:
    """The service behind a socket; who calls is `peer`, or nobody."""

    window: Window = field(default_factory=lambda: Window(1 << 20))
    counted: Counted = field(default_factory=Counted)
    peer: SpiffeId | None = WEB
    now: float = 0.0
    stub: Any = None

    def who(self, _context: Any) -> SpiffeId:
        if self.peer is None:
            raise IdentityError("the client's certificate has no valid SPIFFE ID")
        return self.peer

    async def refused(self, sent: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.stub.Export(sent)
        return error.value.code(), error.value.details() or ""


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    made = Wire()
    served = {WEB: {"web.default"}}
    service = TracesService(
        made.window, lambda peer: served.get(peer, ()), made.counted, peer=made.who, clock=lambda: made.now
    )
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(service, server)
    server.add_insecure_port(f"unix:{tmp_path}/s")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
        made.stub = trace_service_pb2_grpc.TraceServiceStub(channel)
        yield made
    await server.stop(None)


async def test_spans_are_taken_and_counted(wire: Wire) -> None:
    reply = await wire.stub.Export(message(Sent(**SPAN), Sent(**{**SPAN, "span_id": b"short"})))

    trace = wire.window.trace(TRACE)
    assert trace is not None
    assert [one.peer for one in trace.spans] == [str(WEB)]
    assert (reply.partial_success.rejected_spans, wire.counted.told) == (1, [(1, 1)])
    assert wire.counted.fills == [wire.window.fill()]


@pytest.mark.parametrize(
    ("peer", "code", "detail"),
    [
        (None, grpc.StatusCode.UNAUTHENTICATED, "the client's certificate has no valid SPIFFE ID"),
        (STRANGER, grpc.StatusCode.PERMISSION_DENIED, f"`{STRANGER}` serves nothing here"),
    ],
)
async def test_who_serves_nothing_tells_nothing(
    wire: Wire, peer: SpiffeId | None, code: grpc.StatusCode, detail: str
) -> None:
    wire.peer = peer

    assert await wire.refused(message(Sent(**SPAN))) == (code, detail)
    assert wire.window.fill().taken == 0


async def test_beyond_a_rate_spans_are_refused_and_counted(wire: Wire) -> None:
    for _ in range(RATE.burst):
        await wire.stub.Export(message())

    code, detail = await wire.refused(message(Sent(**SPAN), Sent(**SPAN)))
    assert (code, detail) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many spans, trace fewer requests")
    assert wire.counted.told[-1] == (0, 2)
    wire.now = 1.0
    await wire.stub.Export(message(Sent(**SPAN)))
    assert wire.counted.told[-1] == (1, 0)
