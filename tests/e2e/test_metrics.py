"""The mesh's metrics as Prometheus gets them from the agent: Istio's names and labels, and the decision."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from policyd.signals import Party, standard_labels
from tests.e2e.conftest import PROGRAM, RunningMesh, copy_of_bookinfo, down, up
from tests.e2e.terminal import Terminal, wait_until

pytestmark = pytest.mark.e2e

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@contextmanager
def metrics_of_an_application() -> Iterator[int]:
    """A port on which something shows metrics."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'# TYPE orders_total counter\norders_total{kind="book"} 3\n')

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def application() -> Iterator[int]:
    """Where `reviews-v1` shows its metrics."""
    with metrics_of_an_application() as port:
        yield port


@pytest.fixture(scope="module")
def counted(root: Path, tmp_path_factory: pytest.TempPathFactory, application: int) -> Iterator[RunningMesh]:
    """Bookinfo after a few requests; two of its applications are said to show metrics, and one does."""
    directory = copy_of_bookinfo(tmp_path_factory.mktemp("metrics") / "bookinfo", root)
    (directory / "checks.yaml").unlink()
    workloads = (directory / "workloads.yaml").read_text()
    for service, metrics in (("details", "{path: /none}"), ("reviews", f"{{port: {application}}}")):
        begin = workloads.index("{", workloads.index(f"{service}-v1:")) + 1
        workloads = f"{workloads[:begin]}metrics: {metrics}, {workloads[begin:]}"
    (directory / "workloads.yaml").write_text(workloads)
    try:
        mesh = up(directory)
        for _ in range(3):
            assert mesh.get("/productpage").status_code == 200
        with mesh.client("reviews-v1") as inside:
            assert inside.get("http://details:9080/details/0").status_code == 403
        # an Envoy counts when a request has ended, which its caller may know a moment earlier
        total = 3 * (1 + 1 + 2 + 2) + 2  # gateway, productpage, its two questions, their two answers; the denied one
        wait_until(lambda: requests(mesh) == total, 60, lambda: page(mesh))
        yield mesh
    finally:
        down(directory)


def page(mesh: RunningMesh, query: str = "") -> str:
    """What Prometheus is told."""
    answer = httpx.get(f"{mesh.metrics}{query}", trust_env=False, timeout=20)
    assert answer.status_code == 200
    return answer.text


