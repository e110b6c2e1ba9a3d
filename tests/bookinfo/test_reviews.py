"""Reviews in its three versions, with a fake of ratings."""

from __future__ import annotations

from typing import Any

import pytest
from bookinfo.reviews import TEXTS, build
from bookinfo.settings import Settings
from bookinfo.stars import patience_for
from bookinfo.upstream import PROPAGATED, Patience

from tests.bookinfo.conftest import Fake, Open
from tests.bookinfo.upstream import Reply

RATINGS = Reply.of({"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}})
UNAVAILABLE = {"error": "Ratings service is currently unavailable"}


def settings(address: str, color: str = "black") -> Settings:
    return Settings(instance="reviews-v2", ratings_enabled=True, star_color=color, addresses={"ratings": address})


def reviews(*ratings: dict[str, Any]) -> dict[str, Any]:
    """Return what reviews answers for book 0 with these ratings, or with none."""
    written: list[dict[str, Any]] = [{"reviewer": name, "text": text} for name, text in TEXTS.items()]
    if ratings:
        written = [{**review, "rating": rating} for review, rating in zip(written, ratings, strict=True)]
    return {"id": "0", "podname": "reviews-v2", "clustername": "null", "reviews": written}


async def test_v1_has_no_ratings(client_of: Open) -> None:
    client = await client_of(build(Settings(instance="reviews-v2")))
    answer = await client.get("/reviews/0")
    assert (answer.status_code, answer.json()) == (200, reviews())


@pytest.mark.parametrize("color", ["black", "red"])
async def test_stars_have_the_colour_of_the_version(client_of: Open, fake: Fake, color: str) -> None:
    ratings = await fake(RATINGS)
    client = await client_of(build(settings(ratings.address, color)))
    answer = await client.get("/reviews/0")
    assert (answer.status_code, answer.json()) == (
        200,
        reviews({"stars": 5, "color": color}, {"stars": 4, "color": color}),
    )


async def test_no_stars_at_all_are_stars_too(client_of: Open, fake: Fake) -> None:
    ratings = await fake(Reply.of({"id": 0, "ratings": {"Reviewer1": 0}}))
    client = await client_of(build(settings(ratings.address)))
    assert (await client.get("/reviews/0")).json() == reviews({"stars": 0, "color": "black"}, UNAVAILABLE)


@pytest.mark.parametrize(
    "reply", [Reply(500), Reply(403), Reply(200, b"?"), Reply.of({"id": 0, "ratings": {}}), Reply(delay=30.0)]
)
async def test_without_ratings_there_are_still_reviews(client_of: Open, fake: Fake, reply: Reply) -> None:
    ratings = await fake(reply)
    client = await client_of(build(settings(ratings.address), Patience(0.3)))
    answer = await client.get("/reviews/0")
    assert (answer.status_code, answer.json()) == (200, reviews(UNAVAILABLE, UNAVAILABLE))
    assert len(ratings.asked) == 1


@pytest.mark.parametrize(("color", "seconds"), [("black", 10.0), ("red", 2.5), ("blue", 2.5)])
def test_only_black_stars_are_patient(color: str, seconds: float) -> None:
    assert patience_for(color) == Patience(seconds, attempts=1)


async def test_headers_of_the_trace_and_of_the_user_go_along_and_no_others(client_of: Open, fake: Fake) -> None:
    ratings = await fake(RATINGS)
    client = await client_of(build(settings(ratings.address)))
    sent = {name.decode(): f"value of {name.decode()}" for name in PROPAGATED}
    await client.get("/reviews/7", headers={**sent, "x-forwarded-for": "1.2.3.4", "x-other": "no"})
    asked = ratings.asked[0]
    of_its_own = {"host", "connection", "accept", "accept-encoding"}
    assert asked.target == "/ratings/7"
    assert {name: value for name, value in asked.headers.items() if name not in of_its_own} == sent


def test_the_propagated_headers_are_those_that_mesh_users_rely_on() -> None:
    assert {name.decode() for name in PROPAGATED} == {
        *("x-request-id", "x-ot-span-context", "traceparent", "tracestate", "x-cloud-trace-context", "grpc-trace-bin"),
        *("x-datadog-trace-id", "x-datadog-parent-id", "x-datadog-sampling-priority", "sw8"),
        *("x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"),
        *("end-user", "user-agent", "cookie", "authorization", "jwt"),
    }


async def test_what_is_no_number_is_a_bad_request_that_asks_nobody(client_of: Open, fake: Fake) -> None:
    ratings = await fake(RATINGS)
    client = await client_of(build(settings(ratings.address)))
    answer = await client.get("/reviews/x")
    assert (answer.status_code, answer.json()) == (400, {"error": "please provide a numeric book id"})
    assert ratings.asked == []
