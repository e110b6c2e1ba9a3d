"""What DestinationRules say, seen through real Envoys: one mesh in which each rule has a name of its own for `api`."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.terminal import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("destinations")]

WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80, command: [python, echo.py], health: /health, locality: eu/eu-1}
  api-v1: {service: api, port: 80, command: [python, echo.py], health: /health, locality: eu/eu-1,
           labels: {version: v1}}
  api-v2: {service: api, port: 80, command: [python, echo.py], health: /health, locality: eu/eu-2,
           labels: {version: v2}}
  api-v3: {service: api, port: 80, command: [python, echo.py], health: /health, locality: us/us-1,
           labels: {version: v3}}
"""
POLICY = """\
@id("web-reads-api")
permit (principal is Workload, action == Action::"GET", resource == Service::"api.default")
unless { context.request.path == "/be" };
"""
RULES = {
    "by-header": "loadBalancer: {consistentHash: {httpHeaderName: x-user}}",
    "by-query": "loadBalancer: {consistentHash: {httpQueryParameterName: user, maglev: {}}}",
    "by-cookie": "loadBalancer: {consistentHash: {httpCookie: {name: who, path: /, ttl: 60s}}}",
    "by-source": "loadBalancer: {consistentHash: {useSourceIp: true}}",
    "in-turn": "loadBalancer: {simple: ROUND_ROBIN}",
    "at-random": "loadBalancer: {simple: RANDOM}",
    "as-it-comes": "loadBalancer: {simple: PASSTHROUGH}",
    "by-load": "loadBalancer: {simple: LEAST_REQUEST}",
    "by-ring": "loadBalancer: {consistentHash: {httpHeaderName: x-user, ringHash: {minimumRingSize: 64}}}",
    "preferred": "outlierDetection: {consecutive5xxErrors: 1, interval: 1s, maxEjectionPercent: 100},"
    " loadBalancer: {localityLbSetting: {failoverPriority: [topology.kubernetes.io/region]}}",
    "narrow": "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}",
    "one-each": "connectionPool: {http: {maxRequestsPerConnection: 1}}",
    "upgraded": "connectionPool: {http: {h2UpgradePolicy: UPGRADE}}",
    "as-client": "connectionPool: {http: {useClientProtocol: true}}",
    "ejecting": "loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: false}},"
    " outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 3m, maxEjectionPercent: 100}",
    "nearest": "outlierDetection: {consecutive5xxErrors: 1, interval: 1s, maxEjectionPercent: 100}",
    "shared": "loadBalancer: {localityLbSetting: {distribute: [{from: eu/*, to: {eu/*: 80, us/*: 20}}]}}",
    "in-clear": "tls: {mode: DISABLE}",
    "warm": "loadBalancer: {warmup: {duration: 30s}}",
    "budgeted": "retryBudget: {percent: 0, minRetryConcurrency: 0}",
    "unbudgeted": "loadBalancer: {simple: ROUND_ROBIN}",
    "gateways": "loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: false}}, outlierDetection:"
    " {consecutiveGatewayErrors: 1, consecutive5xxErrors: 0, interval: 1s, baseEjectionTime: 3m,"
    " maxEjectionPercent: 100}",
    "short-lived": "connectionPool: {tcp: {maxConnectionDuration: 0.5s}}",
}


PERMISSIVE = """\
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: api}
spec: {selector: {matchLabels: {app: api}}, mtls: {mode: PERMISSIVE}}
"""


RETRIES = "".join(
    f"""\
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: [{name}]
  http: [{{route: [{{destination: {{host: {name}}}}}], retries: {{attempts: 2, retryOn: 5xx}}}}]
"""
    for name in ("budgeted", "unbudgeted")
)


def service(name: str, policy: str) -> str:
    return f"""\
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: api}}, ports: [{{port: 80, name: http}}]}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}}}
spec: {{host: {name}, trafficPolicy: {{{policy}}}}}
"""


