"""What settings and Telemetries say of lines and spans, on one real Envoy: a port for each way to say it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from policyd import access_log, names, signals
from policyd.config.addresses import Address
from policyd.config.settings import parse_settings
from policyd.mesh.istio.telemetry import CustomTag, EnvironmentTag
from policyd.mesh.model import Instance, Served
from policyd.mesh.telemetry import Count, Said, Spans
from policyd.server.control import control_of
from policyd.signals import Party
from policyd.spiffe import SpiffeId
from policyd.xds.resources import counting, filters, policies, spans
from policyd.xds.resources.collectors import clusters
from policyd.xds.resources.model import AUTHZ_CLUSTER, Control
from policyd.xds.resources.observing import Seen
from proxy.series import dropped_in
from tests.e2e.terminal import wait_until
from tests.fakes.authorization import Authorization
from tests.fakes.telemetry import Collector
from tests.fakes.telemetry import Seen as Span
from tests.ports import free_port
from tests.xds.envoy_process import EnvoyProcess, eventually

pytestmark = pytest.mark.e2e

WEB = Instance("web-v1", SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/web"), "sidecar", "web.shop")
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
B3 = {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": "1"}
W3C = {"traceparent": f"00-{TRACE}-{SPAN}-01"}

SETTINGS = """\
accessLogFile: {folder}/text.log
tracing: {{sampling: 100}}
extensionProviders:
  - name: short
    envoyFileAccessLog: {{path: {folder}/short.log, logFormat: {{text: "%REQ(:METHOD)% %PATH(NQ)%\\n"}}}}
  - name: labels
    envoyFileAccessLog: {{path: {folder}/labels.log, logFormat: {{labels: {{code: "%RESPONSE_CODE%"}}}}}}
  - {{name: stdout, envoyFileAccessLog: {{path: /dev/stdout, logFormat: {{text: "line %RESPONSE_CODE%\\n"}}}}}}
  - {{name: otlp, envoyOtelAls: {{endpoint: "http://127.0.0.1:{port}/v1/logs"}}}}
  - {{name: otlp-grpc, envoyOtelAls: {{endpoint: "grpc://127.0.0.1:{grpc}"}}}}
  - {{name: spans-grpc, opentelemetry: {{endpoint: "grpc://127.0.0.1:{grpc}"}}}}
  - {{name: spans, opentelemetry: {{endpoint: "http://127.0.0.1:{port}/v1/traces"}}}}
  - {{name: b3, zipkin: {{endpoint: "http://127.0.0.1:{port}/api/v2/spans"}}}}
  - name: both
    zipkin: {{endpoint: "http://127.0.0.1:{port}/api/v2/spans", traceContextOption: USE_B3_WITH_W3C_PROPAGATION}}
