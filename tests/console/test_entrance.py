"""The way in: a link once, a token where there is one, and who guesses waits."""

from __future__ import annotations

import os

import httpx
import pytest

from policyd import tickets
from policyd._pb import admin_pb2 as pb
from policyd.state_paths import state_paths
from tests.console.conftest import HOST, KEY, RULES, SECONDS, TOKEN, World, made


def browser(world: World, token: str = "") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(made(world, token)[0]), base_url=f"http://{HOST}")  # type: ignore[arg-type]


def link(issued: int = SECONDS, key: bytes = KEY) -> str:
    return f"/enter?link={tickets.link(key, 'unix:0', issued, b'n' * 16)}"


async def test_a_link_opens_once(world: World) -> None:
    async with browser(world) as first, browser(world) as second:
        second._transport = first._transport
        opened, again = await first.get(link()), await second.get(link())

        assert opened.status_code == 200
        cookie = opened.headers["set-cookie"]
        assert cookie.startswith(f"{RULES.cookie}=")
        for part in ("HttpOnly", "SameSite=strict", "Path=/"):
            assert part in cookie
        assert (await first.get("/mesh", headers={"accept": "text/html"})).status_code == 200
        assert again.status_code == 403
        assert "has been used" in again.text
        assert (await second.get("/mesh")).status_code == 401


@pytest.mark.parametrize(
    "url",
    [link(SECONDS - tickets.LINK_SECONDS), link(SECONDS - 1), link(key=b"x" * 32), "/enter?link=nonsense"],
    ids=["ended", "of an earlier start", "of another key", "none"],
)
async def test_a_link_that_is_not_good_opens_nothing(world: World, url: str) -> None:
    async with browser(world) as client:
        answer = await client.get(url)

    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


async def test_the_token_opens_where_there_is_one_and_guessing_is_slowed_down(world: World) -> None:
    origin = {"origin": f"http://{HOST}"}
    async with browser(world, TOKEN) as client:
        assert "password" in (await client.get("/enter")).text
        wrong = [(await client.post("/enter", data={"token": "guess"}, headers=origin)).status_code for _ in range(8)]
        assert wrong == [403] * 5 + [429] * 3
        world.clock += 60
        assert (await client.post("/enter", data={"token": TOKEN}, headers={"origin": "http://x"})).status_code == 403
        right = await client.post("/enter", data={"token": TOKEN}, headers=origin)
        assert (right.status_code, right.headers["location"]) == (303, "/")
        assert (await client.get("/mesh", headers={"accept": "text/html"})).status_code == 200


async def test_without_a_token_none_opens(world: World) -> None:
    async with browser(world) as client:
        assert "password" not in (await client.get("/enter")).text
        for token in ("", TOKEN):
            answer = await client.post("/enter", data={"token": token}, headers={"origin": f"http://{HOST}"})
            assert answer.status_code == 403


async def test_who_may_not_look_does_not_come_in_and_who_may_is_on_record(world: World) -> None:
    async with browser(world) as client:
        world.fake.replies["Visit"] = pb.VisitReply(allowed=False, reasons=["nobody-looks"])
        refused = await client.get(link())
        assert refused.status_code == 403
        assert "nobody-looks" in refused.text
        assert "set-cookie" not in refused.headers

        world.fake.replies["Visit"] = pb.VisitReply(allowed=True, reasons=["owner"])
        again = f"/enter?link={tickets.link(KEY, 'unix:0', SECONDS, b'm' * 16)}"
        assert (await client.get(again)).status_code == 200
        asked = [request for name, request in world.fake.requests if name == "Visit"]
        assert {(one.who, one.act, one.operation) for one in asked} == {("unix:0", "view", "console.open")}


async def test_a_session_ends_where_it_may_look_no_more(world: World) -> None:
    async with browser(world) as client:
        await client.get(link())
        world.fake.replies["Visit"] = pb.VisitReply(allowed=False, reasons=["nobody-looks"])
        for path in ("/policies", "/live/mesh"):
            answer = await client.get(path, headers={"accept": "text/html"})
            assert answer.status_code == 403
            assert "nobody-looks" in answer.text


async def test_without_a_server_the_owner_comes_in_and_a_token_does_not(world: World) -> None:
    state_paths(world.folder).server.unlink()
    mine = f"/enter?link={tickets.link(KEY, f'unix:{os.getuid()}', SECONDS, b'n' * 16)}"
    theirs = f"/enter?link={tickets.link(KEY, 'unix:99999', SECONDS, b'm' * 16)}"
    async with browser(world, TOKEN) as client:
        origin = {"origin": f"http://{HOST}"}
        assert (await client.post("/enter", data={"token": TOKEN}, headers=origin)).status_code == 403
        assert (await client.get(theirs)).status_code == 403
        assert (await client.get(mine)).status_code == 200
