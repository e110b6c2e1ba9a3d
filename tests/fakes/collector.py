"""A collector of OTLP logs: a small HTTP server that remembers what it took, and fails as it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse


class FakeCollector:
    """`answers` are the next status codes, 200 when they are used up; `poison` is a `seq` that it never takes."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.poison: int | None = None
        self.partial = False  # a record that is not taken is told in the answer instead of a 400
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.requests: list[Any] = []
        self.tries = 0
        self.url = ""

    @property
    def seqs(self) -> list[tuple[str, int]]:
        """The records that were taken, in the order in which they came."""
        return [(one["writer"], one["seq"]) for one in self.bodies]

    def take(self, body: bytes) -> tuple[int, bytes]:
        """Answer a request."""
        self.tries += 1
        if self.answers and (status := self.answers.pop(0)) != 200:
            return status, b""
        request = ExportLogsServiceRequest.FromString(body)
        records = [one for r in request.resource_logs for s in r.scope_logs for one in s.log_records]
        found = [json.loads(one.body.string_value) for one in records]
        if self.poison is not None and any(one["seq"] == self.poison for one in found):
            if not self.partial:
                return 400, b""
            answer = ExportLogsServiceResponse()
            answer.partial_success.rejected_log_records = 1
            answer.partial_success.error_message = "too strange"
            return 200, answer.SerializeToString()
        self.requests.append(request)
        self.bodies += found
        return 200, ExportLogsServiceResponse().SerializeToString()


@contextmanager
def collecting() -> Iterator[FakeCollector]:
    """A collector that listens on loopback."""
    fake = FakeCollector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            fake.headers.append({name.lower(): value for name, value in self.headers.items()})
            status, body = fake.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_port}/v1/logs"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
