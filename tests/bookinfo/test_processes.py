"""The four services as `policyd up` runs them: real processes on loopback."""

from __future__ import annotations

import asyncio
import base64
import signal
import subprocess
import sys
import time

import pytest

from tests.bookinfo.conftest import EXAMPLE, Fake, Process, Start
from tests.bookinfo.test_details import DETAILS
from tests.bookinfo.test_reviews import RATINGS
from tests.bookinfo.upstream import Reply
from tests.ports import free_port

HEALTH = {
    "productpage": "Product page is healthy",
    "details": '{"status":"Details is healthy"}',
    "reviews": '{"status":"Reviews is healthy"}',
    "ratings": '{"status":"Ratings is healthy"}',
}


def where(**processes: Process) -> dict[str, str]:
    """Return the environment that says where services are."""
    environment = {}
    for service, process in processes.items():
        environment[f"{service.upper()}_HOSTNAME"] = "127.0.0.1"
        environment[f"{service.upper()}_SERVICE_PORT"] = str(process.client.base_url.port)
    return environment


def end(process: Process, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    """End a process; its exit code and all that it ever printed."""
    process.popen.send_signal(number)
    return process.popen.wait(10), process.log.read_text()


async def test_the_whole_shop_works(start: Start) -> None:
    details, ratings = await start("details"), await start("ratings")
    reviews = await start("reviews", STAR_COLOR="red", POLICYD_INSTANCE="reviews-v3", **where(ratings=ratings))
    shop = await start("productpage", **where(details=details, reviews=reviews, ratings=ratings))
    page = await shop.client.get("/productpage")
    assert page.status_code == 200
    assert "Reviews served by: <code>reviews-v3</code>" in page.text
    assert page.text.count('<svg class="star filled"') == 9
    assert page.text.count("stars-red") == 2
    assert '<td data-label="ISBN-10">1234567890</td>' in page.text
    assert (await shop.client.get("/api/v1/products/0/ratings")).json() == {
        "id": 0,
        "ratings": {"Reviewer1": 5, "Reviewer2": 4},
    }
    assert [end(process) for process in start.processes] == [(0, "")] * 4


@pytest.mark.parametrize("service", list(HEALTH))
async def test_a_service_says_that_it_is_healthy_and_ends_when_told(start: Start, service: str) -> None:
    process = await start(service)
    assert (await process.client.get("/health")).text == HEALTH[service]
    started = time.monotonic()
    assert end(process, signal.SIGINT) == (0, "")
    assert time.monotonic() - started < 5.0  # half a second; the machine may be busy


async def test_calls_go_through_the_proxy_of_the_environment_with_its_credentials(start: Start, fake: Fake) -> None:
    proxy = await fake(RATINGS)
    reviews = await start(
        "reviews",
        STAR_COLOR="black",
        http_proxy=f"http://reviews-v2:s%2Fecret@{proxy.address}",
        NO_PROXY="127.0.0.1,localhost",
    )
    answer = await reviews.client.get("/reviews/0", headers={"x-request-id": "r"})
    assert [review["rating"]["stars"] for review in answer.json()["reviews"]] == [5, 4]
    [asked] = proxy.asked
    assert (asked.method, asked.target, asked.headers["host"]) == (
        "GET",
        "http://ratings:9080/ratings/0",
        "ratings:9080",
    )
    assert asked.headers["proxy-authorization"] == "Basic " + base64.b64encode(b"reviews-v2:s/ecret").decode()
    assert asked.headers["x-request-id"] == "r"


async def test_the_upper_case_variable_counts_too(start: Start, fake: Fake) -> None:
    proxy = await fake(Reply.of(DETAILS))
    shop = await start("productpage", HTTP_PROXY=f"http://productpage-v1:secret@{proxy.address}")
    assert (await shop.client.get("/api/v1/products/0")).json() == DETAILS
    assert [asked.target for asked in proxy.asked] == ["http://details:9080/details/0"]


async def test_a_request_under_way_does_not_hold_up_the_end(start: Start, fake: Fake) -> None:
    ratings = await fake(Reply(delay=30.0))
    host, port = ratings.address.split(":")
    reviews = await start("reviews", STAR_COLOR="black", RATINGS_HOSTNAME=host, RATINGS_SERVICE_PORT=port)
    waiting = asyncio.create_task(reviews.client.get("/reviews/0", timeout=20.0))
    while not ratings.asked:
        await asyncio.sleep(0.01)
    started = time.monotonic()
    assert await asyncio.to_thread(end, reviews) == (0, "")
    assert time.monotonic() - started < 5.0  # a second; the machine may be busy
    assert (await waiting).status_code == 500


async def test_what_is_no_http_or_too_much_of_it_does_no_harm(start: Start) -> None:
    details = await start("details")
    reader, writer = await asyncio.open_connection("127.0.0.1", details.client.base_url.port)
    writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 100_000)  # a head without an end
    assert (await asyncio.wait_for(reader.readline(), 20)).split()[1] == b"400"
    writer.close()
    assert (await details.client.get("/details/0")).json() == DETAILS


def test_a_bad_environment_is_said_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bookinfo.details"], cwd=EXAMPLE, env={"PORT": "x"}, capture_output=True, text=True
    )
    message = "bookinfo: PORT is `x`, which is no port; give a number from 1 to 65535\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


async def test_a_taken_port_is_said_and_ends_the_service(start: Start) -> None:
    details = await start("details")
    done = subprocess.run(
        [sys.executable, "-m", "bookinfo.details"],
        cwd=EXAMPLE,
        env={"PORT": str(details.client.base_url.port)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "address already in use" in done.stderr


def test_a_service_listens_on_loopback_only() -> None:
    from bookinfo.details import build
    from bookinfo.settings import Settings
    from bookinfo.web import server

    assert server(build(Settings()), free_port()).config.host == "127.0.0.1"
