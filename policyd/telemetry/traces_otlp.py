"""What proxies and applications tell of spans (OTLP), read into our own words.

Law: pure. Everything comes from others: lengths and counts are bounded here, what is no span is left out and counted,
and who tells of a service must be one of those that serve it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from policyd.telemetry.traces import Kind, Span

MAX_SPANS: Final = 4_000  # of one message
MAX_TAGS: Final = 48  # of one span
MAX_NAME: Final = 128  # characters of the name of a tag
MAX_TEXT: Final = 512  # of any other text
MAX_TIME: Final = (1 << 63) - 1  # nanoseconds since the epoch, in the year 2262
SERVICE: Final = "service.name"
_KINDS: Final[dict[int, Kind]] = {2: "server", 3: "client", 4: "producer", 5: "consumer"}
_TRACE_BYTES, _SPAN_BYTES = 16, 8
_FAILED: Final = trace_pb2.Status.STATUS_CODE_ERROR


@dataclass(frozen=True, slots=True)
class Told:
    """The spans of one message that are taken, and how many were not, with a reason."""

    spans: tuple[Span, ...]
    refused: int = 0
    why: str = ""

    def reply(self) -> ExportTraceServiceResponse:
        """What who sent them is told."""
        if not self.refused:
            return ExportTraceServiceResponse()
        partial = ExportTracePartialSuccess(rejected_spans=self.refused, error_message=self.why)
        return ExportTraceServiceResponse(partial_success=partial)


def read(message: ExportTraceServiceRequest, peer: str, services: Collection[str]) -> Told:
    """The spans of a message from `peer`, who may tell of these `services`."""
    spans: list[Span] = []
    refused, why = 0, ""
    for service, span in _spans(message):
        made = _span(span, service, peer) if service in services else None
        if made is not None and len(spans) < MAX_SPANS:
            spans.append(made)
            continue
        refused += 1
        if service not in services:
            why = f"`{service[:MAX_NAME]}` is served by somebody else"
        else:
            why = why or (f"more than {MAX_SPANS} spans at once" if made else "the ids of a span are 16 and 8 bytes")
    return Told(tuple(spans), refused, why)


def _spans(message: ExportTraceServiceRequest) -> Iterator[tuple[str, trace_pb2.Span]]:
    for resource in message.resource_spans:
        named = (_text(one.value) for one in resource.resource.attributes if one.key == SERVICE)
        service = next(named, "")
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield service, span


def _span(span: trace_pb2.Span, service: str, peer: str) -> Span | None:
    if not (_is_id(span.trace_id, _TRACE_BYTES) and _is_id(span.span_id, _SPAN_BYTES)):
        return None
    start = min(span.start_time_unix_nano, MAX_TIME)
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() if _is_id(span.parent_span_id, _SPAN_BYTES) else "",
        name=span.name[:MAX_TEXT],
        service=service,
        kind=_KINDS.get(span.kind, "internal"),
        start=start,
        end=max(start, min(span.end_time_unix_nano, MAX_TIME)),
        failed=span.status.code == _FAILED,
        tags=tuple(_tags(span.attributes)),
        peer=peer,
    )


def _tags(attributes: Iterable[KeyValue]) -> Iterator[tuple[str, str]]:
    for at, one in enumerate(attributes):
        if at == MAX_TAGS:
            return
        if value := _text(one.value):
            yield one.key[:MAX_NAME], value


def _text(value: AnyValue) -> str:
    """A single value as text, bounded; lists and mappings have no place in a line."""
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value[:MAX_TEXT]
        case "bool_value":
            return "true" if value.bool_value else "false"
        case "int_value":
            return str(value.int_value)
        case "double_value":
            return repr(value.double_value)
        case _:
            return ""


def _is_id(given: bytes, length: int) -> bool:
    return len(given) == length and any(given)
