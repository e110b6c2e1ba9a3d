"""Each field of an HTTP rule does to a real request what it says, in a sidecar and at a gateway alike.

Every row is a host of its own, whose rule stands before one that answers 299.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.terminal import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("routes"), pytest.mark.timeout(120)]

ECHO = {"destination": {"host": "echo"}}
ONE, TWO = ({"destination": {"host": "echo", "subset": name}} for name in ("one", "two"))
MISSED = 299  # what the rule after the row's own answers


@dataclass(frozen=True, slots=True)
class Row:
    """A rule, a request, and what comes back; `told` is a part of what the application was asked."""

    name: str
    rule: dict[str, Any]
    request: tuple[str, str] = ("GET", "/")
    sent: dict[str, str] = field(default_factory=dict)
    status: int = 200
    told: dict[str, Any] = field(default_factory=dict)
    answered: dict[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    seconds: tuple[float, float] = (0.0, 10.0)


def matched(name: str, match: dict[str, Any], *, hit: Any, miss: Any) -> list[Row]:
    """Two rows: a request that a block holds for, and one that it does not."""
    rule = {"match": [match], "route": [ECHO]}
    rows = []
    for kind, asked, status in (("hit", hit, 200), ("miss", miss, MISSED)):
        method, path, sent = asked
        rows.append(Row(f"{name}-{kind}", rule, (method, path), sent, status))
    return rows


def get(path: str = "/", **sent: str) -> tuple[str, str, dict[str, str]]:
    return "GET", path, {name.replace("_", "-"): value for name, value in sent.items()}


MATCHES = [
    *matched("exact", {"uri": {"exact": "/a"}}, hit=get("/a?x=1"), miss=get("/a/b")),
    *matched("prefix", {"uri": {"prefix": "/a"}}, hit=get("/ab"), miss=get("/b")),
    *matched("regex", {"uri": {"regex": "/[0-9]+"}}, hit=get("/12"), miss=get("/12a")),
    *matched("long-regex", {"uri": {"regex": "/[a-z]{1,200}"}}, hit=get("/" + "a" * 200), miss=get("/" + "a" * 201)),
    *matched("case", {"uri": {"prefix": "/a"}, "ignoreUriCase": True}, hit=get("/A"), miss=get("/B")),
    *matched("scheme", {"scheme": {"exact": "http"}, "uri": {"exact": "/a"}}, hit=get("/a"), miss=get("/b")),
    *matched("method", {"method": {"regex": "PUT|POST"}}, hit=("PUT", "/", {}), miss=get()),
    *matched("authority", {"authority": {"prefix": "authority-hit"}}, hit=get(), miss=get()),
    *matched("header", {"headers": {"X-A": {"exact": "1"}}}, hit=get(x_a="1"), miss=get(x_a="2")),
    *matched("present", {"headers": {"x-a": {}}}, hit=get(x_a=""), miss=get()),
    *matched("without", {"withoutHeaders": {"x-a": {"prefix": "1"}}}, hit=get(x_a="2"), miss=get(x_a="12")),
    *matched("absent", {"withoutHeaders": {"x-a": {}}}, hit=get(), miss=get(x_a="1")),
    *matched("query", {"queryParams": {"v": {"exact": "2"}}}, hit=get("/?v=2"), miss=get("/?v=3")),
    *matched("query-there", {"queryParams": {"v": {}}}, hit=get("/?v="), miss=get("/?w=1")),
    *matched(
        "all-of-a-block",
        {"uri": {"prefix": "/a"}, "headers": {"x-a": {}}},
        hit=get("/a", x_a="1"),
        miss=get("/a"),
    ),
]
TO_ECHO: dict[str, Any] = {"route": [ECHO]}
SHARES = {
    "route": [
        {**ONE, "weight": 1, "headers": {"request": {"set": {"x-share": "one"}}}},
        {**TWO, "weight": 0},
    ]
}
CORS = {
    "allowOrigins": [{"exact": "https://a.example"}],
    "allowMethods": ["GET", "PUT"],
    "allowHeaders": ["x-a"],
    "exposeHeaders": ["x-b"],
    "maxAge": "1h",
    "allowCredentials": True,
}
PREFLIGHT = {"origin": "https://a.example", "access-control-request-method": "PUT"}
FOREIGN = {"origin": "https://b.example", "access-control-request-method": "PUT"}
ALWAYS = {"percentage": {"value": 100}}
ACTIONS = [
    Row("subset-one", {"route": [ONE]}, told={"instance": "echo-1"}),
    Row("subset-two", {"route": [TWO]}, told={"instance": "echo-2"}),
    Row("weight-0", SHARES, told={"instance": "echo-1"}),
    Row("port", {"route": [{"destination": {"host": "echo.default.svc", "port": {"number": 80}}}]}),
    Row(
        "rewrite-prefix",
        {"match": [{"uri": {"prefix": "/a/"}}], "rewrite": {"uri": "/b/"}, **TO_ECHO},
        ("GET", "/a/c?x=1"),
        told={"path": "/b/c?x=1"},
    ),
    Row(
        "rewrite-exact",
        {"match": [{"uri": {"exact": "/a"}}], "rewrite": {"uri": "/b"}, **TO_ECHO},
        ("GET", "/a"),
        told={"path": "/b"},
    ),
    Row(
        "rewrite-whole",
        {"match": [{"uri": {"regex": "/a.*"}}], "rewrite": {"uri": "/b"}, **TO_ECHO},
        ("GET", "/aa"),
        told={"path": "/b"},
    ),
    Row("rewrite-everything", {"rewrite": {"uri": "/b"}, **TO_ECHO}, ("GET", "/a"), told={"path": "/b/a"}),
    Row(
        "rewrite-regex",
        {"rewrite": {"uriRegexRewrite": {"match": "^/v([0-9])/(.*)$", "rewrite": "/\\2/v\\1"}}, **TO_ECHO},
        ("GET", "/v1/a?x=1"),
        told={"path": "/a/v1?x=1"},
    ),
    Row("rewrite-host", {"rewrite": {"authority": "b.example:81"}, **TO_ECHO}, told={"host": "b.example:81"}),
    Row(
        "set-host",
        {"headers": {"request": {"set": {":authority": "c.example"}}}, **TO_ECHO},
        told={"host": "c.example"},
    ),
    Row(
        "set-host-of-one",
        {"route": [{**ECHO, "headers": {"request": {"set": {"host": "d.example"}}}}]},
        told={"host": "d.example"},
    ),
    Row(
        "headers-request",
        {"headers": {"request": {"set": {"x-a": "50%"}, "add": {"x-b": "2"}, "remove": ["x-c"]}}, **TO_ECHO},
        sent={"x-a": "1", "x-b": "1", "x-c": "1"},
        told={"headers": {"x-a": "50%", "x-b": "1,2", "x-c": None}},
    ),
    Row(
        "headers-response",
        {"headers": {"response": {"set": {"x-a": "1"}, "remove": ["x-app"]}}, **TO_ECHO},
        answered={"x-a": "1", "x-app": None},
    ),
    Row("headers-of-a-share", SHARES, told={"headers": {"x-share": "one"}}),
    Row("redirect", {"redirect": {"uri": "/new"}}, ("GET", "/old"), status=301, answered={"location": "…/new"}),
    Row(
        "redirect-all",
        {"redirect": {"uri": "/n", "authority": "b.example", "scheme": "https", "port": 8443, "redirectCode": 308}},
        status=308,
        answered={"location": "https://b.example:8443/n"},
    ),
    Row(
        "redirect-prefix",
        {"match": [{"uri": {"prefix": "/a"}}], "redirect": {"prefixRewrite": "/b"}},
        ("GET", "/a/c?x=1"),
        status=301,
        answered={"location": "…/b/c?x=1"},
    ),
    Row(
        "redirect-scheme",
        {"redirect": {"scheme": "https", "derivePort": "FROM_PROTOCOL_DEFAULT", "authority": "b.example"}},
        status=301,
        answered={"location": "https://b.example/"},
    ),
    Row("direct-string", {"directResponse": {"status": 418, "body": {"string": "tea"}}}, status=418, body=b"tea"),
    Row("direct-bytes", {"directResponse": {"status": 200, "body": {"bytes": "AAH/"}}}, body=b"\x00\x01\xff"),
    Row("direct-long", {"directResponse": {"status": 200, "body": {"string": "x" * 5000}}}, body=b"x" * 5000),
    Row("direct-empty", {"directResponse": {"status": 503}}, status=503, body=b""),
    Row("timeout", {"timeout": "0.3s", **TO_ECHO}, ("GET", "/sleep/5"), status=504, seconds=(0.29, 4)),
    Row("no-timeout", TO_ECHO, ("GET", "/sleep/0.4"), seconds=(0.4, 5)),
    Row("no-retry-of-503", TO_ECHO, ("GET", "/flaky/default-{side}/1"), status=503),
    Row(
        "retry-of-503",
        {"retries": {"attempts": 2, "retryOn": "503"}, "route": [ONE]},
        ("GET", "/flaky/retried-{side}/2"),
        told={"times": 3},
    ),
    Row(
        "no-retry", {"retries": {"attempts": 0, "retryOn": "5xx"}, **TO_ECHO}, ("GET", "/flaky/no-{side}/1"), status=503
    ),
    Row(
        "per-try-timeout",
        {"retries": {"attempts": 1, "perTryTimeout": "0.3s", "retryOn": "5xx"}, **TO_ECHO},
        ("GET", "/sleep/5"),
        status=504,
        seconds=(0.6, 4),
    ),
    Row(
        "backoff",
        {
            "retries": {"attempts": 2, "backoff": "0.01s", "retryOn": "503", "retryIgnorePreviousHosts": False},
            "route": [ONE],
        },
        ("GET", "/flaky/backoff-{side}/2"),
        told={"times": 3},
    ),
    Row("delay", {"fault": {"delay": {"fixedDelay": "0.5s", **ALWAYS}}, **TO_ECHO}, seconds=(0.5, 5)),
    Row("delay-of-none", {"fault": {"delay": {"fixedDelay": "9s"}}, **TO_ECHO}, seconds=(0, 5)),
    Row("abort", {"fault": {"abort": {"httpStatus": 555, **ALWAYS}}, **TO_ECHO}, status=555, answered={"x-app": None}),
    Row("abort-of-none", {"fault": {"abort": {"httpStatus": 555}}, **TO_ECHO}),
    Row(
        "abort-grpc",
        {"fault": {"abort": {"grpcStatus": "UNAVAILABLE", **ALWAYS}}, **TO_ECHO},
        ("POST", "/a.B/C"),
        sent={"content-type": "application/grpc"},
        answered={"grpc-status": "14"},
    ),
    Row(
        "fault-without-patience",
        {"fault": {"abort": {"httpStatus": 555}}, "timeout": "0.1s", **TO_ECHO},
        ("GET", "/sleep/0.4"),
        seconds=(0.4, 5),
    ),
    Row(
        "cors-preflight",
        {"corsPolicy": CORS, **TO_ECHO},
        ("OPTIONS", "/"),
        sent=PREFLIGHT,
        answered={
            "access-control-allow-origin": "https://a.example",
            "access-control-allow-methods": "GET,PUT",
            "access-control-allow-headers": "x-a",
            "access-control-max-age": "3600",
            "access-control-allow-credentials": "true",
            "x-app": None,
        },
    ),
    Row(
        "cors-answer",
        {"corsPolicy": CORS, **TO_ECHO},
        sent={"origin": "https://a.example"},
        answered={"access-control-allow-origin": "https://a.example", "access-control-expose-headers": "x-b"},
    ),
    Row(
        "cors-other",
        {"corsPolicy": CORS, **TO_ECHO},
        ("OPTIONS", "/"),
        sent=FOREIGN,
        answered={"access-control-allow-origin": None, "x-app": "echo"},
    ),
    Row(
        "cors-ignored",
        {"corsPolicy": {**CORS, "unmatchedPreflights": "IGNORE"}, **TO_ECHO},
        ("OPTIONS", "/"),
        sent=FOREIGN,
        answered={"access-control-allow-origin": None, "x-app": None},
    ),
    Row("delegate", {"delegate": {"name": "inner"}}, ("GET", "/inner"), told={"headers": {"x-inner": "yes"}}),
    Row("for-callers-of-a-namespace", {"match": [{"sourceNamespace": "default"}], **TO_ECHO}),
    Row("not-for-callers-of-another", {"match": [{"sourceNamespace": "far"}], **TO_ECHO}, status=MISSED),
    Row("for-callers-with-a-label", {"match": [{"sourceLabels": {"team": "blue"}}], **TO_ECHO}),
    Row("not-for-callers-without", {"match": [{"sourceLabels": {"team": "red"}}], **TO_ECHO}, status=MISSED),
]
ROWS = [*MATCHES, *ACTIONS]
BROKEN = {f"{row.name}.example" for row in ROWS if row.status == 503 or "/flaky/" in row.request[1]}

WORKLOADS = {
    "workloads": {
        **{
            f"echo-{n}": {
                "service": "echo",
                "port": 80,
                "command": [sys.executable, str(Path(__file__).parent / "echo.py")],
                "health": "/health",
                "labels": {"version": f"v{n}"},
            }
            for n in (1, 2)
        },
        "caller": {"service": "caller", "port": 80, "labels": {"team": "blue"}},
        "far": {"service": "far", "port": 80, "namespace": "far"},
    },
    "gateways": {"edge": {"listen": 8080, "labels": {"team": "blue"}}},
}


def resource(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def resources() -> Iterator[dict[str, Any]]:
    port = {"number": 8080, "name": "http", "protocol": "HTTP"}
    yield resource("Gateway", "edge", selector={"istio": "ingressgateway"}, servers=[{"port": port, "hosts": ["*"]}])
    subsets = [{"name": name, "labels": {"version": version}} for name, version in (("one", "v1"), ("two", "v2"))]
    yield resource("DestinationRule", "echo", host="echo", subsets=subsets)
    yield resource("VirtualService", "inner", http=[{"headers": {"request": {"set": {"x-inner": "yes"}}}, **TO_ECHO}])
    for row in ROWS:
        rules = [row.rule, {"directResponse": {"status": MISSED}}]
        yield resource("VirtualService", row.name, hosts=[f"{row.name}.example"], gateways=["mesh", "edge"], http=rules)
    mirrored = {"mirrors": [{"destination": TWO["destination"]}], "route": [ONE]}
    yield resource("VirtualService", "mirrored", hosts=["mirrored.example"], gateways=["mesh", "edge"], http=[mirrored])
    private = [{"directResponse": {"status": 298}}]
    yield resource("VirtualService", "kept", hosts=["kept.example"], exportTo=["."], http=private)
    by_port = [{"match": [{"port": 8080}], "directResponse": {"status": 297}}, {"directResponse": {"status": 296}}]
    yield resource("VirtualService", "by-port", hosts=["by-port.example"], gateways=["mesh", "edge"], http=by_port)
    by_gateway = [{"match": [{"gateways": ["edge"]}], "directResponse": {"status": 295}}, *private]
    both = {"hosts": ["by-gateway.example"], "gateways": ["mesh", "edge"]}
    yield resource("VirtualService", "by-gateway", **both, http=by_gateway)
    for name, old, new in (("away", "/forbidden", "/fine"), ("towards", "/fine", "/forbidden")):
        rewritten = [{"match": [{"uri": {"exact": old}}], "rewrite": {"uri": new}, **TO_ECHO}]
        yield resource("VirtualService", name, hosts=[f"{name}.example"], gateways=["mesh", "edge"], http=rewritten)


POLICY = """
@id("everything") permit (principal, action, resource);
@id("but-not-there") forbid (principal, action in Action::"http", resource)
when { context.request.path like "/forbidden*" };
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    folder = tmp_path_factory.mktemp("routes")
    (folder / "mesh").mkdir()
    (folder / "policies").mkdir()
    (folder / "workloads.yaml").write_text(yaml.safe_dump(WORKLOADS))
    (folder / "mesh" / "all.yaml").write_text(yaml.safe_dump_all(resources()))
    (folder / "policies" / "all.cedar").write_text(POLICY)
    try:
        yield up(folder)
    finally:
        down(folder)


