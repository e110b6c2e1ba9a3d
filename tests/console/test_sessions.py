"""Sessions end when their owner says so: here, in the next process, and for pages that are open."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from policyd import tickets
from policyd._pb import admin_pb2 as pb
from policyd.console import sessions
from policyd.console.live import Streams
from policyd.console.sessions import Sessions, sessions_of
from policyd.tickets import Ticket
from tests.console.conftest import HOST, KEY, RULES, SECONDS, Console, World, check_harmless, made

OWNER = "unix:0"


def session(name: str, who: str = OWNER, issued: int = 100) -> Ticket:
    return Ticket("session", who, issued, issued + tickets.SESSION_SECONDS, name)


def goes_on(known: Sessions, *some: Ticket) -> list[str]:
    return [one.nonce for one in some if known.holds(one)]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "console-sessions.json"


def test_one_that_is_left_ends_alone_and_stays_ended(kept: Path) -> None:
    mine, other, anothers = session("mine"), session("other"), session("another's", "oidc:https://issuer#ann")
    known = sessions_of(kept, 0)
    assert goes_on(known, mine, other, anothers) == ["mine", "other", "another's"]

    known.end(mine, 200)

    for one in (known, sessions_of(kept, 900)):
        assert goes_on(one, mine, other, anothers) == ["other", "another's"]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_all_others_of_an_operator_end_and_what_begins_then_goes_on(kept: Path) -> None:
    mine, other, anothers = session("mine"), session("other"), session("another's", "oidc:https://issuer#ann")
    within, later = session("within the second", issued=200), session("later", issued=201)
    known = sessions_of(kept, 0)

    known.end_others(mine, 200)
    known.begun(within)
    known.begun(later)

    for one in (known, sessions_of(kept, 900)):
        assert goes_on(one, mine, other, anothers, within, later) == ["mine", "another's", "within the second", "later"]
    known.end_others(later, 300)
    assert goes_on(known, mine, within, anothers, later) == ["another's", "later"]


def test_what_is_remembered_is_bounded_and_more_ends_all_of_who_asks(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_ENDED", 3)
    monkeypatch.setattr(sessions, "MAX_OPERATORS", 2)
    known = Sessions()
    many = [session(f"s{at}") for at in range(5)]
    for one in many[:4]:
        known.end(one, 200)
    assert (len(known.ended), goes_on(known, *many)) == (3, [])
    known.end(session("late", issued=50_000), 100 + tickets.SESSION_SECONDS)
    assert list(known.ended) == ["late"], "what would have ended by now is forgotten"

    for at in range(3):
        known.end_others(session("kept", f"oidc:{at}"), 50_000 + at)
    assert len(known.cuts) == 2
    assert not known.holds(session("kept", "oidc:0")), "forgotten: it ends with everybody's of then"
    assert known.holds(session("kept", "oidc:2", 50_001))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"everybody": 1}', '{"everybody":1,"ended":{"a":"x"},"cuts":{}}'])
def test_a_file_that_says_nothing_ends_all_that_began_before(kept: Path, text: str) -> None:
    kept.write_text(text)

    assert goes_on(sessions_of(kept, 200), session("before", issued=200), session("after", issued=201)) == ["after"]


async def test_a_stream_ends_with_its_session() -> None:
    async def events() -> AsyncIterator[bytes]:
        while True:
            yield b"x"

    known, ticket = Sessions(), session("mine")
    streams = Streams(asyncio.Event())
    body = streams.answer(events(), lambda: known.holds(ticket)).body_iterator  # type: ignore[attr-defined]
    assert [await anext(body), await anext(body)] == [b"retry: 2000\n\n", b"x"]
    known.end(ticket, 200)

    assert [one async for one in body] == []
    assert streams.count == 0


def cookie(name: bytes) -> dict[str, str]:
    return {"cookie": f"{RULES.cookie}={tickets.session(KEY, OWNER, SECONDS - 60, name * 16)}"}


def proof(name: bytes) -> dict[str, str]:
    ticket = tickets.read(KEY, "session", cookie(name)["cookie"].partition("=")[2], SECONDS)
    assert ticket is not None
    return {"origin": f"http://{HOST}", "x-policyd-proof": tickets.proof(KEY, ticket)}


async def test_who_leaves_is_out_on_record_and_other_browsers_are_not(world: World) -> None:
    app = httpx.ASGITransport(made(world)[0])  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=app, base_url=f"http://{HOST}") as client:
        page = check_harmless((await client.get("/mesh", headers=cookie(b"a"))).text)
        assert f"you are {OWNER}" in page.text
        assert "1 min ago" in page.text

        bare = await client.post("/leave", headers=cookie(b"a") | {"origin": f"http://{HOST}"})
        left = await client.post("/leave", headers=cookie(b"a") | proof(b"a"))
        seen = [(await client.get("/mesh", headers=cookie(name))).status_code for name in (b"a", b"b", b"c")]
        others = await client.post("/leave/others", headers=cookie(b"b") | proof(b"b"))
        then = [(await client.get("/mesh", headers=cookie(name))).status_code for name in (b"a", b"b", b"c")]

    assert (bare.status_code, left.status_code, others.status_code) == (403, 200, 200)
    assert left.headers["set-cookie"].startswith(f'{RULES.cookie}=""')
    assert (seen, then) == ([401, 200, 200], [401, 200, 401])
    asked = [request.operation for name, request in world.fake.requests if name == "Visit" and request.operation]
    assert asked == ["console.leave", "console.leave_others"]


async def test_what_cannot_be_recorded_has_ended_all_the_same_and_says_so(console: Console, world: World) -> None:
    world.fake.replies["Visit"] = pb.VisitReply(allowed=False, reasons=["nobody-looks"])

    left = await console.post("/leave", {})

    assert left.status_code == 500
    assert left.text.startswith("it is done, but not on record: ")
    assert "nobody-looks" in left.text
    assert (await console.get("/mesh")).headers["location"] == "/enter"


def test_a_file_is_what_was_said_last(kept: Path) -> None:
    known = sessions_of(kept, 0)
    known.end(session("mine"), 200)
    known.end_others(session("other"), 201)

    assert json.loads(kept.read_bytes()) == {
        "everybody": -1,
        "ended": {"mine": 100 + tickets.SESSION_SECONDS},
        "cuts": {OWNER: {"until": 201, "kept": ["other"]}},
    }
