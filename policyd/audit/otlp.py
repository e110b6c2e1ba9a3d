"""Records as OpenTelemetry's log records (OTLP), for any collector.

Law: pure. The body is the journal's line as it stands, so that its hash can still be checked where it arrives; `writer`
and `seq` tell which records came twice. Names are in policyd.names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from policyd import names
from policyd.audit.read import Line
from policyd.audit.record import Record

_SEVERITIES: Final = {
    "deny": (SeverityNumber.SEVERITY_NUMBER_WARN, "WARN"),
    "error": (SeverityNumber.SEVERITY_NUMBER_ERROR, "ERROR"),
}
_INFO: Final = (SeverityNumber.SEVERITY_NUMBER_INFO, "INFO")
_TRACE_DIGITS, _SPAN_DIGITS = 32, 16


def request(lines: Sequence[Line], version: str) -> bytes:
    """One export request of these records, as it goes over the wire."""
    resource = Resource(attributes=[_text("service.name", "policyd"), _text("service.version", version)])
    scope = ScopeLogs(scope=InstrumentationScope(name=names.EXPORT_SCOPE), log_records=map(_log_record, lines))
    made = ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=resource, scope_logs=[scope])])
    return bytes(made.SerializeToString())


def refused(body: bytes) -> tuple[int, str]:
    """How many records a collector says it did not take, and why; raises DecodeError."""
    partial = ExportLogsServiceResponse.FromString(body).partial_success
    return partial.rejected_log_records, partial.error_message


def _log_record(line: Line) -> LogRecord:
    record = line.record
    number, word = _SEVERITIES.get(record.decision or "", _INFO)
    nanoseconds = int(record.time.timestamp()) * 1_000_000_000 + record.time.microsecond * 1_000
    return LogRecord(
        time_unix_nano=nanoseconds,
        observed_time_unix_nano=nanoseconds,
        severity_number=number,
        severity_text=word,
        event_name=f"{names.EXPORT_SCOPE}.{record.kind}",
        body=AnyValue(string_value=line.raw.decode("utf-8", "replace").rstrip("\n")),
        attributes=list(_attributes(record)),
        trace_id=_identifier(record.trace_id, _TRACE_DIGITS),
        span_id=_identifier(record.span_id, _SPAN_DIGITS),
    )


def _attributes(record: Record) -> Iterator[KeyValue]:
    for field, name in names.EXPORT_ATTRIBUTES.items():
        value = getattr(record, field)
        if isinstance(value, bool):
            yield KeyValue(key=name, value=AnyValue(bool_value=value))
        elif isinstance(value, int):
            yield KeyValue(key=name, value=AnyValue(int_value=value))
        elif isinstance(value, tuple):
            if value:
                yield _text(name, ",".join(value))
        elif value:
            yield _text(name, str(value))


def _text(name: str, value: str) -> KeyValue:
    return KeyValue(key=name, value=AnyValue(string_value=value))


def _identifier(text: str, digits: int) -> bytes:
    """The bytes of an identifier, none where it has another form (B3 has short ones)."""
    if len(text) != digits:
        return b""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