class Sides:
    """The two ways to a route: through a sidecar's proxy, and at the gateway by Host."""

    def __init__(self, mesh: RunningMesh) -> None:
        self._sidecars = {name: mesh.client(name) for name in ("caller", "far")}
        self._gateway = httpx.Client(base_url=f"http://127.0.0.1:{mesh.place('edge')['listens'][0]['actual']}")

    def ask(self, side: str, host: str, method: str = "GET", path: str = "/", **sent: str) -> httpx.Response:
        """Ask once; where a busy machine was too late to decide, which is 503 and no answer to the question, again."""
        reply = self._ask(side, host, method, path, sent)
        for _ in range(5):
            if reply.status_code != 503 or host in BROKEN:
                break
            reply = self._ask(side, host, method, path, sent)
        return reply

    def _ask(self, side: str, host: str, method: str, path: str, sent: dict[str, str]) -> httpx.Response:
        if side == "edge":
            return self._gateway.request(method, path, headers={**sent, "host": host})
        return self._sidecars[side].request(method, f"http://{host}{path}", headers=sent)

    def close(self) -> None:
        for client in (*self._sidecars.values(), self._gateway):
            client.close()


@pytest.fixture(scope="module")
def sides(mesh: RunningMesh) -> Iterator[Sides]:
    found = Sides(mesh)
    yield found
    found.close()


