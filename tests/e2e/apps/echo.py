"""A small application: says which copy it is, waits, and is broken when told so on its own port."""

from __future__ import annotations

import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

broken: dict[str, int] = {"status": 200}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        query = parse_qs(asked.query)
        if asked.path == "/be":  # which no policy permits through the mesh
            broken["status"] = int(query["status"][0])
        elif "wait" in query:
            time.sleep(float(query["wait"][0]))
        status = 200 if asked.path in ("/be", "/health") else broken["status"]
        body = os.environ["POLICYD_INSTANCE"].encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
