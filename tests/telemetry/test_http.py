"""The HTTP port: probes and metrics, for this machine only."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from policyd.config.addresses import Address
from policyd.errors import StateError
from policyd.telemetry.http import MAX_HEAD_BYTES, serve_http
from policyd.telemetry.metrics import Metrics

ANY = Address("127.0.0.1", 0)


@dataclass
class Server:
    """One that serves; `reason` is why it is not ready."""

    address: Address
    reason: str = ""
    remark: str = ""

    async def get(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=f"http://{self.address}", trust_env=False) as client:
            return await client.request(method, path, headers=headers)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    found = Server(ANY)
    registry = Metrics().registry
    reads = {"not_ready": lambda: found.reason, "remark": lambda: found.remark}
    async with serve_http(ANY, registry=registry, **reads) as found.address:
        yield found


async def test_it_lives(server: Server) -> None:
    reply = await server.get("/livez")
    assert (reply.status_code, reply.text) == (200, "ok\n")


async def test_it_is_ready_or_says_why_not(server: Server) -> None:
    ready = await server.get("/readyz")
    server.reason = "the disk is full"
    not_ready = await server.get("/readyz")
    as_json = await server.get("/readyz", accept="application/json")
    assert [(reply.status_code, reply.text) for reply in (ready, not_ready)] == [
        (200, "ok\n"),
        (503, "not ready: the disk is full\n"),
    ]
    assert (as_json.status_code, as_json.json()) == (503, {"ready": False, "reason": server.reason, "remark": ""})


async def test_it_is_ready_while_a_change_is_refused_and_says_so(server: Server) -> None:
    server.remark = "a change is refused: mesh/a.yaml:3"

    reply = await server.get("/readyz")

    assert (reply.status_code, reply.text) == (200, "ok\na change is refused: mesh/a.yaml:3\n")


async def test_metrics_are_in_prometheus_form(server: Server) -> None:
    reply = await server.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"# TYPE policyd_decisions_total counter\n" in reply.content


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "127.0.0.1", "127.8.8.8:80", "[::1]", "[::1]:80"])
async def test_this_machine_is_answered(server: Server, host: str) -> None:
    assert (await server.get("/livez", host=host)).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "10.0.0.1", "127.0.0.1.nip.io", "[::2]", ""]
)
async def test_a_foreign_host_is_refused(server: Server, host: str) -> None:
    reply = await server.get("/metrics", host=host)
    assert (reply.status_code, reply.text) == (421, "this host is not served here\n")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/docs", 404), ("POST", "/readyz", 405), ("DELETE", "/metrics", 405)],
)
async def test_there_is_nothing_else(server: Server, method: str, path: str, status: int) -> None:
    assert (await server.get(path, method)).status_code == status


async def test_it_does_not_say_what_it_is_made_of(server: Server) -> None:
    assert "server" not in (await server.get("/livez")).headers


async def test_an_endless_head_is_cut_off(server: Server) -> None:
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (2 * MAX_HEAD_BYTES))
    reply = await asyncio.wait_for(reader.read(), 10)
    assert reply.startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_signals_stay_with_their_owner() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with serve_http(ANY, registry=Metrics().registry, not_ready=str):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def test_the_port_is_free_afterwards() -> None:
    async with serve_http(ANY, registry=Metrics().registry, not_ready=str) as address:
        pass
    with socket.create_server((address.host, address.port)):
        pass


async def test_a_port_in_use_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(StateError) as caught:
            async with serve_http(address, registry=Metrics().registry, not_ready=str):
                pass
    assert caught.value.message == f"`{address}` cannot be listened on: address already in use"


async def test_beyond_loopback_its_own_address_is_a_host_too() -> None:
    async with serve_http(Address("0.0.0.0", 0), registry=Metrics().registry, not_ready=str) as address:
        here = Server(Address("127.0.0.1", address.port))
        statuses = [(await here.get("/livez", host=host)).status_code for host in ("0.0.0.0", "evil.example")]
    assert statuses == [200, 421]
