"""The loopback HTTP port: /livez, /readyz and /metrics, for probes and for Prometheus.

Law: nothing secret is shown and nothing can be changed here; a request whose Host is not this machine's is refused,
so that no web page reaches the port through a browser (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import uvicorn
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from policyd.config.addresses import Address
from policyd.errors import StateError
from policyd.telemetry.metrics import CONTENT_TYPE, expose

MAX_CONNECTIONS: Final = 64
MAX_HEAD_BYTES: Final = 16 << 10
KEEP_ALIVE_SECONDS: Final = 5
CLOSE_SECONDS: Final = 1
MISDIRECTED: Final = 421  # RFC 9110, section 15.5.20

NotReady = Callable[[], str]


class LocalHostOnly:
    """Refuses requests whose Host is neither `localhost`, nor a loopback address, nor one of `hosts`."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            return
        named = [value for name, value in scope["headers"] if name == b"host"]
        if len(named) == 1 and self._is_ours(named[0].decode("latin-1")):
            await self._app(scope, receive, send)
        else:
            refusal = PlainTextResponse("this host is not served here\n", status_code=MISDIRECTED)
            await refusal(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        name = _without_port(host.lower())
        if name == "localhost" or name in self._hosts:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


def application(
    registry: Collector, not_ready: NotReady, remark: NotReady = str, hosts: frozenset[str] = frozenset()
) -> ASGIApp:
    """The pages; `not_ready` gives the reason why the server is not ready, "" when it is.

    `remark` is what else a reader of /readyz should know, such as that a change is being refused.
    """

    async def livez(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        reason = not_ready()
        status = 503 if reason else 200
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({"ready": not reason, "reason": reason, "remark": remark()}, status_code=status)
        lines = [f"not ready: {reason}" if reason else "ok", *([remark()] if remark() else [])]
        return PlainTextResponse("".join(f"{line}\n" for line in lines), status_code=status)

    async def metrics(_request: Request) -> Response:
        return Response(expose(registry), headers={"content-type": CONTENT_TYPE})

    routes = [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]
    return LocalHostOnly(Starlette(routes=routes), hosts)


@asynccontextmanager
async def serve_http(
    address: Address, *, registry: Collector, not_ready: NotReady, remark: NotReady = str
) -> AsyncIterator[Address]:
    """Serve while the block runs, in the running loop; gives the address that is bound.

    Installs no signal handler. A server bound beyond loopback also answers to that address as Host. Raises
    StateError where the address cannot be bound.
    """
    listener = _bind(address)
    bound = Address(address.host, listener.getsockname()[1])
    hosts = frozenset() if address.is_loopback else frozenset({address.host})
    server = _Server(_settings(application(registry, not_ready, remark, hosts)))
    serving = asyncio.create_task(server.run_on(listener))
    try:
        await server.listening(serving)
        yield bound
    finally:
        server.should_exit = True
        await serving
        listener.close()


class _Server(uvicorn.Server):
    """uvicorn's server without its handling of signals, which belongs to whoever owns the loop."""

    async def run_on(self, listener: socket.socket) -> None:
        """Serve on a bound socket until `should_exit`."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[listener])
        await self.main_loop()
        await self.shutdown(sockets=[listener])

    async def listening(self, serving: asyncio.Task[None]) -> None:
        """Wait until connections are taken; raises what the serving task raised."""
        while not self.started:
            if serving.done():
                serving.result()
            await asyncio.sleep(0.005)


def _settings(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=CLOSE_SECONDS,
    )


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise StateError(
            f"`{address}` cannot be listened on: {reason.lower()}", remedy="set another address"
        ) from error
    return listener


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
