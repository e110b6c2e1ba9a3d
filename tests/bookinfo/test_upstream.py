"""Calls to other services: what goes along, and what is no answer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from bookinfo.shapes import Ratings
from bookinfo.upstream import MAX_ANSWER, Answer, Headers, Patience, Upstreams

from tests.bookinfo.conftest import Fake
from tests.bookinfo.upstream import Asked, Reply

Ask = Callable[..., Awaitable[Answer[Ratings]]]

GOOD = Reply.of({"id": 0, "ratings": {"Reviewer1": 5}})
ANSWER = Answer(200, Ratings(0, {"Reviewer1": 5}))


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """`await ask(address, patience, headers)` asks for the ratings of book 0."""
    opened: list[Upstreams] = []

    async def get(address: str, patience: Patience, headers: Headers | None = None) -> Answer[Ratings]:
        opened.append(Upstreams({"ratings": address}))
        return await opened[-1].get("ratings", 0, Ratings, headers or [], patience)

    yield get
    for upstreams in opened:
        await upstreams.close()


async def test_an_answer_has_the_shape_that_was_asked_for(ask: Ask, fake: Fake) -> None:
    upstream = await fake(GOOD)
    assert await ask(upstream.address, Patience(5.0), [(b"end-user", b"jason"), (b"user-agent", b"curl")]) == ANSWER
    assert upstream.asked == [
        Asked(
            "GET",
            "/ratings/0",
            {
                "host": upstream.address,
                "connection": "keep-alive",
                "end-user": "jason",
                "user-agent": "curl",
                "accept": "application/json",
                "accept-encoding": "identity",
            },
        )
    ]


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply(403, b"RBAC: access denied"), 403),
        (Reply(503), 503),
        (Reply(302), 500),
        (Reply(204), 500),
        (Reply(777), 500),
        (Reply(200, b""), 500),
        (Reply(200, b"<html>"), 500),
        (Reply(200, b"[" * 100_000), 500),
        (Reply(200, b"\xff"), 500),
        (Reply(200, b'{"id": 0, "ratings": {"Reviewer1": 6}}'), 500),
        (Reply(200, b'{"id": NaN, "ratings": {}}'), 500),
        (Reply(200, b'{"id": 0, "ratings": {}}' + b" " * MAX_ANSWER), 500),
        (Reply(200, GOOD.body, missing=1), 500),
    ],
)
async def test_what_makes_no_sense_is_no_answer(ask: Ask, fake: Fake, reply: Reply, status: int) -> None:
    upstream = await fake(reply)
    # one that promises more than it sends is waited for
    patience = Patience(0.5 if reply.missing else 30.0)
    assert await ask(upstream.address, patience) == Answer(status)


async def test_where_nobody_listens_there_is_no_answer(ask: Ask, nowhere: str) -> None:
    assert await ask(nowhere, Patience(5.0)) == Answer(500)


@pytest.mark.parametrize("address", ["", "a b", "host:port", "[::1", "x" * 70_000])
async def test_an_address_that_is_none_gives_no_answer(ask: Ask, address: str) -> None:
    assert await ask(address, Patience(0.5)) == Answer(500)


async def test_a_late_answer_is_no_answer(ask: Ask, fake: Fake) -> None:
    upstream = await fake(Reply.of({"id": 0, "ratings": {}}, delay=30.0))
    started = time.monotonic()
    assert await ask(upstream.address, Patience(0.1)) == Answer(500)
    assert 0.1 <= time.monotonic() - started < 10.0
    assert len(upstream.asked) == 1


async def test_every_attempt_has_its_own_time(ask: Ask, fake: Fake) -> None:
    upstream = await fake(Reply(delay=30.0), GOOD)
    assert await ask(upstream.address, Patience(0.3, attempts=2)) == ANSWER
    assert len(upstream.asked) == 2


async def test_attempts_end_with_the_last_status(ask: Ask, fake: Fake) -> None:
    upstream = await fake(Reply(503), Reply(404), GOOD)
    assert await ask(upstream.address, Patience(5.0, attempts=2)) == Answer(404)


async def test_a_good_answer_is_not_asked_for_again(ask: Ask, fake: Fake) -> None:
    upstream = await fake(GOOD)
    await ask(upstream.address, Patience(5.0, attempts=2))
    assert len(upstream.asked) == 1
