"""Kubernetes' Gateway API at a real gateway and in real sidecars: what a route says is what its clients see."""

from __future__ import annotations

import json
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.certificates import Authority
from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.terminal import wait_until
from tests.mesh.gateway_api.sample import gateway, resource, route

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PLAIN, SECURE, RAW = 18080, 18443, 19000
ECHO = {"command": [sys.executable, str(Path(__file__).parent / "echo.py")], "health": "/health"}
WORKLOADS = {
    "workloads": {
        "one": {"service": "one", "port": 80, **ECHO},
        "two": {"service": "two", "port": 80, **ECHO},
        "far": {"service": "far", "port": 80, "namespace": "far", **ECHO},
        "raw": {"service": "raw", "port": 80, "protocol": "tcp", **ECHO},
    },
    "gateways": {"edge": {"listen": [PLAIN, SECURE, RAW]}},
}
POLICY = """\
@id("anything") permit (principal, action, resource)
unless { context has request && context.request.path like "/forbidden*" };
"""


def to(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, "port": 80, **more} for name in names]


def rule(path: str, *filters: dict[str, Any], refs: Any = None, **more: Any) -> dict[str, Any]:
    given = {"filters": list(filters)} if filters else {}
    return {"matches": [{"path": {"value": path}}], "backendRefs": to("one") if refs is None else refs, **given, **more}


REDIRECT = {"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "port": 8443, "statusCode": 301}}
HEADERS = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-a", "value": "set"}]}}
ANSWERS = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-b", "value": "set"}]}}
PREFIX = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}
REWRITE = {"type": "URLRewrite", "urlRewrite": {"hostname": "b.example", "path": PREFIX}}
MIRROR = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "two", "port": 80}}}
FAR = {"name": "far", "namespace": "far", "port": 80}
LET = resource(
    "ReferenceGrant",
    "let",
    {
        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "default"}],
        "to": [{"group": "", "kind": "Service"}],
    },
    version="v1beta1",
    namespace="far",
)
RESOURCES = [
    gateway(
        {"name": "http", "port": PLAIN, "protocol": "HTTP"},
        {"name": "own", "port": PLAIN, "protocol": "HTTP", "hostname": "own.example"},
        {
            "name": "https", "port": SECURE, "protocol": "HTTPS", "hostname": "a.example",
            "tls": {"certificateRefs": [{"name": "shown"}]},
        },
        {"name": "raw", "port": RAW, "protocol": "TCP"},
    ),
    route(
        rule("/segments"),
        rule("/headers", HEADERS, ANSWERS),
        rule("/old", REWRITE),
        rule("/moved", REDIRECT, refs=[]),
        rule("/halves", refs=to("one", "two")),
        rule("/broken", refs=to("one", "nobody")),
        rule("/gone", refs=to("nobody")),
        rule("/far", refs=[FAR]),
        rule("/sleep", timeouts={"request": "300ms"}),
        rule("/flaky", retry={"attempts": 3, "codes": [503], "backoff": "10ms"}),
        rule("/copied", MIRROR),
        parentRefs=[{"name": "edge", "sectionName": "http"}, {"name": "edge", "sectionName": "https"}],
        hostnames=["a.example"],
    ),
    route(rule("/"), name="wrong", parentRefs=[{"name": "edge", "sectionName": "no"}], hostnames=["wrong.example"]),
    route({"backendRefs": to("raw")}, name="raw", kind="TCPRoute", parentRefs=[{"name": "edge", "sectionName": "raw"}]),
    route(rule("/to-two", refs=to("two")), rule("/", refs=to("one")), name="mesh",
          parentRefs=[{"group": "", "kind": "Service", "name": "one"}]),
    LET,
]  # fmt: skip


@pytest.fixture(scope="module")
def servers() -> Authority:
    """Who certifies what the gateway shows."""
    return Authority("servers")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, servers: Authority) -> Iterator[RunningMesh]:
    """A mesh with all of it."""
    folder = tmp_path_factory.mktemp("gateway-api")
    (folder / "mesh").mkdir()
    (folder / "policies").mkdir()
    shown = folder / "credentials" / "shown"
    shown.mkdir(parents=True)
    certificate, key = servers.issue("a.example")
    (shown / "tls.key").touch(mode=0o600)
    (shown / "tls.key").write_text(key)
    (shown / "tls.crt").write_text(certificate)
    (folder / "workloads.yaml").write_text(yaml.safe_dump(WORKLOADS))
    (folder / "policies" / "all.cedar").write_text(POLICY)
    write(folder, RESOURCES)
    try:
        yield up(folder)
    finally:
        down(folder)


def write(folder: Path, resources: list[dict[str, Any]]) -> None:
    (folder / "mesh" / "it.yaml").write_text(yaml.safe_dump_all(resources))


def port(mesh: RunningMesh, declared: int) -> int:
    [found] = [one["actual"] for one in mesh.place("edge")["listens"] if one["declared"] == declared]
    return int(found)


@pytest.fixture(scope="module")
def client(mesh: RunningMesh) -> Iterator[httpx.Client]:
    """A stranger who asks the gateway for a.example."""
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port(mesh, PLAIN)}", headers={"host": "a.example"}, trust_env=False, timeout=20
    ) as made:
        yield made


