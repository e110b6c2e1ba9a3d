"""The well-known tasks of Bookinfo, with the files of examples/bookinfo/tasks, in a real mesh: what a reader sees."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import httpx
import pytest

from tests.e2e.conftest import RunningMesh, copy_of_bookinfo, down, up
from tests.e2e.terminal import wait_until
from tests.whole import put

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("tasks"), pytest.mark.timeout(120)]

NO_REVIEWS = "product reviews are currently unavailable"
NO_RATINGS = "Ratings service is currently unavailable"


class Shop:
    """The sample, up, with some of the task files in its mesh folder."""

    def __init__(self, mesh: RunningMesh) -> None:
        self.mesh = mesh
        self.gateway = mesh.gateway

    def apply(self, *tasks: str) -> None:
        """Hold these task files and no others; returns when every proxy has taken them."""
        given, file = self.mesh.directory / "tasks", self.mesh.directory / "mesh" / "tasks.yaml"
        # in one file, named only when whole: a folder half changed would be a change of its own
        wanted = "---\n".join((given / f"{name}.yaml").read_text() for name in ("subsets", *tasks))
        if file.exists() and file.read_text() == wanted:
            return
        before = self.mesh.status()["config"]
        put(file, wanted)
        wait_until(lambda: self._taken(before), 30, lambda: str(self.mesh.status()["refused"]))

    def _taken(self, before: str) -> bool:
        if self.mesh.status()["config"] == before:
            return False
        proxies = self.mesh.says("proxy", "status")["proxies"]
        return {kind["state"] for proxy in proxies for kind in proxy["types"]} == {"synced"}

    @contextmanager
    def reader(self, user: str = "") -> Iterator[httpx.Client]:
        """Someone at the page, signed in where a name is given."""
        with self.mesh.outside() as client:
            if user:
                assert client.post("/login", data={"username": user, "passwd": "any"}).status_code == 302
            yield client


@pytest.fixture(scope="module")
def shop(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = copy_of_bookinfo(tmp_path_factory.mktemp("tasks") / "bookinfo", root)
    try:
        yield Shop(up(directory))
    finally:
        down(directory)


def served_by(client: httpx.Client) -> str:
    """The instance of reviews that answered; asked again where a busy machine was too late to decide about one hop."""
    tries = (client.get("/api/v1/products/0/reviews") for _ in range(5))
    name: str = next(one for one in tries if one.status_code != 503).json()["podname"]
    return name


def timed(client: httpx.Client) -> tuple[str, float]:
    """The page, and how many seconds it took."""
    started = time.monotonic()
    page = client.get("/productpage")
    assert page.status_code == 200
    return page.text, time.monotonic() - started


def test_request_routing_goes_by_who_is_signed_in(shop: Shop) -> None:
    shop.apply("reviews-by-user")

    with shop.reader() as anyone, shop.reader("jason") as jason, shop.reader("jane") as jane:
        assert {served_by(anyone) for _ in range(10)} == {"reviews-v1"}
        assert {served_by(jason) for _ in range(10)} == {"reviews-v2"}
        assert {served_by(jane) for _ in range(10)} == {"reviews-v1"}
        assert "stars-" not in timed(anyone)[0]
        assert "stars-black" in timed(jason)[0]


def test_a_delay_of_seven_seconds_makes_the_page_give_up_after_six(shop: Shop) -> None:
    shop.apply("reviews-by-user", "ratings-delay")

    with shop.reader("jason") as jason, shop.reader() as anyone:
        page, took = timed(jason)
        assert NO_REVIEWS in page
        assert 5.9 < took < 7
        page, took = timed(anyone)
        assert NO_REVIEWS not in page
        assert took < 3


def test_a_delay_that_the_patience_of_reviews_bears_changes_nothing_but_the_time(shop: Shop) -> None:
    shop.apply("reviews-v3", "ratings-slow")

    with shop.reader() as anyone:
        page, took = timed(anyone)
        assert "stars-red" in page
        assert took > 2


def test_an_abort_is_an_error_at_once_for_who_it_is_meant(shop: Shop) -> None:
    shop.apply("reviews-by-user", "ratings-abort")

    with shop.reader("jason") as jason, shop.reader() as anyone:
        page, took = timed(jason)
        assert NO_RATINGS in page
        assert took < 2
        assert NO_RATINGS not in timed(anyone)[0]


def test_traffic_is_shifted_by_half_and_then_whole(shop: Shop) -> None:
    shop.apply("reviews-half-v3")
    with shop.reader() as anyone:
        served = [served_by(anyone) for _ in range(200)]
        # five standard deviations of a fair coin, tossed 200 times
        assert 65 < served.count("reviews-v3") < 135
        assert set(served) == {"reviews-v1", "reviews-v3"}

        shop.apply("reviews-v3")
        assert {served_by(anyone) for _ in range(20)} == {"reviews-v3"}


def test_a_timeout_of_half_a_second_is_a_page_after_one(shop: Shop) -> None:
    shop.apply("reviews-v2", "ratings-slow")
    with shop.reader() as anyone:
        page, took = timed(anyone)
        assert "stars-black" in page
        assert 2 < took < 4

        shop.apply("reviews-timeout", "ratings-slow")
        page, took = timed(anyone)
        assert NO_REVIEWS in page
        assert 0.99 < took < 2


def test_a_mirror_gets_a_copy_that_is_decided_too_and_nobody_waits_for(shop: Shop) -> None:
    shop.apply("reviews-mirror")
    with shop.reader() as anyone:
        before = copies(shop)
        assert {served_by(anyone) for _ in range(5)} == {"reviews-v1"}

    wait_until(lambda: copies(shop) == before + 5, 10, lambda: f"{copies(shop)} of {before + 5}")


def test_no_request_fails_while_routes_change(shop: Shop) -> None:
    shop.apply("reviews-v1")
    stop, failed, asked = Event(), [], Counter[str]()

    def ask() -> None:
        with shop.mesh.client("productpage-v1", patient=False) as page:
            while not stop.is_set():
                reply = page.get("http://reviews:9080/reviews/0")
                # 503 without a word is a busy machine that was too late to decide; a lost route or instance has words
                if reply.status_code == 200:
                    asked[reply.json()["podname"]] += 1
                elif reply.status_code != 503 or reply.text:
                    failed.append((reply.status_code, reply.text))

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            for task in ("reviews-v3", "reviews-half-v3", "reviews-mirror", "reviews-v2"):
                shop.apply(task)
        finally:
            stop.set()
        for one in asking:
            one.result()

    assert failed == []
    assert set(asked) == {"reviews-v1", "reviews-v2", "reviews-v3"}


def copies(shop: Shop) -> int:
    """How many requests the mirror let pass."""
    hosts = [one["context"]["request"]["host"] for one in shop.mesh.records("reviews-v3")]
    return sum(host.startswith("reviews-shadow") for host in hosts)
