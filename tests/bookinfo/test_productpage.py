"""Productpage: the JSON interface, log-in, the counter; with fakes of the services it calls."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import pytest
from bookinfo.productpage import back, build
from bookinfo.settings import Settings
from bookinfo.shop import PATIENCE
from bookinfo.upstream import Patience

from tests.bookinfo.conftest import Fake, Open
from tests.bookinfo.test_details import DETAILS
from tests.bookinfo.upstream import FakeUpstream, Reply

REVIEWS = {
    "id": "0",
    "podname": "reviews-v3",
    "clustername": "null",
    "reviews": [
        {"reviewer": "Reviewer1", "text": "Good.", "rating": {"stars": 5, "color": "red"}},
        {"reviewer": "Reviewer2", "text": "Fair.", "rating": {"error": "Ratings service is currently unavailable"}},
        {"reviewer": "Reviewer3", "text": "Bad."},
    ],
}
RATINGS = {"id": 0, "ratings": {"Reviewer1": 5}}
LONG = {"details": Patience(30.0), "reviews": Patience(30.0, attempts=2), "ratings": Patience(30.0)}
SHORT = {"details": Patience(0.3), "reviews": Patience(0.3, attempts=2), "ratings": Patience(0.3)}


async def shop(
    client_of: Open, upstream: FakeUpstream, patience: Mapping[str, Patience] = PATIENCE
) -> httpx.AsyncClient:
    """Return a client of a productpage whose services are all the same fake."""
    addresses = dict.fromkeys(("details", "reviews", "ratings"), upstream.address)
    return await client_of(build(Settings(addresses=addresses), patience))


def test_it_waits_as_long_as_mesh_users_expect() -> None:
    assert dict(PATIENCE) == {
        "details": Patience(3.0, attempts=1),
        "reviews": Patience(3.0, attempts=2),
        "ratings": Patience(3.0, attempts=1),
    }


async def test_the_catalogue_has_one_book(client_of: Open, fake: Fake) -> None:
    client = await shop(client_of, await fake(Reply()))
    [book] = (await client.get("/api/v1/products")).json()
    assert set(book) == {"id", "title", "descriptionHtml"}
    assert (book["id"], book["title"]) == (0, "The Comedy of Errors")
    assert book["descriptionHtml"].startswith('<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors"')


@pytest.mark.parametrize(
    ("path", "target", "answer"),
    [
        ("/api/v1/products/0", "/details/0", DETAILS),
        ("/api/v1/products/0/reviews", "/reviews/0", REVIEWS),
        ("/api/v1/products/7/ratings", "/ratings/7", RATINGS),
    ],
)
async def test_the_interface_relays_what_a_service_says(
    client_of: Open, fake: Fake, path: str, target: str, answer: object
) -> None:
    upstream = await fake(Reply.of(answer))
    client = await shop(client_of, upstream)
    relayed = await client.get(path)
    assert (relayed.status_code, relayed.json()) == (200, answer)
    assert [asked.target for asked in upstream.asked] == [target]


@pytest.mark.parametrize(
    ("path", "what", "attempts"),
    [
        ("/api/v1/products/0", "details", 1),
        ("/api/v1/products/0/reviews", "reviews", 2),
        ("/api/v1/products/0/ratings", "ratings", 1),
    ],
)
@pytest.mark.parametrize(("reply", "status"), [(Reply(403), 403), (Reply(delay=30.0), 500), (Reply(200, b"{}"), 500)])
async def test_the_interface_says_sorry(
    client_of: Open, fake: Fake, path: str, what: str, attempts: int, reply: Reply, status: int
) -> None:
    upstream = await fake(reply)
    client = await shop(client_of, upstream, SHORT if reply.delay else LONG)
    answer = await client.get(path)
    sorry = {"error": f"Sorry, product {what} are currently unavailable for this book."}
    assert (answer.status_code, answer.json(), len(upstream.asked)) == (status, sorry, attempts)


@pytest.mark.parametrize("path", ["x", "-1", "1000000000", "x/reviews", "²/ratings"])
async def test_what_is_no_number_is_a_bad_request_that_asks_nobody(client_of: Open, fake: Fake, path: str) -> None:
    upstream = await fake(Reply())
    client = await shop(client_of, upstream)
    answer = await client.get(f"/api/v1/products/{path}")
    assert (answer.status_code, answer.json()) == (400, {"error": "please provide a numeric book id"})
    assert upstream.asked == []


@pytest.mark.parametrize("path", ["/api/v1/products/0/sales", "/api/v1/products/0/reviews/1", "/nothing"])
async def test_what_is_not_there_is_not_found(client_of: Open, fake: Fake, path: str) -> None:
    client = await shop(client_of, await fake(Reply()))
    assert (await client.get(path)).status_code == 404


async def test_results_are_counted_by_service_and_status(client_of: Open, fake: Fake) -> None:
    client = await shop(client_of, await fake(Reply(503)))
    for path in ("/api/v1/products/0", "/api/v1/products/0", "/api/v1/products/0/reviews"):
        await client.get(path)
    metrics = await client.get("/metrics")
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert metrics.text == (
        "# HELP request_result_total Results of calls to other services.\n"
        "# TYPE request_result_total counter\n"
        'request_result_total{destination_app="details",response_code="503"} 2\n'
        'request_result_total{destination_app="reviews",response_code="503"} 1\n'
    )


async def test_who_signs_in_is_the_end_user_of_every_call(client_of: Open, fake: Fake) -> None:
    upstream = await fake(Reply.of(DETAILS))
    client = await shop(client_of, upstream)
    answer = await client.post("/login", data={"username": "jason", "passwd": "anything"})
    name, *attributes = answer.headers["set-cookie"].split("; ")
    assert (answer.status_code, answer.headers["location"]) == (302, "/productpage")
    assert name.startswith("session=")
    assert attributes == ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=lax"]
    await client.get("/api/v1/products/0", headers={"end-user": "admin", "x-request-id": "r"})
    assert (upstream.asked[0].headers["end-user"], upstream.asked[0].headers["x-request-id"]) == ("jason", "r")
    await client.get("/logout")
    await client.get("/api/v1/products/0")
    assert "end-user" not in upstream.asked[1].headers


async def test_nobody_is_an_end_user_by_saying_so(client_of: Open, fake: Fake) -> None:
    upstream = await fake(Reply.of(DETAILS))
    client = await shop(client_of, upstream)
    await client.get("/api/v1/products/0", headers={"end-user": "jason", "cookie": "session=amFzb24.x"})
    assert "end-user" not in upstream.asked[0].headers


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"passwd=x",
        b"username=",
        b"username=a%0d%0aset-cookie:%20x",
        b"username=j%C3%BCrgen",
        b"username=\xff",
        b"username=" + b"a" * 65,
        b"&".join([b"username=a"] * 11),
    ],
)
async def test_what_is_no_name_does_not_sign_in(client_of: Open, fake: Fake, body: bytes) -> None:
    client = await shop(client_of, await fake(Reply()))
    answer = await client.post("/login", content=body)
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "a user name is 1 to 64 printable ASCII characters"},
    )
    assert "set-cookie" not in answer.headers


async def test_a_long_form_is_refused(client_of: Open, fake: Fake) -> None:
    client = await shop(client_of, await fake(Reply()))
    assert (await client.post("/login", content=b"username=" + b"a" * 20_000)).status_code == 413


@pytest.mark.parametrize(
    ("referer", "location"),
    [
        ("http://shop/", "/"),
        ("http://shop/index.html", "/index.html"),
        ("http://shop/productpage?u=test", "/productpage"),
        ("", "/productpage"),
        ("http://elsewhere.example/", "/"),
        ("http://elsewhere.example/evil", "/productpage"),
        ("//elsewhere.example//elsewhere.example", "/productpage"),
        ("http://shop//elsewhere.example", "/productpage"),
        ("javascript:alert(1)", "/productpage"),
        ("http://[", "/productpage"),
        ("/logout", "/productpage"),
    ],
)
def test_after_signing_in_one_is_on_a_page_of_the_shop(referer: str, location: str) -> None:
    assert back(referer) == location
