"""One question to an application: does it answer? "" or why not; never raises, and never waits longer than it may."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import grpc
import grpc.aio

from proxy.health import Exec, Grpc, HttpGet, Probe, TcpSocket

Ask = Callable[[Probe], Awaitable[str]]

MAX_ANSWER: Final = 1024  # bytes, of which the first line is read
NO_COMMANDS: Final = "its probe is a command, and its agent runs none; start it with --run-probe-commands"
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])\b")
_SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}
_CHECK = "/grpc.health.v1.Health/Check"
_LOOPBACK = "127.0.0.1"


def asking(*, commands: bool) -> Ask:
    """Return how to ask; `commands` of the mesh are run only by an agent that was started to."""

    async def ask(probe: Probe) -> str:
        try:
            async with asyncio.timeout(probe.timeout):
                return await _ask(probe, commands=commands)
        except TimeoutError:
            return f"no answer within {probe.timeout:g} s"
        except OSError as error:
            return f"it cannot be asked: {(error.strerror or type(error).__name__).lower()}"[:200]
        except ValueError as error:  # what no program, no host or no header is called
            return f"it cannot be asked: {error}"[:200]

    return ask


async def _ask(probe: Probe, *, commands: bool) -> str:
    match probe.way:
        case HttpGet() as get:
            return await _get(get)
        case TcpSocket(host, port):
            _, writer = await asyncio.open_connection(host, port)
            await _closed(writer)
            return ""
        case Grpc() as wanted:
            return await _health(wanted, probe.timeout)
        case Exec(command):
            return await _run(command) if commands else NO_COMMANDS


async def _get(get: HttpGet) -> str:
    reader, writer = await asyncio.open_connection(get.host, get.port, ssl=_unchecked() if get.tls else None)
    try:
        writer.write(request_of(get))
        answer = await reader.read(MAX_ANSWER)
    finally:
        await _closed(writer)
    found = _STATUS_LINE.match(answer)
    if found is None:
        return f"port {get.port} does not speak HTTP"
    return "" if 200 <= int(found[1]) < 400 else f"the answer is {int(found[1])}"


def request_of(get: HttpGet) -> bytes:
    """The bytes of the request; its own headers have the last word about Host."""
    given = {name.lower(): value for name, value in get.headers}
    host = f"[{get.host}]" if ":" in get.host else get.host
    headers = {"host": f"{host}:{get.port}", "user-agent": "policyd-probe", **given, "connection": "close"}
    lines = [f"GET {get.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("utf-8")


def _unchecked() -> ssl.SSLContext:
    """TLS without a look at the certificate: an application's own may be of any kind, as for the kubelet."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def _health(wanted: Grpc, timeout: float) -> str:
    service = wanted.service.encode()
    message = b"\x0a" + bytes([len(service) & 0x7F | 0x80, len(service) >> 7]) + service if service else b""
    direct = (("grpc.enable_http_proxy", 0),)
    async with grpc.aio.insecure_channel(f"{_LOOPBACK}:{wanted.port}", direct) as channel:
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_CHECK)
        try:
            answer = await check(message, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            return f"the health service says {error.code().name.lower()}"
    return "" if answer == _SERVING else "the health service says that it does not serve"


async def _run(command: tuple[str, ...]) -> str:
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return "" if code == 0 else f"the command ended with {code}"
