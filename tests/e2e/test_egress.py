"""Requests that leave the mesh, through real sidecars: routed where their route says, and only if a policy permits."""

from __future__ import annotations

import base64
import http.client
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.wire import records
from tests.fakes.outside import Dns, Outside

pytestmark = pytest.mark.e2e

WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80}
  api-v1: {service: api, port: 80}
"""
NAMES = {
    "good.test": ["127.0.0.2"],
    "loop.test": ["127.0.0.1"],
    "metadata.test": ["169.254.169.254"],
    "both.test": ["127.0.0.1", "169.254.169.254"],
    "a.wild.test": ["127.0.0.2"],
    "loop.wild.test": ["127.0.0.1"],
    "mixed.wild.test": ["127.0.0.1", "127.0.0.2"],
    "asked.test": ["127.0.0.2"],
    "asked.loop.test": ["127.0.0.1"],
    "any.other.test": ["127.0.0.2"],
    "loop.other.test": ["127.0.0.1"],
}
POLICIES = """\
@id("web-reads-books")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action in Action::"read",
  resource == Host::"books.example.com");
@id("web-outside")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action, resource in Group::"outside");
"""
GROUPS = f"groups: {{outside: {{hosts: [{', '.join(NAMES)}]}}}}\n"


def entries(port: int) -> str:
    return f"""\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: books}}
spec:
  hosts: [books.example.com]
  ports:
    - {{number: 80, name: http, protocol: HTTP, targetPort: {port}}}
    - {{number: 443, name: tcp, protocol: TCP, targetPort: {port}}}
  resolution: STATIC
  endpoints: [{{address: 127.0.0.2}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: looked-up}}
spec:
  hosts: [good.test, loop.test, metadata.test, both.test, gone.test]
  ports:
    - {{number: 80, name: http, protocol: HTTP, targetPort: {port}}}
    - {{number: 443, name: tcp, protocol: TCP, targetPort: {port}}}
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: wild}}
spec:
  hosts: ["*.wild.test"]
  ports: [{{number: {port}, name: http, protocol: HTTP}}]
  resolution: DYNAMIC_DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: asked}}
spec:
  hosts: [asked.test, asked.loop.test]
  ports: [{{number: {port}, name: http, protocol: HTTP}}]
  resolution: NONE
"""


@cache
def proxy_of(mesh: RunningMesh, instance: str) -> str:
    """Where an instance's application asks, which stays so while the mesh is up."""
    return str(mesh.place(instance)["proxy_url"])


