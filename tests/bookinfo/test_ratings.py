"""Ratings, asked over HTTP."""

from __future__ import annotations

import json

import pytest
from bookinfo.ratings import MAX_BOOKS, build
from bookinfo.settings import Settings

from tests.bookinfo.conftest import Open

BAD_RATINGS = "please provide ratings as JSON: stars from 0 to 5 by reviewer"


async def test_two_reviewers_rated_every_book(client_of: Open) -> None:
    client = await client_of(build(Settings()))
    answer = await client.get("/ratings/3")
    assert (answer.status_code, answer.json()) == (200, {"id": 3, "ratings": {"Reviewer1": 5, "Reviewer2": 4}})


async def test_posted_ratings_replace_those_of_that_book(client_of: Open) -> None:
    client = await client_of(build(Settings()))
    posted = await client.post("/ratings/0", json={"Reviewer1": 1})
    assert (posted.status_code, posted.json()) == (200, {"id": 0, "ratings": {"Reviewer1": 1}})
    assert (await client.get("/ratings/0")).json() == {"id": 0, "ratings": {"Reviewer1": 1}}
    assert (await client.get("/ratings/1")).json() == {"id": 1, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"stars",
        b"[]",
        b'{"Reviewer1": 6}',
        b'{"Reviewer1": -1}',
        b'{"Reviewer1": 4.5}',
        b'{"Reviewer1": "5"}',
        b'{"Reviewer1": true}',
        b'{"Reviewer1": null}',
        json.dumps({"r" * 65: 5}).encode(),
        json.dumps({str(number): 5 for number in range(101)}).encode(),
        b"[" * 10_000,
        b'{"\xff": 5}',
    ],
)
async def test_what_are_no_ratings_is_refused(client_of: Open, body: bytes) -> None:
    client = await client_of(build(Settings()))
    answer = await client.post("/ratings/0", content=body)
    assert (answer.status_code, answer.json()) == (400, {"error": BAD_RATINGS})


async def test_a_long_body_is_refused_unread(client_of: Open) -> None:
    client = await client_of(build(Settings()))
    assert (await client.post("/ratings/0", content=b" " * 20_000)).status_code == 413


async def test_memory_is_bounded(client_of: Open) -> None:
    client = await client_of(build(Settings()))
    for book in range(MAX_BOOKS):
        await client.post(f"/ratings/{book}", json={})
    assert (await client.post(f"/ratings/{MAX_BOOKS}", json={})).status_code == 507
    assert (await client.post("/ratings/0", json={"Reviewer1": 2})).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_no_number_is_a_bad_request(client_of: Open, method: str) -> None:
    client = await client_of(build(Settings()))
    answer = await client.request(method, "/ratings/x", content=b"{}")
    assert (answer.status_code, answer.json()) == (400, {"error": "please provide a numeric book id"})


async def test_the_faulty_version_refuses_half_of_the_requests(client_of: Open) -> None:
    chances = iter([0.2, 0.7])
    client = await client_of(build(Settings(version="v-faulty"), chance=lambda: next(chances)))
    assert [(await client.get("/ratings/0")).status_code for _ in range(2)] == [503, 200]


async def test_the_unhealthy_version_says_so_of_itself(client_of: Open) -> None:
    now = [0.0]
    client = await client_of(build(Settings(version="v-unhealthy"), clock=lambda: now[0]))
    assert (await client.get("/health")).json() == {"status": "Ratings is healthy"}
    now[0] = 900.0
    answer = await client.get("/health")
    assert (answer.status_code, answer.json()) == (500, {"status": "Ratings is not healthy"})
