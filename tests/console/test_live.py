"""What is live: rows as they come, a picture after each look, and no stream outlives the console."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from policyd.console import live
from policyd.console.desk import MAX_KEPT
from policyd.console.live import Streams, event
from policyd.console.views.decisions import AT_ONCE, _as_they_come
from policyd.console.views.graph import Asked, _after_each_look
from policyd.console.wanted import filter_of
from tests.console.conftest import NOW, Console, World, check_harmless
from tests.console.test_pages import HOSTILE, denied
from tests.fakes.proxies import Calls
from tests.policy import traffic


def test_a_text_of_several_lines_is_one_event() -> None:
    assert event("graph", "a\nb\r\nc\rdata: d") == b"event: graph\ndata: a\ndata: b\ndata: c\ndata: data: d\n\n"


async def test_what_is_recorded_is_shown_and_of_very_much_the_denials(console: Console, world: World) -> None:
    stream = _as_they_come(console.desk, filter_of({"resource": "details"}, NOW))
    first = asyncio.ensure_future(anext(stream))
    entries = [denied(f"/{HOSTILE}", at, decision="deny" if at % 10 == 0 else "allow") for at in range(1, 101)]
    while not first.done():  # what was written before it looked is of the past
        traffic.write(world.folder, [*entries, denied(at=999, resource='Service::"ratings.default"')])
        await asyncio.wait({first}, timeout=1)

    page = check_harmless("<table>" + (await first).decode().replace("data: ", ""))
    rows = [word.strip() for word in page.words if word.strip() in ("allow", "deny")]
    assert len(rows) == AT_ONCE
    assert rows.count("deny") >= 10
    assert b"event: omitted" in await anext(stream)
    await stream.aclose()


async def test_the_picture_comes_after_each_look(console: Console, world: World) -> None:
    await console.desk.watch.look()
    stream = _after_each_look(console.desk, Asked())
    first = (await anext(stream)).decode()
    following = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    world.later(10.0, Calls("reviews-v1", "details-v1", denied=20))
    while not following.done():
        await console.desk.watch.look()
        await asyncio.wait({following}, timeout=0.2)

    assert "no look has ended" not in (await following).decode()
    assert "100 % denied" in following.result().decode()
    assert "100 % denied" not in first
    await stream.aclose()


async def test_a_page_is_sent_nothing_that_it_shows_already(console: Console, world: World) -> None:
    for _ in range(2):
        await console.desk.watch.look()
        world.later(10.0, Calls("reviews-v1", "details-v1", denied=20))
    page = check_harmless((await console.get("/")).text)
    [shown] = page.of("div", "data-look")
    behind, level = (_after_each_look(console.desk, Asked(), int(shown) - less) for less in (1, 0))

    assert (await anext(behind)).startswith(b"event: graph\n")
    following = asyncio.ensure_future(anext(level))
    await asyncio.sleep(0)
    assert not following.done()
    while not following.done():
        await console.desk.watch.look()
        await asyncio.wait({following}, timeout=0.2)
    assert f'data-look="{int(shown) + 1}"' in (await following).decode()
    for stream in (behind, level):
        await stream.aclose()


def test_what_is_asked_for_again_and_again_is_made_once(console: Console) -> None:
    """The places of a graph, whose numbers are new after each look."""
    places = console.desk.kept("places", list[str])
    for at in range(3 * MAX_KEPT):
        console.desk.kept(("numbers", at), list[str])
        assert console.desk.kept("places", list[str]) is places


async def test_streams_are_counted_and_end_with_the_console() -> None:
    stopping, ended = asyncio.Event(), []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
                await asyncio.sleep(60)
        finally:
            ended.append(True)

    streams = Streams(stopping)
    body = streams.answer(endless()).body_iterator  # type: ignore[attr-defined]
    assert await anext(body) == b"retry: 2000\n\n"
    assert await anext(body) == b"x"
    assert streams.count == 1
    stopping.set()
    assert [one async for one in body] == []
    assert (streams.count, ended) == (0, [True])

    streams.count = live.MAX_STREAMS
    assert streams.answer(endless()).status_code == 503