@pytest.fixture(scope="module")
def api(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """Three copies of `api` at three places, under one name a rule."""
    directory = tmp_path_factory.mktemp("destinations") / "mesh"
    (directory / "mesh").mkdir(parents=True)
    (directory / "policies").mkdir()
    shutil.copy(root / "tests" / "e2e" / "apps" / "echo.py", directory)
    (directory / "workloads.yaml").write_text(WORKLOADS)
    (directory / "policies" / "api.cedar").write_text(POLICY)
    rules = "".join(service(name, policy) for name, policy in RULES.items())
    (directory / "mesh" / "rules.yaml").write_text(rules + PERMISSIVE + RETRIES)
    try:
        yield up(directory)
    finally:
        down(directory)


@pytest.fixture(scope="module")
def ports(api: RunningMesh) -> dict[str, int]:
    """Where the copies themselves listen."""
    return {place["name"]: place["app_port"] for place in api.status()["instances"]}


@pytest.fixture
def web(api: RunningMesh) -> Iterator[httpx.Client]:
    """An HTTP client that speaks as `web` does."""
    with api.client("web-v1") as client:
        yield client


@pytest.fixture
def be(ports: dict[str, int]) -> Iterator[Callable[[str, int], None]]:
    """Has a copy answer every request with a status; all are well again afterwards."""

    def tell(instance: str, status: int) -> None:
        httpx.get(f"http://127.0.0.1:{ports[instance]}/be", params={"status": status}).raise_for_status()

    yield tell
    for name in sorted(ALL):
        tell(name, 200)


def answers(web: httpx.Client, url: str, times: int = 60, **headers: str) -> Counter[str]:
    return Counter(web.get(url, headers=headers).text for _ in range(times))


ALL = {"api-v1", "api-v2", "api-v3"}


@pytest.mark.parametrize("name", ["in-turn", "at-random", "as-it-comes", "by-load", "warm"])
def test_every_copy_gets_requests(web: httpx.Client, name: str) -> None:
    assert set(answers(web, f"http://{name}/")) == ALL


def test_what_goes_in_turn_is_even(web: httpx.Client) -> None:
    assert min(answers(web, "http://in-turn/").values()) >= 15


@pytest.mark.parametrize("name", ["by-header", "by-query", "by-ring"])
def test_equal_requests_go_to_the_same_copy_and_others_elsewhere(web: httpx.Client, name: str) -> None:
    def of(user: str) -> set[str]:
        return set(answers(web, f"http://{name}/?user={user}", 10, **{"x-user": user}))

    copies = [of(f"user-{number}") for number in range(20)]

    assert all(len(found) == 1 for found in copies)
    assert set.union(*copies) == ALL


def test_a_cookie_is_given_to_who_has_none_and_kept_to(web: httpx.Client) -> None:
    first = web.get("http://by-cookie/")
    [cookie] = first.headers.get_list("set-cookie")
    assert cookie.lower().startswith("who=")
    assert "max-age=60" in cookie.lower()

    value = cookie.partition(";")[0]
    web.cookies.clear()
    assert answers(web, "http://by-cookie/", 20, cookie=value) == {first.text: 20}


def test_a_caller_by_its_address_stays_with_one_copy(web: httpx.Client) -> None:
    assert len(answers(web, "http://by-source/", 20)) == 1


def test_beyond_the_limits_a_request_is_refused_at_once(web: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: web.get("http://narrow/", params={"wait": "1"}), range(8)))

    refused = [reply for reply in replies if reply.status_code == 503]
    assert refused
    assert {reply.headers.get("x-envoy-overloaded") for reply in refused} == {"true"}
    assert len(refused) < 8
    assert web.get("http://narrow/").status_code == 200


def stats(api: RunningMesh, instance: str, filter_: str) -> dict[str, int]:
    """Counters of an instance's Envoy."""
    server = json.loads((api.directory / ".policyd" / "server.json").read_text())
    socket = Path(server["admin_socket"]).parent / "agent" / instance / "admin.sock"
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://envoy") as client:
        text = client.get("/stats", params={"filter": filter_}).text
    return {
        name: int(value) for name, _, value in (line.partition(": ") for line in text.splitlines()) if value.isdigit()
    }


@pytest.mark.parametrize(("name", "protocol"), [("upgraded", "http2"), ("as-client", "http1"), ("in-turn", "http1")])
def test_what_a_connection_between_sidecars_speaks(
    api: RunningMesh, web: httpx.Client, name: str, protocol: str
) -> None:
    assert web.get(f"http://{name}/").status_code == 200

    found = stats(api, "web-v1", f"^cluster.outbound.80..{name}.default.upstream_cx_http[12]_total")
    assert [key.rpartition("_cx_")[2] for key, count in found.items() if count] == [f"{protocol}_total"]