@dataclass(frozen=True, slots=True)
class World:
    """A mesh, what is outside (on 127.0.0.2), and what must never be reached (on 127.0.0.1, same port)."""

    mesh: RunningMesh
    outside: Outside
    inside: Outside

    def get(self, url: str, by: str = "web-v1", method: str = "GET", host: str | None = None) -> httpx.Response:
        headers = {"host": host} if host else {}
        with self.mesh.client(by) as client:
            return client.request(method, url, headers=headers)

    def tunnel(self, to: str, by: str = "web-v1") -> tuple[int, str]:
        """The status of a CONNECT, and what a GET through it answers."""
        proxy = urlsplit(proxy_of(self.mesh, by))
        secret = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
        with socket.create_connection((proxy.hostname or "", proxy.port or 0), timeout=20) as raw:
            raw.sendall(f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nProxy-Authorization: Basic {secret}\r\n\r\n".encode())
            answer = http.client.HTTPResponse(raw, method="CONNECT")
            answer.begin()
            if answer.status != 200:
                return answer.status, ""
            raw.sendall(f"GET /through HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n".encode())
            through = http.client.HTTPResponse(raw, method="GET")
            through.begin()
            return 200, through.read().decode()

    def left(self) -> int:
        """How many requests have left so far."""
        return len(self.outside.seen)


def folder(target: Path, port: int, dns: int, mode: str) -> Path:
    target.mkdir(parents=True)
    (target / "mesh").mkdir()
    (target / "policies").mkdir()
    (target / "workloads.yaml").write_text(WORKLOADS)
    (target / "groups.yaml").write_text(GROUPS)
    (target / "mesh/outside.yaml").write_text(entries(port))
    (target / "policies/out.cedar").write_text(POLICIES)
    (target / "policyd.yaml").write_text(
        f"outboundTrafficPolicy: {{mode: {mode}}}\n"
        f'egress: {{allowAddresses: [127.0.0.2/32], dnsResolvers: ["127.0.0.1:{dns}"]}}\n'
    )
    return target


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("egress") / "mesh"
    with Outside("127.0.0.2") as outside, Outside("127.0.0.1", outside.port) as inside, Dns(NAMES) as dns:
        folder(directory, outside.port, dns.port, "REGISTRY_ONLY")
        try:
            yield World(up(directory), outside, inside)
        finally:
            down(directory)


def test_what_a_policy_permits_leaves_and_is_on_record(world: World) -> None:
    answer = world.get("http://books.example.com/a?b")

    assert (answer.status_code, answer.text) == (200, "127.0.0.2\n")
    assert world.outside.seen[-1] == "GET books.example.com /a?b"
    record = records(world.mesh.directory, resource='Host::"books.example.com"')[-1]
    assert (record["principal"], record["decision"], record["reasons"], record["proxy"]) == (
        'Workload::"spiffe://cluster.local/ns/default/sa/web"',
        "allow",
        ["web-reads-books"],
        "web-v1",
    )


@pytest.mark.parametrize(
    ("by", "method", "url"),
    [
        ("api-v1", "GET", "http://books.example.com/"),
        ("web-v1", "POST", "http://books.example.com/"),
        ("web-v1", "GET", "http://b.wild.test:{port}/"),
    ],
)
def test_without_a_policy_nothing_leaves(world: World, by: str, method: str, url: str) -> None:
    before = world.left()

    answer = world.get(url.format(port=world.outside.port), by, method)

    assert (answer.status_code, world.left()) == (403, before)
    record = world.mesh.record(answer.headers["x-policyd-decision-id"])
    assert (record["decision"], record["resource"].partition("::")[0], record["proxy"]) == ("deny", "Host", by)


def test_decisions_on_the_way_out_are_counted_as_such(world: World) -> None:
    world.get("http://books.example.com/")
    address = world.mesh.status()["http_address"]
    metrics = httpx.get(f"http://{address}/metrics", trust_env=False).text

    assert any(
        line.startswith('policyd_decisions_total{decision="allow",side="egress"}') and not line.endswith(" 0.0")
        for line in metrics.splitlines()
    )


def test_a_name_that_nothing_declares_is_502_unasked(world: World) -> None:
    before = len(records(world.mesh.directory, kind="decision"))

    answer = world.get("http://nowhere.example.com/")

    assert (answer.status_code, answer.headers.get("x-policyd-decision-id")) == (502, None)
    assert world.tunnel("nowhere.example.com:443")[0] == 502
    assert len(records(world.mesh.directory, kind="decision")) == before


def test_a_forged_host_leads_where_it_says_and_needs_its_own_policy(world: World) -> None:
    before = world.left()
    answer = world.get("http://books.example.com/", by="api-v1", host="good.test")

    assert (answer.status_code, world.left()) == (403, before)


@pytest.mark.parametrize("name", ["loop.test", "metadata.test", "both.test"])
def test_a_name_that_leads_to_forbidden_addresses_leads_nowhere(world: World, name: str) -> None:
    assert world.get("http://good.test/").status_code == 200  # names are looked up by now

    answer = world.get(f"http://{name}/")

    assert (answer.status_code, world.inside.seen) == (403, [])
    assert world.tunnel(f"{name}:443")[0] in (403, 503)
    assert world.inside.seen == []


def test_names_under_a_pattern_are_looked_up_and_lose_their_forbidden_addresses(world: World) -> None:
    at = world.outside.port

    assert world.get(f"http://a.wild.test:{at}/").text == "127.0.0.2\n"
    assert world.get(f"http://loop.wild.test:{at}/").status_code == 503
    assert world.get(f"http://mixed.wild.test:{at}/").text == "127.0.0.2\n"
    assert world.inside.seen == []


def test_without_a_resolution_a_name_leads_to_what_it_means_and_to_no_forbidden_address(world: World) -> None:
    at = world.outside.port
    assert world.get(f"http://asked.test:{at}/").text == "127.0.0.2\n"
    assert world.get(f"http://asked.loop.test:{at}/").status_code == 503
    assert world.inside.seen == []


def test_a_tunnel_is_decided_as_a_connection_and_leads_to_the_asked_name(world: World) -> None:
    assert world.tunnel("good.test:443") == (200, "127.0.0.2\n")
    record = records(world.mesh.directory, resource='Host::"good.test"', action='Action::"connect"')[-1]
    assert (record["decision"], record["reasons"]) == ("allow", ["web-outside"])
    before = world.left()
    assert world.tunnel("good.test:443", by="api-v1")[0] == 403
    assert world.tunnel("books.example.com:443")[0] == 403
    assert world.left() == before


def test_a_tunnel_to_what_answers_requests_goes_around_no_decision(world: World) -> None:
    assert world.tunnel("good.test:80") == (200, "127.0.0.2\n")
    record = records(world.mesh.directory, resource='Host::"good.test"', action='Action::"GET"')[-1]
    assert (record["decision"], record["reasons"], record["context"]["request"]["path"]) == (
        "allow",
        ["web-outside"],
        "/through",
    )
    before = world.left()
    assert world.tunnel("good.test:80", by="api-v1") == (200, "access denied\n")
    assert world.left() == before


def test_any_name_may_be_asked_for_but_a_policy_permits(tmp_path: Path) -> None:
    with Outside("127.0.0.2") as outside, Outside("127.0.0.1", outside.port) as inside, Dns(NAMES) as dns:
        directory = folder(tmp_path / "mesh", outside.port, dns.port, "ALLOW_ANY")
        at = outside.port
        try:
            world = World(up(directory), outside, inside)
            assert world.get(f"http://any.other.test:{at}/").text == "127.0.0.2\n"
            assert world.tunnel(f"any.other.test:{at}") == (200, "127.0.0.2\n")
            before = world.left()
            assert world.get(f"http://unknown.other.test:{at}/").status_code == 403
            assert world.get(f"http://any.other.test:{at}/", by="api-v1").status_code == 403
            assert world.tunnel(f"unknown.other.test:{at}")[0] == 403
            assert world.get(f"http://loop.other.test:{at}/").status_code == 503
            assert world.get(f"http://127.0.0.1:{at}/").status_code == 403
            assert (world.left(), inside.seen) == (before, [])
        finally:
            down(directory)
