"""The page of an application: whole, in time and bounded, or none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.application_page import MAX_BYTES, PagePlace, page_of
from proxy.scrape import collect

OK = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def application(answer: bytes, *, ends: bool = True) -> AsyncIterator[tuple[PagePlace, list[bytes]]]:
    """One that answers every request so, and then hangs up, or never does."""
    asked: list[bytes] = []
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if not ends:
            await over.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield PagePlace("web", "127.0.0.1", server.sockets[0].getsockname()[1], "/metrics?x=1"), asked
    finally:
        over.set()
        server.close()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (OK + b"content-length: 4\r\n\r\na 1\n", "a 1\n"),
        (OK + b"transfer-encoding: chunked\r\n\r\n4\r\na 1\n\r\n0\r\n\r\n", "a 1\n"),
        (OK + b"\r\na 1\n", "a 1\n"),
        (OK + b"content-length: 3\r\n\r\na \xff", "a \ufffd"),
        (OK + b"content-length: 9\r\n\r\na 1\n", None),  # hung up before its end
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", None),
        (b"HTTP/1.1 302 Found\r\nlocation: http://x/\r\ncontent-length: 0\r\n\r\n", None),
        (b"no http\r\n\r\n", None),
        (b"", None),
        (OK + b"x: " + b"y" * 99_999 + b"\r\n\r\n", None),
        (OK + b"\r\n" + b"x" * (MAX_BYTES + 1), None),
    ],
)
async def test_a_page_is_whole_and_bounded_or_none(answer: bytes, text: str | None) -> None:
    async with application(answer) as (place, asked):
        assert await page_of(place, seconds=30) == text
    assert asked[0].startswith(b"GET /metrics?x=1 HTTP/1.1\r\n")


async def test_who_does_not_answer_is_not_waited_for() -> None:
    async with application(OK, ends=False) as (place, _):
        assert await page_of(place, seconds=0.05) is None
    assert await page_of(place) is None  # nobody is there any more


async def test_an_application_is_on_the_page_or_said_to_be_missed() -> None:
    async with application(OK + b"content-length: 4\r\n\r\na 1\n") as (there, _):
        lost = PagePlace("api", "127.0.0.1", 1, "/metrics")
        lines = (await collect([], connected=True, everything=False, pages=[there, lost])).splitlines()

    assert 'a{proxy="web"} 1' in lines
    assert [line for line in lines if line.startswith("policyd_application_up{")] == [
        'policyd_application_up{proxy="web"} 1',
        'policyd_application_up{proxy="api"} 0',
    ]
