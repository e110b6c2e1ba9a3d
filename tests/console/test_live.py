"""What is live: rows as they come, a picture after each look, and no stream outlives the console."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from urllib.parse import quote

from policyd.audit.read import Position
from policyd.console import live
from policyd.console.coming import AT_ONCE, MOST, coming, counted, missed, place_of, text_of
from policyd.console.desk import MAX_KEPT
from policyd.console.live import Streams, event
from policyd.console.views.graph import Asked, _after_each_look
from policyd.console.wanted import filter_of
from tests.console.conftest import NOW, Console, World, check_harmless
from tests.console.test_pages import HOSTILE, denied
from tests.fakes.proxies import Calls
from tests.policy import traffic


def test_a_text_of_several_lines_is_one_event() -> None:
    assert event("graph", "a\nb\r\nc\rdata: d") == b"event: graph\ndata: a\ndata: b\ndata: c\ndata: data: d\n\n"


async def test_what_is_recorded_is_shown_and_of_very_much_the_denials(console: Console, world: World) -> None:
    stream = coming(console.desk, filter_of({"resource": "details"}, NOW), None)
    first = asyncio.ensure_future(anext(stream))
    entries = [denied(f"/{HOSTILE}", at, decision="deny" if at % 10 == 0 else "allow") for at in range(1, 101)]
    while not first.done():  # what was written before it looked is of the past
        traffic.write(world.folder, [*entries, denied(at=999, resource='Service::"ratings.default"')])
        await asyncio.wait({first}, timeout=1)

    assert b"event: omitted" in await first
    page = check_harmless("<table>" + (await anext(stream)).decode().replace("data: ", ""))
    rows = [word.strip() for word in page.words if word.strip() in ("allow", "deny")]
    assert len(rows) == AT_ONCE
    assert rows.count("deny") >= 10
    await stream.aclose()


def numbers(found: bytes) -> list[int]:
    """Of an event with rows the decisions, as they stand."""
    return [int(one, 16) for one in re.findall(r'<td class="time"><a href="/decisions/([0-9a-f]{32})', found.decode())]


def place_in(found: bytes) -> str:
    """The place that an event leads a page to."""
    [place] = re.findall(r"^id: (.*)$", found.decode(), re.MULTILINE)
    return str(place)


async def test_who_listens_again_gets_what_came_meanwhile_once(console: Console, world: World) -> None:
    wanted, shown, writer = filter_of({"resource": "details"}, NOW), [], 0
    place = text_of(console.desk.source.ends())
    for begin in range(1, 60, 7):
        for at in range(begin, begin + 7):
            traffic.write(world.folder, [denied(at=at)], writer=f"serve-{writer % 3}")
            writer += 1
        stream = coming(console.desk, wanted, place_of(place))
        found = await anext(stream)
        await stream.aclose()
        shown += numbers(found)[::-1]
        place = place_in(found)
    assert sorted(shown) == list(range(1, 64))
    assert len(shown) == 63


async def test_of_more_than_a_page_keeps_the_newest_come_and_others_are_counted(console: Console, world: World) -> None:
    place = console.desk.source.ends()
    traffic.write(world.folder, [denied(at=at) for at in range(1, MOST + 42)])
    stream = coming(console.desk, filter_of({}, NOW), place)
    assert await anext(stream) == event("omitted", "41")
    assert numbers(await anext(stream)) == list(range(MOST + 41, 41, -1))
    await stream.aclose()


async def test_a_page_that_is_held_is_told_how_much_it_does_not_show(console: Console, world: World) -> None:
    wanted, place = filter_of({"resource": "details"}, NOW), console.desk.source.ends()
    traffic.write(world.folder, [denied(at=1), denied(at=2), denied(at=3, resource='Service::"ratings.default"')])
    stream = counted(console.desk, wanted, place)
    assert await anext(stream) == event("missed", "2")
    traffic.write(world.folder, [denied(at=4)])
    assert await anext(stream) == event("missed", "3")
    await stream.aclose()


async def test_what_was_not_looked_through_is_said(console: Console, world: World) -> None:
    traffic.write(world.folder, [denied(at=at) for at in range(1, 30)])
    found = missed(console.desk, filter_of({}, NOW), {}, looked=10)
    assert (len(found.records), found.more, found.is_all) == (10, 0, False)


async def test_a_place_that_no_journal_has_is_refused_or_bounded_by_what_is(console: Console, world: World) -> None:
    for text in ("x", "serve-1:1", "serve-1:1:2,", "a:1:2;b", "a:1:2\n", "é:1:2", "a:1:" + "9" * 21):
        answer = await console.get(f"/live/decisions?after={quote(text)}")
        assert answer.status_code == 400, text
    ahead = {writer: one._replace(offset=10**15) for writer, one in console.desk.source.ends().items()}
    stream = coming(console.desk, filter_of({}, NOW), {**ahead, "nobody": Position(7, 7)})
    following = asyncio.ensure_future(anext(stream))
    while not following.done():
        traffic.write(world.folder, [denied(at=5)])
        await asyncio.wait({following}, timeout=0.5)
    assert set(numbers(await following)) == {5}
    await stream.aclose()


async def test_a_page_begins_to_listen_behind_its_newest_row(console: Console, world: World) -> None:
    traffic.write(world.folder, [denied(at=0xA)])
    for path in ("/decisions", "/decisions?resource=details"):
        page = check_harmless((await console.get(path)).text)
        [place] = page.of("section", "data-place")
        assert f"/decisions/{0xA:032x}" in page.of("a", "href")
        traffic.write(world.folder, [denied(at=0xB)])
        stream = coming(console.desk, filter_of({"resource": "details"}, NOW), place_of(place))
        assert numbers(await anext(stream)) == [0xB]
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
