"""Requests into the mesh: where they go, as whom, and what is told of the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from policyd._pb import admin_pb2 as pb
from policyd.cli.first_bytes import header
from policyd.cli.places import addresses, front, proxy_of
from policyd.cli.request import Answer, Sending, send

WEB = "spiffe://cluster.local/ns/default/sa/web"
PLACES = [
    pb.InstancePlace(
        name="edge", service="edge.default", role="gateway", address="127.0.0.1",
        listens=[pb.Listen(declared=80, actual=20080), pb.Listen(declared=443, actual=20443)],
    ),
    pb.InstancePlace(
        name="web-v1", service="web.default", role="sidecar", address="127.0.0.1", inbound_port=20002,
        spiffe_id=WEB, proxy_url="http://web-v1:secret@127.0.0.1:20003",
        ports=[pb.PortPlace(service_port=80, inbound_port=20002), pb.PortPlace(service_port=90, inbound_port=20005)],
    ),
    pb.InstancePlace(
        name="far", service="far.default", role="gateway", address="::1", listens=[pb.Listen(declared=80, actual=81)]
    ),
]  # fmt: skip


def test_every_port_of_every_gateway_has_an_address() -> None:
    assert addresses(PLACES) == ["http://127.0.0.1:20080/", "http://127.0.0.1:20443/", "http://[::1]:81/"]


@pytest.mark.parametrize(
    ("service", "port", "at"),
    [
        ("edge.default", None, "127.0.0.1:20080"),
        ("edge.default", 443, "127.0.0.1:20443"),
        ("edge.default", 8443, None),
        ("far.default", None, "[::1]:81"),
        ("web.default", 9080, "127.0.0.1:20002"),
        ("web.default", 90, "127.0.0.1:20005"),
        ("nobody.default", None, None),
    ],
)
def test_a_service_is_reached_from_outside(service: str, port: int | None, at: str | None) -> None:
    assert front(PLACES, service, port) == at


def test_a_workload_speaks_through_its_sidecar() -> None:
    assert proxy_of(PLACES, "web", WEB) == "http://web-v1:secret@127.0.0.1:20003"
    assert proxy_of(PLACES, "web-v1", "") == "http://web-v1:secret@127.0.0.1:20003"
    assert proxy_of(PLACES, "edge", "spiffe://cluster.local/ns/default/sa/edge") is None


def test_the_secret_of_a_proxy_is_in_no_repr() -> None:
    assert "secret" not in repr(Sending("GET", "http://web/", "1", proxy="http://web-v1:secret@127.0.0.1:1"))


@dataclass
class Web:
    """What answers, and what it was asked."""

    port: int
    answer: bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    asked: list[str] = field(default_factory=list)


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    made = Web(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.asked.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
        writer.write(made.answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    await server.wait_closed()


async def test_a_plain_request_goes_to_the_place_and_names_the_mesh_s_host(web: Web) -> None:
    answer = await send(Sending("GET", "http://edge/page?q=1", "r-1", at=f"127.0.0.1:{web.port}"))

    assert (answer.status, answer.body, answer.problem) == (200, "hi", "")
    assert web.asked[0].startswith("get /page?q=1 http/1.1\r\n")
    assert "host: edge\r\n" in web.asked[0]
    assert "x-request-id: r-1\r\n" in web.asked[0]


async def test_a_workload_s_request_goes_to_its_proxy_with_its_secret(web: Web) -> None:
    await send(Sending("DELETE", "http://web:9080/x", "r-2", proxy=f"http://web-v1:secret@127.0.0.1:{web.port}"))

    assert web.asked[0].startswith("delete http://web:9080/x http/1.1\r\n")
    assert "proxy-authorization: basic " in web.asked[0]


@pytest.mark.parametrize(
    ("client", "first"),
    [
        ("203.0.113.9", b"PROXY TCP4 203.0.113.9 127.0.0.1 65535 80\r\n"),
        ("2001:db8::9", b"PROXY TCP6 2001:db8::9 ::1 65535 80\r\n"),
    ],
)
def test_a_proxy_header_names_the_client(client: str, first: bytes) -> None:
    assert header(client, "127.0.0.1:80") == first


async def test_a_connection_begins_with_the_header_and_each_request_names_the_proxies(web: Web) -> None:
    sending = Sending(
        "GET", "http://edge/", "r", at=f"127.0.0.1:{web.port}", client="203.0.113.9", forwarded="192.0.2.7"
    )
    answer = await send(sending)

    assert (answer.status, answer.body) == (200, "hi")
    first, line, *rest = web.asked[0].split("\r\n")
    assert (first, line) == (f"proxy tcp4 203.0.113.9 127.0.0.1 65535 {web.port}", "get / http/1.1")
    assert "host: edge" in rest
    assert "x-forwarded-for: 192.0.2.7" in rest


async def test_a_gateway_that_ends_the_connection_is_said(web: Web) -> None:
    web.answer = b""
    answer = await send(Sending("GET", "http://edge/", "r", at=f"127.0.0.1:{web.port}", client="203.0.113.9"))
    assert answer.problem.startswith("no answer: ")


async def test_a_denial_brings_its_decision_id(web: Web) -> None:
    web.answer = b"HTTP/1.1 403 Forbidden\r\nx-policyd-decision-id: d-7\r\ncontent-length: 0\r\n\r\n"

    answer = await send(Sending("GET", "http://edge/", "r", at=f"127.0.0.1:{web.port}"))

    assert (answer.status, answer.decision_id) == (403, "d-7")


async def test_a_redirect_is_an_answer(web: Web) -> None:
    web.answer = b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere.example/\r\ncontent-length: 0\r\n\r\n"

    assert (await send(Sending("GET", "http://edge", "r", at=f"127.0.0.1:{web.port}"))).status == 302
    assert web.asked[0].startswith("get / http/1.1")


async def test_no_answer_is_said(web: Web) -> None:
    nobody = await send(Sending("GET", "http://edge/", "r", at="127.0.0.1:1"))
    web.answer = b"not http\r\n\r\n"
    garbled = await send(Sending("GET", "http://edge/", "r", at=f"127.0.0.1:{web.port}"))

    assert nobody == Answer(problem="no answer: All connection attempts failed")
    assert garbled.status == 0
    assert garbled.problem.startswith("no answer: ")
