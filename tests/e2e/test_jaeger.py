"""A real Jaeger takes the spans, by OTLP (HTTP and gRPC) and as Zipkin's: one trace with what was decided in it.

Jaeger is in none of the packages that CI installs: this file is collected only where `jaeger` is in the path. Go builds
it: `go get -tool github.com/jaegertracing/jaeger/cmd/jaeger@v1.76.0` in a module, `go build` of the same name.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.e2e.conftest import RunningMesh, copy_of_bookinfo, down, up
from tests.e2e.terminal import wait_until
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

CONFIG = """\
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines: {{traces: {{receivers: [otlp, zipkin], processors: [], exporters: [jaeger_storage_exporter]}}}}
  telemetry: {{metrics: {{level: none}}}}
extensions:
  jaeger_storage: {{backends: {{some: {{memory: {{max_traces: 1000}}}}}}}}
  jaeger_query:
    storage: {{traces: some}}
    http: {{endpoint: "127.0.0.1:{query}"}}
    grpc: {{endpoint: "127.0.0.1:{query_grpc}"}}
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{otlp}"}}, grpc: {{endpoint: "127.0.0.1:{otlp_grpc}"}}}}}}
  zipkin: {{endpoint: "127.0.0.1:{zipkin}"}}
exporters:
  jaeger_storage_exporter: {{trace_storage: some}}
"""
SETTINGS = """\
tracing: {{endpoint: "http://127.0.0.1:{otlp}/v1/traces", sampling: 100}}
extensionProviders:
  - {{name: zipkin, zipkin: {{endpoint: "http://127.0.0.1:{zipkin}/api/v2/spans"}}}}
  - {{name: grpc, opentelemetry: {{endpoint: "grpc://127.0.0.1:{otlp_grpc}"}}}}
"""
OTHERWISE = """\
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: ratings}
spec: {selector: {matchLabels: {app: ratings}}, tracing: [{providers: [{name: zipkin}]}]}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: details}
spec: {targetRefs: [{kind: Service, name: details}], tracing: [{providers: [{name: grpc}]}]}
"""


class World(NamedTuple):
    mesh: RunningMesh
    jaeger: httpx.Client

    def spans(self, trace: str) -> list[dict[str, Any]]:
        """What Jaeger has of a trace: each span with its service and its tags."""
        found = self.jaeger.get(f"/api/traces/{trace}").json()["data"] or []
        return [
            {
                **{tag["key"]: tag["value"] for tag in span["tags"]},
                "service": one["processes"][span["processID"]]["serviceName"],
                "name": span["operationName"],
            }
            for one in found
            for span in one["spans"]
        ]


@pytest.fixture(scope="module")
def world(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("jaeger")
    ports = {name: free_port() for name in ("query", "query_grpc", "otlp", "otlp_grpc", "zipkin")}
    (folder / "jaeger.yaml").write_text(CONFIG.format(**ports))
    directory = copy_of_bookinfo(folder / "bookinfo", root)
    (directory / "checks.yaml").unlink()
    (directory / "policyd.yaml").write_text(SETTINGS.format(**ports))
    (directory / "mesh" / "telemetry.yaml").write_text(OTHERWISE)
    with (folder / "jaeger.log").open("wb") as log:
        process = subprocess.Popen(["jaeger", f"--config={folder}/jaeger.yaml"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{ports['query']}", trust_env=False, timeout=20) as jaeger:
            wait_until(lambda: answers(jaeger), 60)
            yield World(up(directory), jaeger)
    finally:
        down(directory)
        process.terminate()
        process.wait(60)


def answers(jaeger: httpx.Client) -> bool:
    try:
        return jaeger.get("/api/services").status_code == 200
    except httpx.HTTPError:
        return False


def test_jaeger_shows_one_trace_with_the_decisions_of_every_hop(world: World) -> None:
    answer = httpx.get(f"{world.mesh.gateway}/productpage", trust_env=False, timeout=20)
    chain = [one for one in world.mesh.records() if one.get("request_id") == answer.headers["x-request-id"]]
    trace = chain[0]["trace_id"]

    def decided() -> set[tuple[str, str]]:
        return {(one["service"], one["policyd.decision_id"]) for one in world.spans(trace) if "policyd.decision" in one}

    wanted = {(one["resource"].split('"')[1], one["decision_id"]) for one in chain}
    wait_until(lambda: decided() >= wanted, 60)
    assert {"ingress.default", "productpage.default", "details.default"} <= {service for service, _ in decided()}
    asked = [one for one in world.spans(trace) if "envoy.service.auth.v3.Authorization.Check" in one["name"]]
    assert len(asked) >= len(chain)


def test_and_what_was_denied_with_its_decision(world: World) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with world.mesh.client("reviews-v1") as inside:
        parent = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        denied = inside.get("http://details:9080/details/0?token=hidden", headers=parent)

    wait_until(lambda: any(one.get("policyd.decision") == "deny" for one in world.spans(trace)), 60)
    [span] = [one for one in world.spans(trace) if one.get("policyd.decision") == "deny"]
    assert (span["service"], span["http.status_code"], span["policyd.decision_id"]) == (
        "details.default", "403", denied.headers["x-policyd-decision-id"],
    )  # fmt: skip
    assert "hidden" not in str(world.spans(trace))


def test_zipkin_s_spans_of_another_workload_are_there_too(world: World) -> None:
    trace = "5bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"x-b3-traceid": trace, "x-b3-spanid": "00f067aa0ba902b7", "x-b3-sampled": "1"}
    with world.mesh.client("ratings-v1") as inside:
        inside.get("http://details:9080/details/0", headers=headers)

    wait_until(lambda: any(one.get("policyd.instance") == "ratings-v1" for one in world.spans(trace)), 60)