def asked(client: httpx.Client, path: str, **headers: str) -> httpx.Response:
    """An answer that somebody decided on: a busy machine may be too late, which is a 503 of the gateway's own."""
    reply = client.get(path, headers=headers)
    for _ in range(5):
        if reply.status_code != 503 or "x-app" in reply.headers:
            break
        reply = client.get(path, headers=headers)
    return reply


@pytest.mark.parametrize(
    ("path", "host", "expected"),
    [
        ("/segments", "a.example", 200),
        ("/segments/b", "a.example", 200),
        ("/segmentsb", "a.example", 404),
        ("/segments", "own.example", 404),
        ("/segments", "b.example", 404),
        ("/", "wrong.example", 404),
        ("/gone", "a.example", 500),
        ("/far", "a.example", 200),
        ("/sleep/5", "a.example", 504),
        ("/sleep/0", "a.example", 200),
        ("/forbidden", "a.example", 403),
    ],
)
def test_who_is_answered_how(client: httpx.Client, path: str, host: str, expected: int) -> None:
    assert asked(client, path, host=host).status_code == expected


def test_headers_are_set_on_both_ways(client: httpx.Client) -> None:
    reply = asked(client, "/headers")

    assert (reply.json()["headers"]["x-a"], reply.headers["x-b"]) == ("set", "set")


@pytest.mark.parametrize(("path", "seen"), [("/old/b?c=1", "/new/b?c=1"), ("/old", "/new"), ("/old/", "/new/")])
def test_a_prefix_is_replaced_and_the_host_too(client: httpx.Client, path: str, seen: str) -> None:
    told = asked(client, path).json()

    assert (told["path"], told["host"]) == (seen, "b.example")


def test_a_client_is_sent_elsewhere(client: httpx.Client) -> None:
    reply = asked(client, "/moved/b?c=1")

    assert (reply.status_code, reply.headers["location"]) == (301, "https://a.example:8443/moved/b?c=1")


def test_shares_go_to_each_and_those_of_nobody_are_500(client: httpx.Client) -> None:
    whole = Counter(asked(client, "/halves").json()["instance"] for _ in range(40))
    half = Counter(asked(client, "/broken").status_code for _ in range(40))

    assert set(whole) == {"one", "two"}
    assert set(half) == {200, 500}


def test_what_fails_is_tried_again(client: httpx.Client) -> None:
    reply = asked(client, "/flaky/a/2")

    assert (reply.status_code, reply.json()["times"]) == (200, 3)


def test_copies_go_to_another_service(client: httpx.Client, mesh: RunningMesh) -> None:
    assert asked(client, "/copied/a").json()["instance"] == "one"

    mine = count(1)  # what is asked here is counted there, too

    with mesh.client("one") as inside:
        wait_until(lambda: inside.get("http://two/copied/a").json()["times"] > next(mine), 30)


def test_a_listener_with_a_certificate_has_the_same_routes(mesh: RunningMesh, servers: Authority) -> None:
    trust = ssl.create_default_context(cadata=servers.pem)
    with httpx.Client(verify=trust, trust_env=False, timeout=20, headers={"host": "a.example"}) as secure:
        secure.base_url = httpx.URL(f"https://127.0.0.1:{port(mesh, SECURE)}")
        for _ in range(5):
            reply = secure.get("/segments", extensions={"sni_hostname": "a.example"})
            if reply.status_code == 200:
                break

    assert reply.json()["instance"] == "one"


def test_connections_go_where_their_route_says(mesh: RunningMesh) -> None:
    with socket.create_connection(("127.0.0.1", port(mesh, RAW)), timeout=20) as raw:
        raw.sendall(b"GET /raw HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        told = b"".join(iter(lambda: raw.recv(65536), b""))

    assert json.loads(told.partition(b"\r\n\r\n")[2])["instance"] == "raw"


def test_routes_of_a_service_hold_in_sidecars(mesh: RunningMesh) -> None:
    with mesh.client("two") as inside:
        led = [inside.get(f"http://one{path}").json()["instance"] for path in ("/to-two", "/to-two/b", "/to-twob")]

    assert led == ["two", "two", "one"]


def test_what_is_told_is_what_holds(client: httpx.Client, mesh: RunningMesh) -> None:
    [wrong] = mesh.says("mesh", "get", "httproute", "wrong")["resources"]
    [edge] = mesh.says("mesh", "get", "gtw", "edge")["resources"]

    assert wrong["status"]["parents"][0]["conditions"][0]["reason"] == "NoMatchingParent"
    assert [one["reason"] for one in edge["status"]["conditions"]] == ["Accepted", "Programmed"]
    assert [one["attachedRoutes"] for one in edge["status"]["listeners"]] == [1, 0, 1, 1]

    # a listener that is taken away takes its routes with it, and nothing else
    write(mesh.directory, [one for one in RESOURCES if one["metadata"]["name"] != "let"])
    wait_until(lambda: asked(client, "/far").status_code == 500, 30)
    assert asked(client, "/segments").status_code == 200
