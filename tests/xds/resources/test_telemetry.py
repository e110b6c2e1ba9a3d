"""Telemetries and settings to what proxies count, trace and write of requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policyd.config.addresses import Address
from policyd.config.settings import parse_settings
from policyd.envoy_api import CLUSTER, LISTENER, SECRET
from policyd.mesh.credentials import CredentialFile
from policyd.mesh.istio.telemetry import METRICS
from policyd.server.control import control_of
from policyd.xds.resources.build import build_snapshots
from policyd.xds.resources.model import Control
from policyd.xds.resources.policies import HTTP_OPTIONS
from policyd.xds.snapshot import Snapshot
from tests.golden import check_json
from tests.xds.resources.folders import mesh_with
from tests.xds.resources.test_build import accepted, shown

SETTINGS = """\
tracing: {sampling: 25}
extensionProviders:
  - {name: jaeger, opentelemetry: {endpoint: "http://127.0.0.1:4318/v1/traces"}}
  - {name: zipkin, zipkin: {endpoint: "https://zipkin.example/api/v2/spans"}}
  - {name: tempo, opentelemetry: {endpoint: "grpcs://tempo.example"}}
  - {name: loki, envoyOtelAls: {endpoint: "http://127.0.0.1:3100/otlp/v1/logs"}}
  - {name: errors, envoyFileAccessLog: {path: /tmp/errors.log, logFormat: {labels: {code: "%RESPONSE_CODE%"}}}}
"""
TELEMETRY = """\
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: all, namespace: istio-system}
spec:
  metrics:
    - providers: [{name: prometheus}]
      overrides:
        - match: {metric: REQUEST_COUNT}
          tagOverrides:
            request_host: {value: request.host}
            response_code: {value: "response.code >= 500 ? 'broken' : 'fine'"}
            source_principal: {operation: REMOVE}
            policy: {operation: REMOVE}
        - match: {metric: REQUEST_SIZE, mode: SERVER}
          disabled: true
  tracing:
    - providers: [{name: zipkin}]
      match: {mode: CLIENT}
      randomSamplingPercentage: 50
    - match: {mode: SERVER}
      providers: [{name: jaeger}]
      disableContextPropagation: true
      enableIstioTags: false
      customTags:
        team: {literal: {value: a}}
        agent: {header: {name: user-agent, defaultValue: none}}
        protocol: {formatter: {value: "%PROTOCOL%"}}
  accessLogging:
    - providers: [{name: errors}, {name: loki}]
      filter: {expression: response.code >= 400}
---
apiVersion: telemetry.istio.io/v1alpha1
kind: Telemetry
metadata: {name: quiet, namespace: far}
spec:
  metrics: [{overrides: [{disabled: true}]}]
  tracing: [{disableSpanReporting: true}]
  accessLogging: [{disabled: true}]
"""


def snapshots(telemetry: str = TELEMETRY, settings: str = SETTINGS) -> dict[str, Snapshot]:
    control = control_of(parse_settings(settings), [Address("127.0.0.1", 12000)])
    return dict(build_snapshots(mesh_with(telemetry), control))


def filters(listener: dict[str, Any]) -> list[dict[str, Any]]:
    """The filters of a listener's connections."""
    return [each["typed_config"] for chain in listener["filter_chains"] for each in chain["filters"]]


def seen(snapshot: Snapshot, name: str) -> dict[str, Any]:
    """What is said of the requests of a listener's only connection manager."""
    [manager] = filters(shown(snapshot.of(LISTENER)[name]))
    return {part: manager[part] for part in ("access_log", "tracing") if part in manager}


@pytest.mark.parametrize("name", ["api-v1/inbound", "api-v1/outbound"])
def test_what_telemetries_say_is_what_proxies_are_told(name: str, pytestconfig: pytest.Config) -> None:
    golden = f"xds/telemetry_{name.partition('/')[2]}.json"

    check_json(golden, seen(snapshots()["api-v1"], name), update=pytestconfig.getoption("--update-golden"))


