"""Collectors of what proxies see: OTLP over HTTP and gRPC (spans, lines of access logs) and Zipkin's JSON."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple, Self

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KEY: Final = "x-api-key"
_COLLECTOR: Final = "opentelemetry.proto.collector"


class Seen(NamedTuple):
    """A span: who made it, of which trace, and what it says."""

    service: str
    trace: str
    span: str
    parent: str
    name: str
    tags: Mapping[str, str]


class Line(NamedTuple):
    """A line of an access log: its text, and what it says by name."""

    body: str
    said: Mapping[str, str]


class Collector:
    """Takes spans at /v1/traces and /api/v2/spans (Zipkin), lines at /v1/logs; both by gRPC at `grpc_port`.

    `keys` is what came as `x-api-key`, however it came.
    """

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.lines: list[Line] = []
        self.zipkin: list[dict[str, Any]] = []
        self.keys: list[str] = []
        keys = self.keys
        takes = {
            "/v1/traces": lambda body: self.spans.extend(_spans(body)),
            "/v1/logs": lambda body: self.lines.extend(_lines(body)),
            "/api/v2/spans": lambda body: self.zipkin.extend(json.loads(body)),
        }

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                keys.append(self.headers.get(KEY, ""))
                takes[self.path](self._body())
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def _body(self) -> bytes:
                if "content-length" in self.headers:
                    return self.rfile.read(int(self.headers["content-length"]))
                return b"".join(self._chunks())

            def _chunks(self) -> Iterator[bytes]:
                """The body as Envoy sends it (RFC 9112, 7.1)."""
                assert self.headers["transfer-encoding"] == "chunked"
                while size := int(self.rfile.readline(), 16):
                    yield self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._grpc = grpc.server(ThreadPoolExecutor(2))
        self._grpc.add_generic_rpc_handlers((
            _taking(f"{_COLLECTOR}.trace.v1.TraceService", takes["/v1/traces"], keys),
            _taking(f"{_COLLECTOR}.logs.v1.LogsService", takes["/v1/logs"], keys),
        ))  # fmt: skip
        self.grpc_port: int = self._grpc.add_insecure_port("127.0.0.1:0")
        self._grpc.start()
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def end(self) -> None:
        """Take nothing any more."""
        self._grpc.stop(0).wait()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _taking(service: str, take: Callable[[bytes], None], keys: list[str]) -> grpc.GenericRpcHandler:
    """`Export` of a service of OTLP; an empty answer says that all was taken."""

    def export(body: bytes, context: grpc.ServicerContext) -> bytes:
        told: dict[str, str] = dict(context.invocation_metadata())
        keys.append(told.get(KEY, ""))
        take(body)
        return b""

    return grpc.method_handlers_generic_handler(service, {"Export": grpc.unary_unary_rpc_method_handler(export)})


def _spans(body: bytes) -> Iterator[Seen]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        named = _texts(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                yield Seen(named["service.name"], *ids, span.name, _texts(span.attributes))


def _lines(body: bytes) -> Iterator[Line]:
    for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
        named = _texts(resource.resource.attributes)
        for scope in resource.scope_logs:
            for record in scope.log_records:
                yield Line(record.body.string_value, {**named, **_texts(record.attributes)})


def _texts(attributes: Any) -> dict[str, str]:
    return {one.key: one.value.string_value for one in attributes}
