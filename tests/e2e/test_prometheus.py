"""A real Prometheus reads the mesh: the shipped settings, rules and dashboard find what they ask for."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import RunningMesh, copy_of_bookinfo, down, up
from tests.e2e.istio_dashboards import asked
from tests.e2e.terminal import wait_until
from tests.e2e.wire import Echo, tunnelled
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.needs("prometheus"), pytest.mark.timeout(240)]

SHIPPED = Path(__file__).parents[2] / "examples" / "observability"
ECHO_POLICY = """\
@id("echo-from-reviews")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/bookinfo-reviews", action == Action::"connect",
  resource == Service::"echo.default");
"""
# what needs two looks at what changed meanwhile, or something that did not happen here
EMPTY_HERE = (
    "policyd_xds_rejections_total",
    "policyd_journal_failures_total",
    "series_dropped",
    "proxy_refused",
    "credential_expiry",
    "5..",
)


@pytest.fixture(scope="module")
def mesh(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """Bookinfo, and a service that speaks TCP."""
    directory = copy_of_bookinfo(tmp_path_factory.mktemp("prometheus") / "bookinfo", root)
    (directory / "checks.yaml").unlink()
    echo = Echo(free_port())
    workloads = directory / "workloads.yaml"
    one = f"  echo-v1: {{service: echo, port: 7000, protocol: tcp, appPort: {echo.port}}}\n"
    workloads.write_text(workloads.read_text().replace("gateways:\n", f"{one}gateways:\n"))
    (directory / "policies" / "echo.cedar").write_text(ECHO_POLICY)
    try:
        up_ = up(directory)
        with echo.served():
            yield up_
    finally:
        down(directory)


@pytest.fixture(scope="module")
def traffic(mesh: RunningMesh) -> Iterator[None]:
    """Requests that are allowed and some that are denied, a few a second."""
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=mesh.gateway, trust_env=False, timeout=20) as edge, mesh.client("reviews-v1") as in_:
            while not stop.wait(0.2):
                edge.get("/productpage")
                in_.get("http://details:9080/details/0")
                tunnelled(mesh, "reviews-v1", "echo:7000")

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.fixture(scope="module")
def prometheus(mesh: RunningMesh, traffic: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Prometheus with the shipped settings, of which only the addresses are others."""
    folder = tmp_path_factory.mktemp("server")
    agent, server = httpx.URL(mesh.metrics).netloc.decode(), mesh.status()["http_address"]
    settings = (SHIPPED / "prometheus.yml").read_text()
    settings = settings.replace("127.0.0.1:15020", agent).replace("127.0.0.1:15014", server).replace("5s", "1s")
    (folder / "prometheus.yml").write_text(settings)
    (folder / "rules.yml").write_text((SHIPPED / "rules.yml").read_text())
    address = f"127.0.0.1:{free_port()}"
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *options, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}/api/v1", trust_env=False, timeout=20) as client:
            wait_until(lambda: scraped(client) == {"mesh", "policyd"}, 60)
            # a rate needs several looks
            wait_until(lambda: rows(client, "count_over_time(istio_requests_total[1m]) >= 4") != [], 60)
            yield client
    finally:
        process.terminate()
        process.wait(20)


def scraped(client: httpx.Client) -> set[str]:
    """The jobs whose targets answered."""
    try:
        found = client.get("/targets").json()["data"]["activeTargets"]
    except (httpx.HTTPError, ValueError):
        return set()
    return {one["labels"]["job"] for one in found if one["health"] == "up"}


def rows(client: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """What an expression has now; it must be one."""
    answer = client.get("/query", params={"query": expression}).json()
    assert answer["status"] == "success", (expression, answer)
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def shown(client: httpx.Client, expression: str) -> list[dict[str, str]]:
    """The labels of each row that has a number to show."""
    return [row["metric"] for row in rows(client, expression) if row["value"][1] != "NaN"]


def expressions() -> list[str]:
    dashboard = json.loads((SHIPPED / "grafana" / "mesh.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("expression", expressions())
def test_every_panel_of_the_dashboard_shows_something(prometheus: httpx.Client, expression: str) -> None:
    asked = expression.replace("$service", ".*")

    if any(name in asked for name in EMPTY_HERE):
        rows(prometheus, asked)
    else:
        wait_until(lambda: rows(prometheus, asked) != [], 20)


def test_the_rules_hold_and_nothing_is_alarmed_about_a_mesh_that_is_well(prometheus: httpx.Client) -> None:
    def groups() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = prometheus.get("/rules").json()["data"]["groups"]
        return found

    wait_until(lambda: all(rule["health"] == "ok" for group in groups() for rule in group["rules"]), 30)

    rules = [rule for group in groups() for rule in group["rules"]]
    assert len(rules) == 18
    assert [rule["name"] for rule in rules if rule.get("state", "inactive") != "inactive"] == []
    wait_until(lambda: rows(prometheus, "mesh:denied:rate1m > 0") != [], 20)
    [denied] = [row["metric"] for row in rows(prometheus, "mesh:denied:rate1m > 0")]
    assert denied == {
        "__name__": "mesh:denied:rate1m",
        "source_principal": "spiffe://cluster.local/ns/default/sa/bookinfo-reviews",
        "destination_service": "details.default.svc.cluster.local",
        "reason": "not_permitted",
    }


def test_what_istio_s_dashboards_ask_has_answers(prometheus: httpx.Client) -> None:
    left = asked()

    def answered() -> bool:
        left[:] = [one for one in left if one.row not in shown(prometheus, one.expression)]
        return not left

    try:
        wait_until(answered, 60)
    finally:
        assert left == []