def test_every_provider_that_is_elsewhere_has_a_way_there() -> None:
    clusters = snapshots()["api-v1"].of(CLUSTER)

    assert {name for name in clusters if name.startswith("policyd-otlp")} == {
        "policyd-otlp/jaeger", "policyd-otlp/zipkin", "policyd-otlp/loki",
        "policyd-otlp/tempo",
    }  # fmt: skip
    assert "transport_socket" in shown(clusters["policyd-otlp/zipkin"])
    by_grpc = shown(clusters["policyd-otlp/tempo"])
    [place] = by_grpc["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert place["endpoint"]["address"]["socket_address"] == {"address": "tempo.example", "port_value": 4317}
    assert by_grpc["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"] == ["h2"]


KEYED = """\
tracing: {endpoint: "https://spans.example/v1/traces", headers: {x-key: credentials/spans}}
extensionProviders:
  - name: lines
    envoyOtelAls: {endpoint: "grpcs://lines.example", headers: {x-key: credentials/lines, x-team: credentials/gone}}
"""
FILES = tuple(
    CredentialFile(f"credentials/{name}", f"/m/credentials/{name}", writing="7-1-9") for name in ("lines", "spans")
)


def test_a_collector_is_told_who_sends_by_headers_whose_values_are_in_no_resource() -> None:
    control = control_of(parse_settings(KEYED), [Address("127.0.0.1", 12000)])
    snapshot = build_snapshots(replace(mesh_with(TELEMETRY), credentials=FILES), control)["api-v1"]

    def says(cluster: str) -> list[tuple[str, str]]:
        """The headers, and the secrets that hold their values."""
        found = shown(snapshot.of(CLUSTER)[cluster])["typed_extension_protocol_options"][HTTP_OPTIONS]["http_filters"]
        assert found.pop()["name"] == "envoy.filters.http.upstream_codec"
        generic = [one["typed_config"]["credential"]["typed_config"] for one in found]
        assert all(one["typed_config"]["overwrite"] for one in found)
        return [(one["header"], one["credential"]["name"]) for one in generic]

    assert says("policyd-otlp") == [("x-key", "header:credentials/spans")]
    assert says("policyd-otlp/lines") == [
        ("x-key", "header:credentials/lines"), ("x-team", "header:credentials/gone"),
    ]  # fmt: skip
    secrets = {name: shown(one) for name, one in snapshot.of(SECRET).items() if name.startswith("header:")}
    assert secrets["header:credentials/spans"]["generic_secret"] == {
        "secret": {"filename": "/m/credentials/spans", "watched_directory": {"path": "/m/credentials"}},
        "secrets": {"writing": {"inline_string": "7-1-9"}},
    }
    assert secrets.keys() == {"header:credentials/lines", "header:credentials/spans"}


def test_what_is_switched_off_is_not_there() -> None:
    for name in ("other-v1/inbound", "other-v1/outbound"):
        assert seen(snapshots()["other-v1"], name) == {}


def test_a_gateway_s_requests_are_seen_as_those_that_it_sends() -> None:
    edge, sidecar = (
        seen(snapshots()[name], at) for name, at in (("ingress", "ingress/gateway/8080"), ("web-v1", "web-v1/outbound"))
    )

    provider = edge["tracing"]["provider"]["name"], edge["tracing"]["random_sampling"]
    assert provider == ("envoy.tracers.zipkin", {"value": 50.0})
    assert [one["name"] for one in edge["access_log"]] == [one["name"] for one in sidecar["access_log"]]


@pytest.mark.parametrize("metric", [one for one in METRICS if not one.startswith("GRPC_")])
def test_each_metric_by_itself_is_switched_off_everywhere(metric: str) -> None:
    spec = f"metrics: [{{overrides: [{{match: {{metric: {metric}}}, disabled: true}}]}}]"
    kind = "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: a, namespace: istio-system}\n"
    counted = {
        stat["stat"]["name"]
        for snapshot in snapshots(f"{kind}spec: {{{spec}}}").values()
        for listener in snapshot.of(LISTENER).values()
        for one in filters(shown(listener))
        for log in one.get("access_log", [])
        for kind in ("counters", "histograms")
        for stat in log["typed_config"].get(kind, [])
    }

    assert set(METRICS.values()) - counted >= {METRICS[metric]}
    assert METRICS["REQUEST_COUNT"] in counted or metric == "REQUEST_COUNT"


BOTH = ", ".join(
    f"{{match: {{metric: GRPC_{way}_MESSAGES{{mode}}}}, disabled: true}}" for way in ("REQUEST", "RESPONSE")
)


@pytest.mark.parametrize(
    ("overrides", "inbound", "outbound"),
    [
        ("{match: {metric: REQUEST_COUNT}, disabled: true}", True, True),
        (BOTH.replace("{mode}", ""), False, False),
        (BOTH.replace("{mode}", ", mode: SERVER"), False, True),
        (BOTH.replace("{mode}", ", mode: CLIENT"), True, False),
        ("{disabled: true}", False, False),  # of all metrics
    ],
)
def test_messages_of_grpc_are_counted_unless_a_telemetry_says_otherwise(
    overrides: str, inbound: bool, outbound: bool
) -> None:
    kind = "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: a, namespace: istio-system}\n"
    snapshot = snapshots(f"{kind}spec: {{metrics: [{{overrides: [{overrides}]}}]}}")["api-v1"].of(LISTENER)
    counted = {
        name: any(
            "grpc_stats" in each["name"] for one in filters(shown(snapshot[name])) for each in one["http_filters"]
        )
        for name in ("api-v1/inbound", "api-v1/outbound")
    }

    assert counted == {"api-v1/inbound": inbound, "api-v1/outbound": outbound}


@pytest.mark.e2e
@pytest.mark.parametrize("instance", ["api-v1", "ingress", "other-v1"])
def test_the_real_envoy_accepts_it(tmp_path: Path, instance: str) -> None:
    accepted(snapshots()[instance], tmp_path)


def test_without_a_window_and_without_a_collector_nothing_is_traced() -> None:
    control: Control = control_of(parse_settings("tracing: {window: 0MiB}"), [Address("127.0.0.1", 12000)])

    assert (control.tracing, dict(control.spans), list(control.logs)) == (None, {}, ["envoy"])