@pytest.mark.parametrize("side", ["caller", "edge"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_rule_does_what_it_says(sides: Sides, side: str, row: Row) -> None:
    method, path = row.request
    started = time.monotonic()
    reply = sides.ask(side, f"{row.name}.example", method, path.replace("{side}", side), **row.sent)
    took = time.monotonic() - started

    assert reply.status_code == row.status, reply.text
    for name, value in row.answered.items():
        given = reply.headers.get(name)
        assert given == value or (value and value.startswith("…") and (given or "").endswith(value[1:])), name
    if row.body is not None:
        assert reply.content == row.body
    if row.told:
        told = json.loads(reply.content)
        headers = row.told.get("headers", {})
        assert {name: told["headers"].get(name) for name in headers} == headers
        assert {key: told[key] for key in row.told if key != "headers"} == {
            key: value for key, value in row.told.items() if key != "headers"
        }
    assert row.seconds[0] <= took < row.seconds[1]


def test_a_copy_reaches_the_mirror_and_its_answer_nobody(sides: Sides, mesh: RunningMesh) -> None:
    for side in ("caller", "edge"):
        assert sides.ask(side, "mirrored.example", path=f"/copied-{side}").json()["instance"] == "echo-1"

    def arrived() -> set[str]:
        records = mesh.records("echo-2")
        return {path for one in records if (path := one["context"]["request"]["path"]).startswith("/copied-")}

    wait_until(lambda: arrived() == {"/copied-caller", "/copied-edge"}, 10, lambda: str(arrived()))


def test_rules_are_for_the_ports_gateways_and_namespaces_that_they_name(sides: Sides) -> None:
    assert [sides.ask(side, "by-port.example").status_code for side in ("caller", "edge")] == [296, 297]
    assert [sides.ask(side, "by-gateway.example").status_code for side in ("caller", "edge")] == [298, 295]
    assert sides.ask("caller", "kept.example").status_code == 298
    assert sides.ask("far", "kept.example").status_code != 298


@pytest.mark.parametrize(
    ("host", "method", "sent"),
    [
        ("redirect.example", "GET", {}),
        ("direct-string.example", "GET", {}),
        ("abort.example", "GET", {}),
        ("delay.example", "GET", {}),
        ("cors-preflight.example", "OPTIONS", PREFLIGHT),
        ("nobody.example", "GET", {}),
    ],
)
def test_nothing_at_a_gateway_answers_before_the_decision(
    sides: Sides, host: str, method: str, sent: dict[str, str]
) -> None:
    reply = sides.ask("edge", host, method, "/forbidden", **sent)

    assert (reply.status_code, "x-policyd-decision-id" in reply.headers) == (403, True)


def test_a_gateway_decides_on_what_was_asked_and_the_service_on_what_it_gets(sides: Sides) -> None:
    away, towards = "away.example", "towards.example"

    assert sides.ask("edge", away, path="/forbidden").status_code == 403
    assert sides.ask("caller", away, path="/forbidden").json()["path"] == "/fine"
    assert sides.ask("edge", towards, path="/fine").status_code == 403
    assert sides.ask("caller", towards, path="/fine").status_code == 403
    assert sides.ask("edge", towards, path="/forbidden").status_code == 403
