"""Spans from the wire: bounded, and only of services that who sends them serves."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent

from policyd.telemetry.traces import Span
from policyd.telemetry.traces_otlp import MAX_NAME, MAX_SPANS, MAX_TAGS, MAX_TEXT, MAX_TIME, Told, read
from tests.telemetry.spans import AT, MS, TRACE

WEB = "spiffe://cluster.local/ns/default/sa/web"
SPAN: dict[str, Any] = {
    "trace_id": bytes.fromhex(TRACE),
    "span_id": b"\x0a" * 8,
    "name": "ingress",
    "kind": Sent.SPAN_KIND_SERVER,
    "start_time_unix_nano": AT,
    "end_time_unix_nano": AT + MS,
}
READ = Span(TRACE, "0a" * 8, "", "ingress", "web.default", "server", AT, AT + MS, peer=WEB)


def message(*spans: Sent, service: str = "web.default") -> ExportTraceServiceRequest:
    named = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value=service))])
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=named, scope_spans=[ScopeSpans(spans=spans)])]
    )


def test_a_span_is_read_with_its_parent_its_tags_and_how_it_ended() -> None:
    tags = [
        KeyValue(key="http.status_code", value=AnyValue(string_value="503")),
        KeyValue(key="error", value=AnyValue(bool_value=True)),
        KeyValue(key="size", value=AnyValue(int_value=3)),
        KeyValue(key="list", value=AnyValue(array_value=ArrayValue())),
    ]
    status = Status(code=Status.STATUS_CODE_ERROR)
    sent = Sent(**{**SPAN, "parent_span_id": b"\x0b" * 8, "attributes": tags, "status": status})

    assert read(message(sent), WEB, {"web.default"}) == Told((
        Span(
            TRACE, "0a" * 8, "0b" * 8, "ingress", "web.default", "server", AT, AT + MS, failed=True,
            tags=(("http.status_code", "503"), ("error", "true"), ("size", "3")), peer=WEB,
        ),
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"trace_id": b"\x01" * 15}, Told((), 1, "the ids of a span are 16 and 8 bytes")),
        ({"trace_id": b"\x00" * 16}, Told((), 1, "the ids of a span are 16 and 8 bytes")),
        ({"span_id": b""}, Told((), 1, "the ids of a span are 16 and 8 bytes")),
        ({"parent_span_id": b"\x00" * 8}, Told((READ,))),
        ({"parent_span_id": b"odd"}, Told((READ,))),
    ],
)
def test_what_is_no_span_is_left_out_and_told(change: dict[str, Any], told: Told) -> None:
    assert read(message(Sent(**{**SPAN, **change})), WEB, {"web.default"}) == told


@pytest.mark.parametrize(
    ("start", "end", "read_as"),
    [(AT, 1, (AT, AT)), (1 << 63, (1 << 64) - 1, (MAX_TIME, MAX_TIME)), (0, 0, (0, 0))],
)
def test_a_span_never_ends_before_it_begins_nor_at_a_time_that_no_clock_shows(
    start: int, end: int, read_as: tuple[int, int]
) -> None:
    sent = Sent(**{**SPAN, "start_time_unix_nano": start, "end_time_unix_nano": end})

    assert [(one.start, one.end) for one in read(message(sent), WEB, {"web.default"}).spans] == [read_as]


def test_nobody_tells_of_a_service_that_somebody_else_serves() -> None:
    told = read(message(Sent(**SPAN), service="bank.default"), WEB, {"web.default"})

    assert told == Told((), 1, "`bank.default` is served by somebody else")
    assert told.reply().partial_success.rejected_spans == 1
    assert not Told((READ,)).reply().HasField("partial_success")


def test_texts_tags_and_spans_are_bounded() -> None:
    tags = [KeyValue(key=f"{at:0200}", value=AnyValue(string_value="x" * 9_999)) for at in range(99)]
    [one] = read(message(Sent(**{**SPAN, "name": "n" * 9_999, "attributes": tags})), WEB, {"web.default"}).spans

    assert (len(one.name), len(one.tags)) == (MAX_TEXT, MAX_TAGS)
    assert {(len(name), len(value)) for name, value in one.tags} == {(MAX_NAME, MAX_TEXT)}
    told = read(message(*[Sent(**SPAN)] * (MAX_SPANS + 2)), WEB, {"web.default"})
    assert (len(told.spans), told.refused, told.why) == (MAX_SPANS, 2, f"more than {MAX_SPANS} spans at once")
