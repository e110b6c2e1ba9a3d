"""The agent's port for Prometheus: one page, only for this machine, whatever Envoys and callers do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policyd.errors import StateError
from proxy.bootstrap import Endpoint
from proxy.events import SidecarStatus
from proxy.scrape import MetricsServer, Where, collect

ANY = Where(Endpoint("127.0.0.1", 0), strict=True)
PAGE = "# TYPE envoy_istio_requests_total counter\nenvoy_istio_requests_total{} 1\n"
GOOD = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def page(everything: bool) -> str:
    return "all\n" if everything else "some\n"


@pytest.fixture
async def server() -> AsyncIterator[MetricsServer]:
    made = MetricsServer(page)
    await made.start(ANY)
    yield made
    await made.stop()


async def told(server: MetricsServer, request: str) -> str:
    """What comes back until the connection ends."""
    assert server.address
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    writer.write(request.encode("latin-1"))
    answer = await reader.read()
    writer.close()
    return answer.decode()


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (GOOD, "200", "some\n"),
        (GOOD.replace("/metrics", "/stats/prometheus"), "200", "some\n"),
        (GOOD.replace("/metrics", "/metrics?envoy=all"), "200", "all\n"),
        (GOOD.replace("localhost", "[::1]:15020"), "200", "some\n"),
        (GOOD.replace("localhost", "evil.example"), "421", "this host is not served here\n"),
        (GOOD.replace("localhost", "localhost.evil.example"), "421", "this host is not served here\n"),
        (GOOD.replace("localhost", "10.0.0.1"), "421", "this host is not served here\n"),
        (GOOD.replace("GET", "POST"), "405", "only GET\n"),
        (GOOD.replace("/metrics", "/"), "404", "ask for /metrics\n"),
        (GOOD.replace("/metrics", "/" + "x" * 8000), "404", "ask for /metrics\n"),
    ],
)
async def test_it_answers_with_one_page_or_says_why_not(
    server: MetricsServer, request_: str, status: str, body: str
) -> None:
    answer = await told(server, request_)

    head, _, rest = answer.partition("\r\n\r\n")
    assert (head.split(" ")[1], rest) == (status, body)
    assert "connection: close" in head.lower()


@pytest.mark.parametrize(
    "request_",
    ["no http\r\n\r\n", GOOD.replace("Host: localhost\r\n", ""), GOOD + "x" * 20_000, "GET /" + "x" * 40_000 + GOOD],
)
async def test_what_is_no_request_ends_the_connection_and_nothing_else(server: MetricsServer, request_: str) -> None:
    with_error = asyncio.create_task(told(server, request_))
    await asyncio.gather(with_error, return_exceptions=True)

    assert (await told(server, GOOD)).endswith("some\n")


async def test_a_port_in_use_is_an_error_if_it_was_asked_for_and_else_another_one_is_taken(
    server: MetricsServer,
) -> None:
    assert server.address
    other = MetricsServer(page)

    with pytest.raises(StateError, match="cannot be listened on"):
        await other.start(Where(server.address, strict=True))

    bound = await other.start(Where(server.address))
    assert bound.port not in (0, server.address.port)
    await other.stop()


def sidecar(name: str, socket: Path, pid: int = 1) -> SidecarStatus:
    expires = "2026-01-01T00:00:00.000Z"
    return SidecarStatus(name, f"spiffe://d/{name}", "c", "ready", 2, pid, expires, "00", str(socket), "log")


async def test_an_envoy_that_does_not_answer_is_missed_and_said(tmp_path: Path) -> None:
    async def envoy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(PAGE)}\r\n\r\n{PAGE}".encode())
        writer.close()

    socket = tmp_path / "admin.sock"
    async with await asyncio.start_unix_server(envoy, socket):
        sidecars = [sidecar("here", socket), sidecar("lost", tmp_path / "none.sock"), sidecar("new", socket, pid=0)]
        ends = {"spiffe://d/web": datetime(2026, 1, 1, tzinfo=UTC)}
        lines = (await collect(sidecars, connected=True, everything=False, workloads=ends)).splitlines()

    assert [line for line in lines if line.startswith("policyd_proxy_up{")] == [
        'policyd_proxy_up{proxy="here"} 1',
        'policyd_proxy_up{proxy="lost"} 0',
    ]
    assert 'policyd_proxy_series{proxy="here"} 1' in lines
    assert 'policyd_proxy_svid_expiry_timestamp_seconds{proxy="new"} 1767225600' in lines
    assert 'policyd_workload_svid_expiry_timestamp_seconds{spiffe_id="spiffe://d/web"} 1767225600' in lines
    assert len([line for line in lines if line.startswith("istio_requests_total{")]) == 1
