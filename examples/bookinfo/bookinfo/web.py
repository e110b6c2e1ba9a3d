"""What every service of Bookinfo does alike: routes, answers, book numbers, listening, ending."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from types import FrameType

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan

from bookinfo.settings import Settings, read

MAX_BODY = 16 * 1024
"""Bytes of a request's body; a form or a few ratings need far fewer."""
MAX_HEAD = 32 * 1024
"""Bytes of a request's line and headers."""
IDLE_SECONDS = 3900
"""Longer than Envoy keeps idle connections (1 h), so that it never sends into one that is being closed."""
END_SECONDS = 0.5
"""How long requests under way may take once the service is told to end."""

NOT_A_NUMBER = "please provide a numeric book id"


def json(value: object, status: int = 200) -> Response:
    """Answer with a value of `shapes.py`, or with plain data."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def error(message: str, status: int) -> Response:
    """Answer `{"error": message}`."""
    return json({"error": message}, status)


def book_id(request: Request) -> int:
    """Take the id from the path: 1 to 9 digits, else the caller gets 400."""
    text = request.path_params["id"]
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise HTTPException(400, NOT_A_NUMBER)
    return int(text)


def service(routes: Sequence[Route], lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """Make the application: bounded bodies, errors as JSON, no redirects built from a caller's Host header."""
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={HTTPException: _failure},
        max_body_size=MAX_BODY,
    )
    app.router.redirect_slashes = False
    return app


def _failure(_: Request, failure: Exception) -> Response:
    assert isinstance(failure, HTTPException)
    return error(failure.detail, failure.status_code)


def main(build: Callable[[Settings], Starlette]) -> None:
    """Run a service as a process: settings from the environment, until SIGTERM or SIGINT, then exit code 0."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)  # uvicorn ends gracefully, then raises the signal again: this makes it an exit
    try:
        settings = read(os.environ)
    except ValueError as problem:
        sys.exit(f"bookinfo: {problem}")
    server(build(settings), settings.port).run()


def _end(_: int, __: FrameType | None) -> None:
    sys.exit(0)


def server(app: Starlette, port: int) -> uvicorn.Server:
    """Make a server for loopback that logs only what goes wrong."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=1000,
        timeout_keep_alive=IDLE_SECONDS,
        h11_max_incomplete_event_size=MAX_HEAD,
    )
    config.timeout_graceful_shutdown = END_SECONDS  # type: ignore[assignment]  # asyncio takes fractions
    return _Server(config)


class _Server(uvicorn.Server):
    """Ends in silence: that requests under way are cut off then is no failure."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)
