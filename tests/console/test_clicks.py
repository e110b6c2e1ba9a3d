"""How far a reason is, counted in what must be clicked: the link that `up` prints is the first of three.

Law: nothing is typed and nothing is searched; a clock judges nothing here, for a machine is fast or slow, a way is not.
"""

from __future__ import annotations

from typing import Final

import httpx

from policyd import tickets
from policyd.console.app import PAGES
from tests.console.conftest import HOST, KEY, SECONDS, Console, Page, World, check_harmless, made
from tests.console.test_pages import denied, looked
from tests.fakes.proxies import Calls
from tests.policy import traffic

DENIAL: Final = f"/decisions/{0xABC:032x}"
STANDING: Final = sorted(path for path in PAGES if "{" not in path and not path.endswith("/part"))
MOST: Final = 2  # clicks from wherever somebody stands: Decisions, and the denial


async def happened(console: Console, world: World) -> None:
    """One call between two services is denied over and over, and the last of it is on record."""
    traffic.write(world.folder, [denied(at=0xABC, revision=world.ruling.revision)])
    await looked(console, world, Calls("reviews-v1", "details-v1", denied=20), Calls("ingress", "productpage-v1", 50))


def red(page: Page) -> list[str]:
    """Where what is shown as denied leads."""
    links = [attributes for tag, attributes in page.elements if tag == "a"]
    return [one["href"] for one in links if {"denied", "deny"} & set(one.get("class", "").split())]


async def clicks(console: Console, start: str, end: str, most: int) -> list[str]:
    """The shortest way by links from a page to another, of at most so many clicks; none is []."""
    ways, seen = [[start]], {start}
    for _ in range(most):
        further = []
        for way in ways:
            found = check_harmless((await console.get(way[-1])).text).of("a", "href")
            if end in found:
                return [*way[1:], end]
            new = [one for one in dict.fromkeys(found) if one.startswith("/") and one not in seen]
            seen.update(new)
            further += [[*way, one] for one in new]
        ways = further
    return []


async def test_the_reason_is_the_third_click_each_on_what_is_red(world: World) -> None:
    app, desk = made(world)
    link = tickets.link(KEY, "unix:0", SECONDS, b"n" * tickets.NONCE_BYTES)
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
        await happened(Console(app, desk, client, ""), world)

        opened = Page((await client.get("/enter", params={"link": link})).text)
        [leads] = [one.partition("url=")[2] for one in opened.of("meta", "content") if one.startswith("0;url=")]
        first = await client.get(leads)  # by itself
        edges = [one for one in red(Page(first.text)) if "edge=" in one]
        second = await client.get(edges[0])
        denials = [one for one in red(Page(second.text)) if one.startswith("/decisions/")]
        third = await client.get(denials[0])

    assert (leads, edges, denials[0]) == ("/", ["/?edge=reviews-v1~details-v1"], DENIAL)
    why = Page(third.text).text
    assert "no policy permits bookinfo-reviews GET /details/0 on details" in why
    assert "It would be allowed with" in why
    assert "A policy that would allow exactly this" in why
    assert "failed" in Page(third.text).of("mark", "class")


async def test_from_a_red_service_the_reason_is_three_clicks_each_on_red(console: Console, world: World) -> None:
    await happened(console, world)
    graph = Page((await console.get("/")).text)
    [service] = [
        one["href"] for tag, one in graph.elements
        if tag == "a" and {"node", "denied"} <= set(one.get("class", "").split())
    ]  # fmt: skip
    around = await console.get(service)
    edge = next(one for one in red(Page(around.text)) if "edge=" in one)
    denial = next(one for one in red(Page((await console.get(edge)).text)) if one.startswith("/decisions/"))
    assert (service, denial) == ("/?focus=details-v1", DENIAL)


async def test_from_every_page_the_reason_is_two_clicks_away_at_most(console: Console, world: World) -> None:
    await happened(console, world)
    ways = {start: await clicks(console, start, DENIAL, MOST) for start in STANDING}
    assert [start for start, way in ways.items() if not way] == []
    assert (ways["/decisions"], ways["/"]) == ([DENIAL], ["/decisions", DENIAL])


async def test_from_the_reason_a_draft_is_tried_on_that_request_with_one_click(console: Console, world: World) -> None:
    await happened(console, world)
    why = Page((await console.get(DENIAL)).text)
    [tried] = [one for one in why.of("a", "href") if one.startswith("/policies/playground?")]
    draft = Page((await console.get(tried)).text)
    assert "Decide" in draft.text
    assert "Replay" in draft.text
    assert [one for tag, one in draft.elements if tag == "input" and "details/0" in one.get("value", "")]
