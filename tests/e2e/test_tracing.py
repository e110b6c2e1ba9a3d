"""Spans of a request, as a collector gets them: one trace, and what was decided in it; and lines of the access log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from proxy.exposition import read
from tests.e2e.conftest import RunningMesh, copy_of_bookinfo, down, up
from tests.e2e.terminal import wait_until
from tests.fakes.telemetry import Collector, Seen
from tests.whole import put

pytestmark = pytest.mark.e2e

ASKS_POLICYD = "async envoy.service.auth.v3.Authorization.Check egress"


TELEMETRY = """\
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: all, namespace: istio-system}
spec:
  tracing: [{customTags: {team: {literal: {value: books}}}}]
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: details}
spec:
  selector: {matchLabels: {app: details}}
  metrics:
    - overrides:
        - match: {metric: REQUEST_COUNT, mode: SERVER}
          tagOverrides:
            asked_for: {value: "request.url_path == '/health' ? 'health' : 'book'"}
            source_principal: {operation: REMOVE}
            response_code: {operation: REMOVE}
  accessLogging:
    - providers: [{name: envoy}]
    - providers: [{name: lines}]
    - providers: [{name: errors}]
      filter: {expression: response.code >= 400}
"""


HEADERS = "{x-api-key: credentials/collector}"
FIRST, SECOND, THIRD = "the-first-key-of-all", "the-key-after-it", "the-key-of-lines"


class Traced(NamedTuple):
    mesh: RunningMesh
    collector: Collector


@pytest.fixture(scope="module")
def traced(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """Bookinfo, every request of which is traced."""
    directory = copy_of_bookinfo(tmp_path_factory.mktemp("tracing") / "bookinfo", root)
    (directory / "checks.yaml").unlink()
    collector = Collector()
    endpoint = f"http://127.0.0.1:{collector.port}/v1/traces"
    settings = f"tracing: {{endpoint: '{endpoint}', sampling: 100, headers: {HEADERS}}}\n"
    settings += f"accessLogFile: {directory}/access.log\naccessLogEncoding: JSON\n"
    settings += f"extensionProviders:\n- {{name: errors, envoyFileAccessLog: {{path: {directory}/errors.log}}}}\n"
    by_grpc = f"endpoint: 'grpc://127.0.0.1:{collector.grpc_port}', headers: {{x-api-key: credentials/lines}}"
    settings += f"- {{name: lines, envoyOtelAls: {{{by_grpc}}}}}\n"
    (directory / "policyd.yaml").write_text(settings)
    key_of(directory).parent.mkdir()
    put(key_of(directory), FIRST, 0o600)
    put(key_of(directory).with_name("lines"), THIRD, 0o600)
    (directory / "mesh" / "telemetry.yaml").write_text(TELEMETRY)
    try:
        yield Traced(up(directory), collector)
    finally:
        down(directory)
        collector.end()


def key_of(directory: Path) -> Path:
    return directory / "credentials" / "collector"


def test_a_request_through_the_mesh_is_one_trace_with_the_question_to_policyd_in_it(traced: Traced) -> None:
    def is_one() -> bool:
        """Spans come when they have ended, each Envoy's at its own time; a busy machine may be too late for one hop."""
        assert traced.mesh.get("/productpage").status_code == 200
        return whole(traced.collector.spans)

    wait_until(is_one, 60, lambda: "\n".join(map(str, traced.collector.spans)))
    assert {span.tags.get("team") for span in traced.collector.spans if span.name != ASKS_POLICYD} == {"books"}


def whole(spans: Sequence[Seen]) -> bool:
    """Whether one trace has a span of every service that took part, and in each the question to policyd."""
    wanted = {"ingress.default", "productpage.default", "details.default", "reviews.default"}
    for trace in {span.trace for span in spans}:
        found = [span for span in spans if span.trace == trace]
        known = {span.span for span in found}
        asked = [span for span in found if span.name == ASKS_POLICYD]
        if {span.service for span in asked} >= wanted and {span.parent for span in asked} <= known:
            return True
    return False


