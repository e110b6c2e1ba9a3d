"""Bookinfo's tasks that need DestinationRules: request routing by subsets, circuit breaking, the nearest locality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import RunningMesh, copy_of_bookinfo, down, up
from tests.e2e.terminal import wait_until
from tests.whole import put

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("subsets")]

SUBSETS = {
    "productpage": ["v1"],
    "reviews": ["v1", "v2", "v3"],
    "ratings": ["v1", "v2", "v2-mysql", "v2-mysql-vm"],
    "details": ["v1", "v2"],
}


def destination_rule(host: str, policy: str = "") -> str:
    """The rule of the sample that users know: a subset a version, those too of which nothing runs."""
    subsets = "".join(f"    - {{name: {name}, labels: {{version: {name}}}}}\n" for name in SUBSETS[host])
    return (
        f"---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {host}}}\n"
        f"spec:\n  host: {host}\n{policy}  subsets:\n{subsets}"
    )


def virtual_service(host: str, http: str) -> str:
    return (
        f"---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}}}\n"
        f"spec:\n  hosts: [{host}]\n  http:\n{http}"
    )


def to(host: str, subset: str) -> str:
    return f"    - route: [{{destination: {{host: {host}, subset: {subset}}}}}]\n"


ALL_V1 = "".join(virtual_service(host, to(host, "v1")) for host in SUBSETS)
JASON = (
    "    - match: [{headers: {end-user: {exact: jason}}}]\n      route: [{destination: {host: reviews, subset: v2}}]\n"
)


@pytest.fixture(scope="module")
def shop(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """Bookinfo at three places, with the rules that users know, up for this module."""
    directory = copy_of_bookinfo(tmp_path_factory.mktemp("shop") / "bookinfo", root)
    file = directory / "workloads.yaml"
    text = file.read_text()
    for version, place in (("v1", "eu/eu-1"), ("v2", "eu/eu-2"), ("v3", "us/us-1")):
        text = text.replace(f"reviews-{version}:     {{", f"reviews-{version}:     {{locality: {place}, ")
    text = text.replace("productpage-v1: {", "productpage-v1: {locality: us/us-1, ")
    file.write_text(text)
    write(directory, "destination-rule-all", "".join(map(destination_rule, SUBSETS)))
    try:
        yield up(directory)
    finally:
        down(directory)


def write(directory: Path, name: str, text: str) -> None:
    """Put a file into the mesh folder, as a whole."""
    put(directory / "mesh" / f"{name}.yaml", text)


def served_by(mesh: RunningMesh, user: str = "") -> str:
    """Which reviews answer the product page's own question."""
    with httpx.Client() as client:
        if user:
            client.post(f"{mesh.gateway}/login", data={"username": user, "passwd": "x"})
        reply = client.get(f"{mesh.gateway}/api/v1/products/0/reviews")
    return str(reply.json().get("podname", reply.json())) if reply.status_code == 200 else str(reply.status_code)


def seen(mesh: RunningMesh, user: str = "", times: int = 9) -> set[str]:
    return {served_by(mesh, user) for _ in range(times)}


def test_rules_without_routes_change_nothing(shop: RunningMesh) -> None:
    found: set[str] = set()

    def all_versions() -> bool:
        found.update(seen(shop))
        return found == {"reviews-v1", "reviews-v2", "reviews-v3"}

    wait_until(all_versions, 20, lambda: f"only {found}")


def test_all_go_to_v1_and_jason_to_v2(shop: RunningMesh) -> None:
    write(shop.directory, "routes", ALL_V1)
    wait_until(lambda: seen(shop) == {"reviews-v1"}, 20, lambda: str(seen(shop)))
    page = shop.get("/productpage").text
    assert "Error fetching" not in page

    write(shop.directory, "routes", ALL_V1.replace(to("reviews", "v1"), JASON + to("reviews", "v1")))
    wait_until(lambda: seen(shop, "jason", 3) == {"reviews-v2"}, 20, lambda: str(seen(shop, "jason", 3)))
    assert seen(shop) == {"reviews-v1"}
    assert seen(shop, "ann", 3) == {"reviews-v1"}


def test_a_subset_of_which_nothing_runs_is_503(shop: RunningMesh) -> None:
    write(shop.directory, "routes", virtual_service("details", to("details", "v2")))

    def status() -> int:
        with shop.client("productpage-v1") as page:
            return page.get("http://details:9080/details/0").status_code

    wait_until(lambda: status() == 503, 20, lambda: str(status()))


def test_a_route_to_a_subset_that_no_rule_has_is_refused_and_the_old_one_stays(shop: RunningMesh) -> None:
    write(shop.directory, "routes", virtual_service("reviews", to("reviews", "v3")))
    wait_until(lambda: seen(shop) == {"reviews-v3"}, 20, lambda: str(seen(shop)))

    write(shop.directory, "routes", virtual_service("reviews", to("reviews", "v9")))
    wait_until(lambda: "v9" in str(shop.status()["refused"]), 20, lambda: str(shop.status()["refused"]))
    assert seen(shop) == {"reviews-v3"}


def test_the_circuit_breaks_where_too_many_call_at_once(shop: RunningMesh) -> None:
    policy = (
        "  trafficPolicy:\n    connectionPool:\n      tcp: {maxConnections: 1}\n"
        "      http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}\n"
    )
    write(shop.directory, "routes", virtual_service("reviews", to("reviews", "v1")))
    narrow = "".join(destination_rule(host, policy if host == "reviews" else "") for host in SUBSETS)
    write(shop.directory, "destination-rule-all", narrow)

    def statuses() -> Counter[int]:
        with shop.client("productpage-v1") as page, ThreadPoolExecutor(16) as pool:
            replies = pool.map(lambda _: page.get("http://reviews:9080/reviews/0"), range(48))
            return Counter(503 if "x-envoy-overloaded" in reply.headers else reply.status_code for reply in replies)

    wait_until(lambda: statuses()[503] > 0, 20, lambda: str(statuses()))
    assert set(statuses()) <= {200, 503}


def test_the_nearest_reviews_are_asked(shop: RunningMesh) -> None:
    policy = "  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 1m}}\n"
    (shop.directory / "mesh" / "routes.yaml").unlink()
    near = "".join(destination_rule(host, policy if host == "reviews" else "") for host in SUBSETS)
    write(shop.directory, "destination-rule-all", near)

    wait_until(lambda: seen(shop) == {"reviews-v3"}, 20, lambda: str(seen(shop)))
