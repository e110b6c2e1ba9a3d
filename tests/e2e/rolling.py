"""Agents that are restarted one after another while callers ask, and what callers see of it.

Bookinfo's reviews, on three instances beside two agents: each asks ratings through its own sidecar before it answers,
so that what is restarted is the client of one and the server of the other.
"""

from __future__ import annotations

import base64
import http.client
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

AGENTS = {"page": ["productpage-v1", "ratings-v1"], "one": ["reviews-v1"], "two": ["reviews-v2", "reviews-v3"]}
PAUSE = 0.01  # seconds between two requests of one caller


def with_agents_for_each(directory: Path) -> Path:
    """Bookinfo's folder, with an identity of its own for one of the reviews, so that an agent may run it alone."""
    for name, old, new in (
        ("workloads.yaml", "service: reviews, port", "service: reviews, serviceAccount: bookinfo-first, port"),
        ("groups.yaml", "[bookinfo-reviews,", "[bookinfo-reviews, bookinfo-first,"),
    ):
        file = directory / name
        file.write_text(file.read_text().replace(old, new, 1))
    shutil.rmtree(directory / "cases")  # which speak of all reviews as one identity
    return directory


@dataclass
class Callers:
    """Threads that ask the same again and again, one connection each; `seen` counts what came: statuses, and errors."""

    proxy: str
    url: str
    count: int = 4
    seen: Counter[str] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def asking(self) -> Iterator[Callers]:
        """Ask for the length of a block."""
        threads = [threading.Thread(target=self._ask) for _ in range(self.count)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    @property
    def sent(self) -> int:
        return self.seen.total()

    @property
    def failed(self) -> int:
        return self.sent - self.seen["200"]

    def _ask(self) -> None:
        with closing(Asker(self.proxy)) as asker:
            while not self._stop.wait(PAUSE):
                self.seen[asker.ask(self.url)] += 1


class Asker:
    """Asks through a proxy over one connection, another one after an error."""

    def __init__(self, proxy: str) -> None:
        place = urlsplit(proxy)
        secret = base64.b64encode(f"{place.username}:{place.password}".encode()).decode()
        self._headers = {"proxy-authorization": f"Basic {secret}"}
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)

    def ask(self, url: str) -> str:
        """The status, or what went wrong."""
        try:
            self._connection.request("GET", url, headers=self._headers)
            with closing(self._connection.getresponse()) as reply:
                reply.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return type(error).__name__
        return str(reply.status)

    def close(self) -> None:
        self._connection.close()


@contextmanager
def application(port: int, proxy: str = "") -> Iterator[None]:
    """Answers everything; one with a proxy as ratings answers it, which it asks first."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.asker = Asker(proxy) if proxy else None

        def finish(self) -> None:
            if self.asker is not None:
                self.asker.close()
            super().finish()

        def do_GET(self) -> None:
            said = self.asker.ask("http://ratings:9080/ratings/0") if self.asker is not None else "200"
            self.send_response(int(said) if said.isdigit() else 500)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def applications(place: Callable[[str], dict[str, Any]]) -> Iterator[None]:
    """Ratings, and the reviews that ask it."""
    with ExitStack() as stack:
        stack.enter_context(application(place("ratings-v1")["app_port"]))
        for name in ("reviews-v1", "reviews-v2", "reviews-v3"):
            stack.enter_context(application(place(name)["app_port"], place(name)["proxy_url"]))
        yield
