"""One question to a real application: a request, a connection, a health service, a command."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from proxy.asking import NO_COMMANDS, asking, request_of
from proxy.health import Exec, Grpc, HttpGet, Probe, TcpSocket, Way

HERE = "127.0.0.1"
PATIENT = 20.0  # seconds: where an answer comes, however busy the machine


async def why(way: Way, timeout: float = PATIENT, *, commands: bool = True) -> str:
    return await asking(commands=commands)(Probe("web-1", way, timeout=timeout))


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A port that answers each connection's first bytes so; b"" never does. And what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(4096))
        if answer:
            writer.write(answer)
        else:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, HERE, 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()


async def unused_port() -> int:
    async with answering(b"x") as (port, _):
        return port


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.0 399 Odd\r\n\r\n", ""),
        (b"HTTP/1.1 400 Bad\r\n\r\n", "the answer is 400"),
        (b"HTTP/1.1 503 Down\r\n\r\n", "the answer is 503"),
        (b"SSH-2.0-x\r\n", "port {port} does not speak HTTP"),
        (b"HTTP/1.1 999 No\r\n\r\n", "port {port} does not speak HTTP"),
    ],
)
async def test_a_request_is_answered_by_a_status(answer: bytes, said: str) -> None:
    async with answering(answer) as (port, asked):
        assert await why(HttpGet(HERE, port, "/ready?deep=1")) == said.format(port=port)
        assert asked[0].startswith(b"GET /ready?deep=1 HTTP/1.1\r\nhost: 127.0.0.1:")


async def test_nobody_is_waited_for_longer_than_the_probe_says() -> None:
    async with answering(b"") as (port, _):
        assert await why(HttpGet(HERE, port, "/"), 0.2) == "no answer within 0.2 s"


async def test_where_nobody_listens_nobody_answers() -> None:
    port = await unused_port()
    assert "cannot be asked: " in await why(HttpGet(HERE, port, "/"))
    assert "cannot be asked: " in await why(TcpSocket(HERE, port))
    assert await why(Grpc(port)) == "the health service says unavailable"


async def test_an_accepted_connection_will_do() -> None:
    async with answering(b"x") as (port, _):
        assert await why(TcpSocket(HERE, port)) == ""


def test_headers_of_the_probe_have_the_last_word_but_the_connection_ends() -> None:
    given = HttpGet("::1", 80, "/", headers=(("Host", "shop"), ("Connection", "keep-alive"), ("X-A", "1")))
    assert request_of(given) == (
        b"GET / HTTP/1.1\r\nhost: shop\r\nuser-agent: policyd-probe\r\nconnection: close\r\nx-a: 1\r\n\r\n"
    )
    assert request_of(replace(given, headers=())).startswith(b"GET / HTTP/1.1\r\nhost: [::1]:80\r\n")


class _Health(health_pb2_grpc.HealthServicer):
    async def Check(  # type: ignore[override] # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        statuses = {"": 1, "up" * 100: 1, "down": 2}
        if request.service not in statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return health_pb2.HealthCheckResponse(status=statuses[request.service])


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ("", ""),
        ("up" * 100, ""),
        ("down", "the health service says that it does not serve"),
        ("other", "the health service says not_found"),
    ],
)
async def test_a_health_service_says_serving(service: str, said: str) -> None:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(_Health(), server)
    port = server.add_insecure_port(f"{HERE}:0")
    await server.start()
    try:
        assert await why(Grpc(port, service)) == said
    finally:
        await server.stop(None)


async def test_a_command_ends_with_0() -> None:
    assert await why(Exec(("true",))) == ""
    assert await why(Exec((sys.executable, "-c", "raise SystemExit(3)"))) == "the command ended with 3"
    assert await why(Exec(("no-such-program-here",))) == "it cannot be asked: no such file or directory"
    assert await why(Exec(("a\0b",))) == "it cannot be asked: embedded null byte"


async def test_a_command_that_does_not_end_is_ended_with_what_it_started(tmp_path: Path) -> None:
    file = tmp_path / "child"
    command = ("sh", "-c", f"sleep 600 & echo $! > {file}; wait")
    said = asyncio.ensure_future(why(Exec(command), 3.0))
    while not (file.exists() and file.read_text().strip()) and not said.done():
        await asyncio.sleep(0.02)
    assert await said == "no answer within 3 s"
    child = Path(f"/proc/{int(file.read_text())}/stat")
    async with asyncio.timeout(PATIENT):
        while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
            await asyncio.sleep(0.02)


async def test_a_command_is_run_only_by_an_agent_that_was_started_to() -> None:
    assert await why(Exec(("true",)), commands=False) == NO_COMMANDS