def test_a_connection_carries_as_many_requests_as_it_may(api: RunningMesh, web: httpx.Client) -> None:
    assert sum(answers(web, "http://one-each/", 10).values()) == 10

    found = stats(api, "web-v1", "^cluster.outbound.80..one-each.default.upstream_cx_total")
    assert list(found.values()) == [10]


def test_a_copy_that_fails_is_left_alone(web: httpx.Client, be: Callable[[str, int], None]) -> None:
    be("api-v2", 500)

    wait_until(lambda: set(answers(web, "http://ejecting/", 12)) == {"api-v1", "api-v3"}, 20, lambda: "not ejected")
    assert {web.get("http://ejecting/").status_code for _ in range(20)} == {200}


def test_only_errors_of_gateways_count_where_these_alone_are_asked_for(
    web: httpx.Client, be: Callable[[str, int], None]
) -> None:
    be("api-v2", 500)
    assert set(answers(web, "http://gateways/", 30)) == ALL

    be("api-v2", 504)
    wait_until(lambda: set(answers(web, "http://gateways/", 12)) == {"api-v1", "api-v3"}, 20, lambda: "not ejected")


def test_what_a_budget_does_not_have_is_not_tried_again(
    api: RunningMesh, web: httpx.Client, be: Callable[[str, int], None]
) -> None:
    def retries(name: str) -> tuple[int, int]:
        found = stats(api, "web-v1", f"^cluster.outbound.80..{name}.default.upstream_rq_retry(_overflow)?$")
        return tuple(count for _, count in sorted(found.items()))  # type: ignore[return-value]

    for name in sorted(ALL):
        be(name, 503)

    assert web.get("http://unbudgeted/").status_code == web.get("http://budgeted/").status_code == 503
    assert (retries("unbudgeted"), retries("budgeted")) == ((2, 0), (0, 1))


def test_a_connection_lasts_no_longer_than_it_may(api: RunningMesh, web: httpx.Client) -> None:
    def ended() -> bool:
        assert web.get("http://short-lived/").status_code == 200
        found = stats(api, "web-v1", "^cluster.outbound.80..short-lived.default.upstream_cx_max_duration_reached$")
        return sum(found.values()) > 0

    wait_until(ended, 20, lambda: "its connections stay")


def test_the_nearest_answers_until_it_fails_and_then_the_next(
    web: httpx.Client, be: Callable[[str, int], None]
) -> None:
    def only(name: str) -> bool:
        return set(answers(web, "http://nearest/", 12)) == {name}

    assert only("api-v1")

    be("api-v1", 500)
    wait_until(lambda: only("api-v2"), 20, lambda: "the same region did not take over")
    be("api-v2", 500)
    wait_until(lambda: only("api-v3"), 20, lambda: "the other region did not take over")


def test_those_with_the_callers_labels_answer_until_they_fail(
    web: httpx.Client, be: Callable[[str, int], None]
) -> None:
    assert set(answers(web, "http://preferred/", 30)) == {"api-v1", "api-v2"}

    be("api-v1", 500)
    be("api-v2", 500)
    wait_until(lambda: set(answers(web, "http://preferred/", 12)) == {"api-v3"}, 20, lambda: "nobody took over")


def test_localities_get_their_shares(web: httpx.Client) -> None:
    found = answers(web, "http://shared/", 300)

    assert 30 <= found["api-v3"] <= 95  # 20 % of 300, give or take
    assert min(found["api-v1"], found["api-v2"]) >= 70


def test_who_asks_in_the_clear_is_nobody(api: RunningMesh, web: httpx.Client) -> None:
    reply = web.get("http://in-clear/")

    assert reply.status_code == 403
    assert api.record(reply.headers["x-policyd-decision-id"])["principal"].startswith("Unauthenticated::")


def test_all_that_was_sent_is_accepted(api: RunningMesh) -> None:
    proxies = api.says("proxy", "status")["proxies"]

    assert {kind["state"] for proxy in proxies for kind in proxy["types"]} == {"synced"}