def found(text: str, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
    """The lines of a metric that have these labels."""
    lines = []
    for line in text.splitlines():
        if line.startswith(name + "{"):
            seen = dict(_LABEL.findall(line))
            if labels.items() <= seen.items():
                lines.append((seen, float(line.rpartition(" ")[2])))
    return lines


def requests(mesh: RunningMesh) -> float:
    """How many were counted, but for those to ratings: whose reviews ask it is by chance."""
    every = found(page(mesh), "istio_requests_total")
    return sum(count for labels, count in every if not labels["destination_service"].startswith("ratings."))


def party(name: str, version: str) -> str:
    return str(Party(f"{name}-{version}", "default", name, version, f"{name}.default"))


def principal(name: str) -> str:
    return f"spiffe://cluster.local/ns/default/sa/bookinfo-{name}"


ASKED = {
    "local": f"{party('details', 'v1')}|{principal('details')}",
    "remote": party("productpage", "v1"),
    "remote_id": principal("productpage"),
    "response_code": "200",
    "response_flags": "-",
    "decision": "allow",
    "policy": "details-from-productpage",
}
ASKING = {
    **ASKED,
    "local": f"{party('productpage', 'v1')}|{principal('productpage')}",
    "remote": party("details", "v1"),
    "remote_id": principal("details"),
    "cluster": "outbound|9080||details.default",
    "decision": "",
    "policy": "",
}
DENIED = {
    **ASKED,
    "remote": party("reviews", "v1"),
    "remote_id": principal("reviews"),
    "response_code": "403",
    "response_flags": "UAEX",
    "decision": "deny",
    "policy": "",
}


@pytest.mark.parametrize(
    ("proxy", "tags", "count"), [("details-v1", ASKED, 3), ("productpage-v1", ASKING, 3), ("details-v1", DENIED, 1)]
)
def test_both_ends_count_a_request_under_istio_s_names_with_all_of_its_labels(
    counted: RunningMesh, proxy: str, tags: dict[str, str], count: int
) -> None:
    labels = {**standard_labels(tags), "proxy": proxy}

    assert found(page(counted), "istio_requests_total", **labels) == [(labels, count)]


def test_durations_and_sizes_are_histograms_with_the_same_labels_but_the_decision(counted: RunningMesh) -> None:
    text = page(counted)
    tags = {name: value for name, value in ASKED.items() if name not in ("decision", "policy")}

    for name in ("request_duration_milliseconds", "request_bytes", "response_bytes"):
        labels = {**standard_labels(tags), "proxy": "details-v1"}
        assert found(text, f"istio_{name}_count", **labels) == [(labels, 3)]
        buckets = found(text, f"istio_{name}_bucket", **labels)
        assert (buckets[-1][0]["le"], buckets[-1][1]) == ("+Inf", 3)
    [(_, size)] = found(text, "istio_response_bytes_sum", **labels)
    assert size > 300  # three times the details of a book


def test_the_gateway_counts_what_came_from_outside(counted: RunningMesh) -> None:
    gateway = {
        **ASKING,
        "local": f"{Party('ingress', 'default', 'istio-ingressgateway', 'latest', 'ingress.default')}|",
        "remote": party("productpage", "v1"),
    }
    [(seen, count)] = found(page(counted), "istio_requests_total", proxy="ingress", response_code="200")

    assert count >= 3
    assert (seen["source_workload"], seen["destination_workload"], seen["decision"], seen["policy"]) == (
        "ingress",
        standard_labels(gateway)["destination_workload"],
        "allow",
        "world-to-ingress",
    )
    assert seen["destination_service"] == "productpage.default.svc.cluster.local"


def test_what_a_caller_says_of_itself_is_not_believed_and_not_passed_on(counted: RunningMesh) -> None:
    forged = {"x-policyd-peer": party("admin", "v9")}
    assert counted.get("/productpage", **forged).status_code == 200
    with counted.client("reviews-v1") as inside:
        assert inside.get("http://details:9080/details/0", headers=forged).status_code == 403

    assert "admin" not in page(counted)


def test_an_agent_says_how_its_envoys_are_and_all_that_they_count_if_asked(counted: RunningMesh) -> None:
    short, whole = page(counted), page(counted, "?envoy=all")

    assert {seen["proxy"] for seen, up_ in found(short, "policyd_proxy_up") if up_ == 1} == {
        "ingress", "productpage-v1", "details-v1", "reviews-v1", "reviews-v2", "reviews-v3", "ratings-v1",
    }  # fmt: skip
    assert "policyd_proxy_unreadable_lines 0" in short.splitlines()
    assert "envoy_listener_downstream_cx_total" not in short
    assert "envoy_listener_downstream_cx_total" in whole


def test_top_shows_who_calls_whom_and_what_is_denied(counted: RunningMesh) -> None:
    command = [PROGRAM, "top", "--dir", str(counted.directory), "--json", "--every", "1"]
    edges: dict[tuple[str, str], dict[str, float]] = {}
    # an Envoy's histograms follow its counters by one look
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as looks,
        counted.client("reviews-v1") as inside,
    ):
        assert looks.stdout
        while not {("(outside)", "ingress"), ("reviews-v1", "details-v1")} <= edges.keys():
            assert counted.get("/productpage").status_code == 200
            assert inside.get("http://details:9080/details/0").status_code == 403
            found = json.loads(looks.stdout.readline())
            assert found["not_seen"] == []
            edges |= {(one["source"], one["destination"]): one for one in found["edges"] if one["rate"] and one["p50"]}
        looks.send_signal(signal.SIGINT)
        assert looks.wait(20) == 130

    denied, allowed = edges["reviews-v1", "details-v1"], edges["(outside)", "ingress"]
    assert (denied["denied"], denied["failed"], denied["security"]) == (denied["rate"], 0, "mutual_tls")
    assert (allowed["denied"], allowed["failed"]) == (0, 0)
    assert allowed["p50"] > 0