def test_the_span_of_a_denied_request_leads_to_its_record(traced: Traced) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with traced.mesh.client("reviews-v1") as inside:
        denied = inside.get(
            "http://details:9080/details/0?token=hidden", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        )
    assert denied.status_code == 403

    def found() -> list[Seen]:
        return [one for one in traced.collector.spans if one.trace == trace and one.tags.get("policyd.decision")]

    wait_until(lambda: found() != [], 30)
    [span] = found()
    decision_id = denied.headers["x-policyd-decision-id"]
    assert (span.service, span.tags["policyd.decision"], span.tags["policyd.decision_id"]) == (
        "details.default",
        "deny",
        decision_id,
    )
    assert (span.tags["policyd.instance"], span.tags["http.status_code"]) == ("details-v1", "403")
    assert span.tags["http.url"] == "https://details:9080/details/0"  # without what follows the ?
    assert traced.mesh.record(decision_id)["trace_id"] == trace


def test_each_proxy_writes_a_line_for_each_request_with_istio_s_names(traced: Traced) -> None:
    with traced.mesh.client("reviews-v2") as inside:
        assert inside.get("http://details:9080/details/7").status_code == 403

    def found() -> list[dict[str, Any]]:
        lines = (traced.mesh.directory / "access.log").read_text().splitlines()
        return [one for one in map(json.loads, lines) if one["path"] == "/details/7"]

    wait_until(lambda: len(found()) == 2, 30)  # an Envoy writes what it has every ten seconds
    asked, asking = sorted(found(), key=lambda one: str(one["upstream_cluster"] or ""))
    assert (asked["response_code"], asked["response_code_details"]) == (403, "ext_authz_denied")
    assert (asking["response_code"], asking["upstream_cluster"]) == (403, "outbound|9080||details.default")
    assert asked["request_id"] == asking["request_id"]


def test_a_telemetry_changes_labels_and_says_which_requests_have_lines(traced: Traced) -> None:
    with traced.mesh.client("reviews-v3") as inside:
        assert inside.get("http://details:9080/details/8").status_code == 403
    assert traced.mesh.get("/productpage").status_code == 200

    def counted() -> dict[tuple[str, str], float]:
        page = httpx.get(traced.mesh.metrics, trust_env=False, timeout=20).text
        found = {}
        for line in page.splitlines():
            if line.startswith("istio_requests_total{") and 'proxy="details-v1"' in line:
                labels = read(line.partition("{")[2].rpartition("}")[0])
                assert ("source_principal" in labels, "response_code" in labels) == (False, False)
                found[labels["asked_for"], labels["source_workload"]] = float(line.rpartition(" ")[2])
        return found

    wait_until(lambda: counted().keys() >= {("book", "reviews-v3"), ("book", "productpage-v1")}, 30)

    def lines() -> list[str]:
        file = traced.mesh.directory / "errors.log"
        return file.read_text().splitlines() if file.exists() else []

    wait_until(lambda: any("/details/8" in line for line in lines()), 30)
    assert {line.split('"')[2].split()[0] for line in lines()} == {"403"}
    assert not any("productpage" in line for line in lines())


def test_the_collector_knows_who_sends_by_a_key_that_nothing_shows_and_a_new_one_takes_its_place(
    traced: Traced,
) -> None:
    def arrives(key: str) -> bool:
        assert traced.mesh.get("/productpage").status_code == 200
        return key in traced.collector.keys

    wait_until(lambda: arrives(FIRST), 30)
    put(key_of(traced.mesh.directory), SECOND, 0o600)
    wait_until(lambda: arrives(SECOND), 60)

    wait_until(lambda: arrives(THIRD), 30)  # with lines, over gRPC
    assert set(traced.collector.keys) == {FIRST, SECOND, THIRD}
    shown = [json.dumps(traced.mesh.says("proxy", "config", kind, "details-v1")) for kind in ("secrets", "clusters")]
    assert all("header:credentials/collector" in text and "header:credentials/lines" in text for text in shown)
    logs = [path.read_text(errors="replace") for path in traced.mesh.directory.rglob("*.log")]
    assert [key for key in (FIRST, SECOND, THIRD) for text in (*shown, *logs) if key in text] == []
