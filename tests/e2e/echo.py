"""An application for tests: it tells what it was asked, slowly or badly where the path says so.

`/sleep/0.5` waits, `/status/503` answers so, `/flaky/KEY/2` fails twice for each KEY; all else is told as JSON.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import ThreadingMixIn, UnixStreamServer

seen: Counter[str] = Counter()


class Echo(BaseHTTPRequestHandler):
    """Answers every method alike."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Tell what was asked."""
        length = int(self.headers.get("content-length") or 0)
        self.rfile.read(length)
        parts = self.path.partition("?")[0].split("/")
        seen[self.path] += 1
        status = 200
        match parts[1:]:
            case ["sleep", seconds]:
                time.sleep(float(seconds))
            case ["status", code]:
                status = int(code)
            case ["flaky", _, times] if seen[self.path] <= int(times):
                status = 503
        told = {
            "instance": os.environ.get("POLICYD_INSTANCE", ""),
            "method": self.command,
            "path": self.path,
            "host": self.headers["host"],
            "times": seen[self.path],
            "headers": {name.lower(): ",".join(self.headers.get_all(name, [])) for name in self.headers},
        }
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("x-app", "echo")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = answer  # noqa: N815 - the library's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


class UnixServer(ThreadingMixIn, UnixStreamServer):
    """The same on a Unix socket."""

    daemon_threads = True


if __name__ == "__main__":
    if "SOCKET" in os.environ:
        UnixServer(os.environ["SOCKET"], Echo).serve_forever()
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Echo).serve_forever()