def test_top_without_a_terminal_prints_a_table_once(counted: RunningMesh) -> None:
    done = subprocess.run(
        [PROGRAM, "top", "--dir", str(counted.directory), "--all", "--every", "0.5"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip

    head, *lines = done.stdout.splitlines()
    assert (done.returncode, head.split()) == (
        0,
        ["FROM", "TO", "REQUESTS/S", "DENIED/S", "FAILED/S", "OPENED/S", "P50", "P95", "TLS"],
    )
    assert ["productpage-v1", "details-v1"] in [line.split()[:2] for line in lines]


def test_top_on_a_terminal_is_live_until_it_is_interrupted(counted: RunningMesh) -> None:
    terminal = Terminal([PROGRAM, "top", "--dir", str(counted.directory), "--every", "0.5"], cwd=counted.directory)
    with counted.client("reviews-v1") as inside:

        def is_shown() -> bool:
            inside.get("http://details:9080/details/0")
            return re.search(r"reviews-v1 +details-v1 +[0-9.]+ +[0-9.]+ +-", terminal.text) is not None

        wait_until(is_shown, 60, lambda: terminal.text)
    assert "denied/s" in terminal.text
    terminal.interrupt()
    assert terminal.end() == 130


def test_policyd_itself_keeps_the_traces_of_the_last_while(counted: RunningMesh) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with counted.client("reviews-v1") as inside:
        url, parent = "http://details:9080/details/1", f"00-{trace}-00f067aa0ba902b7-01"
        denied = inside.get(url, headers={"traceparent": parent}).headers["x-policyd-decision-id"]

    wait_until(lambda: len(rows(counted, trace)) == 3, 30)  # each proxy tells of its spans every second
    asking, asked, check = rows(counted, trace)
    assert [one["service"] for one in (asking, asked, check)] == ["reviews.default", *["details.default"] * 2]
    assert [one["depth"] for one in (asking, asked, check)] == [0, 1, 2]
    assert asked["peer"] == "spiffe://cluster.local/ns/default/sa/bookinfo-details"
    assert [(one["decision"], one["decision_id"]) for one in (asked, check)] == [("deny", denied)] * 2
    assert "envoy.service.auth.v3.Authorization.Check" in check["name"]

    listed = counted.says("traces", "list", "--denied")
    assert trace in [one["id"] for one in listed["traces"]]
    assert 0 < listed["window"]["used"] < listed["window"]["bound"] == 32 << 20


def rows(mesh: RunningMesh, trace: str) -> list[dict[str, Any]]:
    """The spans of a trace, as a tree is read; none before the first has come."""
    if trace not in [one["id"] for one in mesh.says("traces", "list")["traces"]]:
        return []
    found: list[dict[str, Any]] = mesh.says("traces", "show", trace)["rows"]
    return found


def test_applications_metrics_are_on_the_page_and_one_that_shows_none_is_missed(counted: RunningMesh) -> None:
    text = page(counted)

    assert [(one["kind"], one["proxy"], count) for one, count in found(text, "orders_total")] == [
        ("book", "reviews-v1", 3.0)
    ]
    up_ = {one["proxy"]: count for one, count in found(text, "policyd_application_up")}
    assert up_ == {"details-v1": 0.0, "reviews-v1": 1.0}


def test_a_record_names_its_trace_at_the_first_hop_too(counted: RunningMesh) -> None:
    answer = counted.get("/productpage")
    chain = [one for one in counted.records() if one.get("request_id") == answer.headers["x-request-id"]]

    assert {one["resource"] for one in chain} >= {'Service::"ingress.default"', 'Service::"productpage.default"'}
    [trace] = {one.get("trace_id", "") for one in chain}
    assert re.fullmatch(r"[0-9a-f]{32}", trace)