"""
# of each port: what Telemetries say of it, and other settings
QUIET = Spans(disabled=True)
KEEPS_IDS = {"preserve_external_request_id": True}  # of requests, as all sidecars and gateways do
FROM_ENVIRONMENT = {
    "home": CustomTag(environment=EnvironmentTag(name="HOME")),
    "zone": CustomTag(environment=EnvironmentTag(name="ZONE_OF_NOBODY", default_value="none")),
}
PORTS: Mapping[str, tuple[Said, str]] = {
    "text": (Said(spans=QUIET), ""),
    "json": (Said(spans=QUIET), "accessLogEncoding: JSON"),
    "custom": (Said(spans=QUIET), "accessLogFormat: '%RESPONSE_CODE% %REQ(X-TEAM)%\n\n'"),
    "providers": (Said(spans=QUIET, logs={"short": "", "labels": "", "stdout": "", "otlp": ""}), ""),
    "filtered": (Said(spans=QUIET, logs={"short": "response.code >= 400 && request.url_path != '/quiet'"}), ""),
    "nothing": (Said(spans=QUIET, logs={}), ""),
    "b3": (Said(spans=Spans("b3"), logs={}), ""),
    "both": (Said(spans=Spans("both"), logs={}), ""),
    "w3c": (Said(spans=Spans("spans"), logs={}), ""),
    "none": (Said(spans=Spans("spans", percent=0), logs={}), ""),
    "by-id": (Said(spans=Spans("spans", percent=50, by_request_id=True), logs={}), ""),
    "tagged": (Said(spans=Spans("spans", tags=FROM_ENVIRONMENT), logs={}), ""),
    "half": (Said(spans=Spans("spans", percent=50), logs={}), ""),
    "grpc": (Said(spans=Spans("spans-grpc"), logs={"otlp-grpc": ""}), ""),
}


@dataclass
class Rig:
    envoy: EnvoyProcess
    folder: Path
    ports: Mapping[str, int]
    collector: Collector
    passed_on: list[dict[str, str]]  # headers of requests, as the next hop got them
    authorization: Authorization

    def get(self, port: str, path: str = "/", **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://127.0.0.1:{self.ports[port]}{path}"
        return httpx.get(url, headers=named, trust_env=False, timeout=20).status_code

    def lines(self, file: str) -> list[str]:
        """What was written of a file."""
        path = self.folder / file
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("seen")
    ports = {name: free_port() for name in (*PORTS, "many", "decided", "asked")}
    passed_on: list[dict[str, str]] = []
    with Collector() as collector, application(passed_on) as app, Authorization() as asked:
        control = control_of(parse_settings(_settings(folder, collector)), [Address("127.0.0.1", 1)])
        resources = {
            "clusters": [*clusters(control), _way("app", app), _to_policyd(asked.port, control)],
            "listeners": [_listener(name, ports[name], _fields(name, folder, collector)) for name in PORTS]
            + [_listener("many", ports["many"], {"access_log": _few_series()})]
            + [
                _decided("decided", ports, control, QUIET),
                _decided("asked", ports, control, Spans("spans", percent=0)),
            ],
        }
        envoy = EnvoyProcess("web-v1", None, "--file-flush-interval-msec", "50")
        admin = {"address": {"pipe": {"path": str(envoy.admin)}}}
        envoy.use({"node": {"id": "web-v1", "cluster": "web"}, "admin": admin, "static_resources": resources})
        asyncio.run(envoy.__aenter__())
        try:
            asyncio.run(_started(envoy))
            yield Rig(envoy, folder, ports, collector, passed_on, asked)
        finally:
            asyncio.run(envoy.__aexit__(None, None, None))


async def _started(envoy: EnvoyProcess) -> None:
    await eventually(envoy.live, "the Envoy is live", 60)


def _settings(folder: Path, collector: Collector, more: str = "") -> str:
    return SETTINGS.format(folder=folder, port=collector.port, grpc=collector.grpc_port) + more + "\n"


def _fields(name: str, folder: Path, collector: Collector) -> dict[str, Any]:
    said, more = PORTS[name]
    text = _settings(folder, collector, more).replace("text.log", f"{name}.log")
    control = control_of(parse_settings(text), [Address("127.0.0.1", 1)])
    fields = Seen(control, WEB, asks=said).outbound()
    return {
        **fields,
        "access_log": [one for one in fields["access_log"] if one["name"] != "envoy.access_loggers.stats"],
    }


def _few_series() -> list[dict[str, Any]]:
    """What counts by a label of many values, with room for five."""
    counts = {names.MESH_REQUESTS: Count(labels={"path": "request.url_path"})}
    loggers = counting.inbound(WEB, Served(80, 80), encrypted=False, counts=counts)
    for one in loggers:
        one["typed_config"]["stats_scope"]["max_counters"] = 5
    return loggers


def _listener(name: str, port: int, fields: dict[str, Any]) -> dict[str, Any]:
    gone = {"match": {"prefix": "/gone"}, "direct_response": {"status": 410}}
    quiet = {"match": {"prefix": "/quiet"}, "direct_response": {"status": 410}}
    on = {"match": {"prefix": "/"}, "route": {"cluster": "app"}}
    routes = {"name": "all", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [gone, quiet, on]}]}
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [filters.manager(name, [], {"route_config": routes}, **KEEPS_IDS, **fields)]}],
    }


def _decided(name: str, ports: Mapping[str, int], control: Control, said: Spans) -> dict[str, Any]:
    """What hears who speaks, asks about the request, counts it, and hands it to an application."""
    on = {"match": {"prefix": "/"}, "route": {"cluster": "app"}, "typed_per_filter_config": filters.asked_for("a/in")}
    hosts = [{"name": "inbound", "domains": ["*"], "routes": [on]}]
    routes = {"route_config": {"name": "inbound", "virtual_hosts": hosts, **counting.TELLS_NOBODY}}
    seen = {
        "access_log": counting.inbound(WEB, Served(80, 80), encrypted=True),
        **spans.traced(control, WEB, said),
    }
    chain = filters.manager(name, [counting.hears_who(), filters.authorization(control)], routes, **seen)
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": ports[name]}},
        "filter_chains": [{"filters": [chain]}],
    }


def _way(name: str, port: int, *, http2: bool = False) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        "typed_extension_protocol_options": policies.protocol(
            "http2_protocol_options" if http2 else "http_protocol_options"
        ),
    }


def _to_policyd(port: int, control: Control) -> dict[str, Any]:
    """The way of questions, in the clear."""
    made = _way(AUTHZ_CLUSTER, port, http2=True)
    made["typed_extension_protocol_options"][policies.HTTP_OPTIONS]["http_filters"] = [
        *spans.to_policyd(control),
        policies.CODEC,
    ]
    return made


class application:  # noqa: N801 - used as a context, like the functions of contextlib
    """The next hop, which notes the headers of requests."""

    def __init__(self, passed_on: list[dict[str, str]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                passed_on.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> int:
        self._thread.start()
        return int(self._server.server_address[1])

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


# ---- lines


def test_a_line_is_istio_s_own_by_default(rig: Rig) -> None:
    rig.get("text", "/books?q=1", user_agent="reader", x_request_id="r-1")

    wait_until(lambda: rig.lines("text.log") != [], 20)
    [line] = rig.lines("text.log")
    stamp, duration = r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\]", r"\d+"
    asked = re.escape('"GET /books?q=1 HTTP/1.1"')
    assert re.fullmatch(
        rf'{stamp} {asked} 200 - via_upstream - "-" 0 0 {duration} {duration} "[^"]+" "reader" "[^"]+" '
        rf'"127\.0\.0\.1:\d+" "127\.0\.0\.1:\d+" app 127\.0\.0\.1:\d+ 127\.0\.0\.1:\d+ 127\.0\.0\.1:\d+ - -',
        line,
    )


def test_with_the_encoding_json_it_has_istio_s_names(rig: Rig) -> None:
    rig.get("json", "/gone")

    wait_until(lambda: rig.lines("json.log") != [], 20)
    [line] = map(json.loads, rig.lines("json.log"))
    assert line.keys() == access_log.JSON.keys()
    assert (line["method"], line["path"], line["response_code"], line["response_code_details"]) == (
        "GET", "/gone", 410, "direct_response",
    )  # fmt: skip


def test_or_what_an_operator_writes(rig: Rig) -> None:
    rig.get("custom", "/gone", x_team="books")

    wait_until(lambda: rig.lines("custom.log") == ["410 books"], 20)


def test_providers_write_each_in_its_form_to_files_standard_output_and_a_collector(rig: Rig) -> None:
    rig.get("providers", "/gone?secret=1")

    wait_until(lambda: "GET /gone" in rig.lines("short.log"), 20)
    wait_until(lambda: [json.loads(one) for one in rig.lines("labels.log")] == [{"code": 410}], 20)
    wait_until(lambda: "line 410" in (rig.envoy.folder / "envoy.log").read_text().splitlines(), 20)
    wait_until(lambda: any("secret=1" in one.body for one in rig.collector.lines), 20)
    [line] = [one for one in rig.collector.lines if "secret=1" in one.body]
    assert '"GET /gone?secret=1 HTTP/1.1" 410' in line.body
    assert line.said.keys() >= {*access_log.JSON, "service.name", "service.instance.id"}
    assert (line.said["response_code"], line.said["service.name"]) == ("410", "web.shop")


def test_a_filter_says_of_which_requests_there_are_lines(rig: Rig) -> None:
    for path in ("/fine", "/quiet", "/gone/1"):
        rig.get("filtered", path)

    wait_until(lambda: "GET /gone/1" in rig.lines("short.log"), 20)
    assert not {"GET /fine", "GET /quiet"} & set(rig.lines("short.log"))


def test_nobody_writes_where_a_telemetry_says_so(rig: Rig) -> None:
    rig.get("nothing", "/gone/nothing")
    rig.get("filtered", "/gone/after")

    wait_until(lambda: "GET /gone/after" in rig.lines("short.log"), 20)
    assert rig.lines("nothing.log") == []


# ---- spans


@pytest.mark.parametrize(
    ("port", "came", "goes"),
    [
        ("b3", B3, {"x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled"}),
        ("both", B3, {"x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "traceparent"}),
        ("both", W3C, {"x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "traceparent"}),
        ("w3c", W3C, {"traceparent"}),
        ("w3c", B3, {"traceparent", *B3}),  # which are an application's own there
    ],
)
def test_a_trace_goes_on_by_the_headers_of_its_tracer(
    rig: Rig, port: str, came: dict[str, str], goes: set[str]
) -> None:
    rig.passed_on.clear()
    rig.get(port, "/books", **{name.replace("-", "_"): value for name, value in came.items()})

    [headers] = rig.passed_on
    assert {name for name in headers if name.startswith("x-b3-") or name == "traceparent"} >= goes
    same = headers["traceparent"].split("-")[1] if port == "w3c" else headers["x-b3-traceid"]
    assert (same == TRACE) is not (port == "w3c" and came is B3)  # OpenTelemetry's tracer takes no B3


def test_zipkin_gets_the_span_of_the_trace_that_came(rig: Rig) -> None:
    rig.get("b3", "/zipkin", **{name.replace("-", "_"): value for name, value in B3.items()})

    def found() -> list[dict[str, Any]]:
        return [one for one in rig.collector.zipkin if one["tags"]["http.url"].endswith("/zipkin")]

    wait_until(lambda: found() != [], 30)
    [span] = found()
    assert (span["traceId"], span["parentId"], span["tags"]["policyd.instance"]) == (TRACE, SPAN, "web-v1")
    assert span["localEndpoint"]["serviceName"] == "web"


@pytest.mark.parametrize("port", ["w3c", "grpc"])
def test_a_collector_of_otlp_gets_the_span_by_http_or_grpc(rig: Rig, port: str) -> None:
    rig.get(port, f"/otlp/{port}", traceparent=W3C["traceparent"])

    def found() -> list[Span]:
        return [one for one in rig.collector.spans if one.tags["http.url"].endswith(f"/otlp/{port}")]

    wait_until(lambda: found() != [], 30)
    [span] = found()
    assert (span.service, span.trace, span.parent, span.tags["policyd.instance"]) == (
        "web.shop", TRACE, SPAN, "web-v1",
    )  # fmt: skip


def test_of_a_hundred_requests_as_many_are_traced_as_is_said_and_all_that_a_caller_traces(rig: Rig) -> None:
    for number in range(60):
        rig.get("none", f"/share/none/{number}")
        rig.get("half", f"/share/half/{number}")
    rig.get("none", "/share/caller", traceparent=W3C["traceparent"])
    rig.get("w3c", "/share/last")

    def told(of: str) -> int:
        return sum(f"/share/{of}" in one.tags["http.url"] for one in rig.collector.spans)

    wait_until(lambda: (told("caller"), told("last")) == (1, 1), 30)
    assert told("none") == 0
    assert 5 < told("half") < 55  # of sixty by chance; to be off by so much takes a hundred million tries


def test_the_id_of_the_request_says_what_is_traced_where_a_telemetry_says_so(rig: Rig) -> None:
    low, high = (
        f"{first}-3b1f-4c8e-9f00-0123456789ab" for first in ("00000000", "0000270f")
    )  # of 10,000 the first, last
    rig.get("by-id", "/by-id/low", x_request_id=low)
    rig.get("by-id", "/by-id/high", x_request_id=high)
    rig.get("by-id", "/by-id/high-of-caller", x_request_id=high, traceparent=W3C["traceparent"])
    rig.get("w3c", "/by-id/last")

    def told() -> set[str]:
        return {url.rpartition("/")[2] for one in rig.collector.spans if "/by-id/" in (url := one.tags["http.url"])}

    wait_until(lambda: {"low", "last"} <= told(), 30, lambda: str(told()))
    assert told() == {"low", "last"}


def test_a_tag_comes_from_the_proxy_s_own_environment(rig: Rig) -> None:
    rig.get("tagged", "/tagged")

    def found() -> list[Span]:
        return [one for one in rig.collector.spans if one.tags.get("http.url", "").endswith("/tagged")]

    wait_until(lambda: found() != [], 30)
    [span] = found()
    assert (span.tags["home"], span.tags["zone"]) == (os.environ["HOME"], "none")


def test_an_id_of_a_caller_s_own_does_not_keep_a_request_from_being_traced(rig: Rig) -> None:
    rig.get("w3c", "/own-id", x_request_id="order-17")

    wait_until(lambda: any("/own-id" in one.tags["http.url"] for one in rig.collector.spans), 10)


@pytest.mark.parametrize(
    ("came", "told", "goes_on"),
    [
        ({}, False, "00"),
        ({"traceparent": f"00-{TRACE}-{SPAN}-00"}, False, "00"),
        (W3C, True, "01"),
    ],
)
def test_policyd_is_told_of_the_trace_of_what_is_traced_and_the_next_hop_always(
    rig: Rig, came: dict[str, str], told: bool, goes_on: str
) -> None:
    for seen in (rig.authorization.told, rig.authorization.asked, rig.passed_on):
        seen.clear()
    assert rig.get("asked", "/yes", **came) == 200

    [beside], [question], [passed_on] = rig.authorization.told, rig.authorization.asked, rig.passed_on
    assert ("traceparent" in beside, "tracestate" in beside) == (told, told)
    assert question.headers.get("traceparent", "") == came.get("traceparent", "")
    _, trace, span, flags = passed_on["traceparent"].split("-")
    assert (trace == TRACE, span == SPAN, flags) == (bool(came), False, goes_on)
    assert beside.get("traceparent", "").split("-")[1:2] == ([trace] if told else [])


def test_the_question_to_policyd_is_a_span_of_the_trace_with_what_was_decided(rig: Rig) -> None:
    assert rig.get("asked", "/no", **W3C) == 403

    def found() -> list[Span]:
        return [one for one in rig.collector.spans if one.trace == TRACE and "/no" in one.tags.get("http.url", "")]

    wait_until(lambda: found() != [], 30)
    [span] = found()
    assert (span.tags["policyd.decision"], span.tags["policyd.policy"]) == ("deny", "no")
    wait_until(lambda: any(one.parent == span.span for one in rig.collector.spans), 30)


def test_and_lines_by_grpc(rig: Rig) -> None:
    rig.get("grpc", "/gone/by-grpc")

    wait_until(lambda: any("/gone/by-grpc" in one.body for one in rig.collector.lines), 20)


# ---- what a peer calls itself


@pytest.mark.parametrize(("path", "status"), [("/yes", 200), ("/no", 403)])
def test_what_a_peer_calls_itself_is_counted_and_told_to_neither_policyd_nor_the_application(
    rig: Rig, path: str, status: int
) -> None:
    rig.passed_on.clear()
    rig.authorization.asked.clear()
    speaks = Party(f"peer-{status}", "shop", "peer", "v1", "peer.shop")

    def told(headers: Mapping[str, str]) -> tuple[str, bool]:
        return headers["x-team"], signals.PEER_HEADER in headers

    assert rig.get("decided", path, x_policyd_peer=str(speaks), x_team="books") == status

    [question] = rig.authorization.asked
    assert (question.path, told(question.headers)) == (path, ("books", False))
    assert [told(one) for one in rig.passed_on] == ([("books", False)] if status == 200 else [])
    wait_until(lambda: str(speaks) in asyncio.run(rig.envoy.ask("/stats/prometheus?usedonly")), 20)


# ---- more than there is room for


def test_an_envoy_that_keeps_no_more_series_says_how_often_it_did_not_count(rig: Rig) -> None:
    for number in range(12):
        rig.get("many", f"/{number}")

    def page() -> str:
        return asyncio.run(rig.envoy.ask("/stats/prometheus?usedonly"))

    wait_until(lambda: dropped_in(page()) == 7, 20)
    counted = [line for line in page().splitlines() if line.startswith("envoy_istio_requests_total{")]
    lines = [line for line in counted if 'path="/' in line]  # the port's own
    assert len(lines) == 5
