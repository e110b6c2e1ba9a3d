"""Sidecar resources through real Envoys: where applications listen, what leaves, how much comes in at once."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.certificates import Authority
from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.terminal import wait_until
from tests.e2e.wire import records
from tests.fakes.outside import Dns, Outside
from tests.whole import put

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("sidecar")]

WORKLOADS = """\
workloads:
  web-v1:  {service: web, port: 80, command: [python, echo.py]}
  api-v1:  {service: api, port: 80, command: [python, echo.py], environment: {SOCKET: SOCKET_PATH}, health: /}
  tls-v1:  {service: tls, port: 80, command: [python, echo.py]}
  two-v1:  {service: two, ports: [{port: 80}, {port: 90, name: http-more}]}
"""
POLICIES = """\
@id("inside") permit (principal is Workload, action in Action::"http", resource is Service);
@id("strangers") permit (principal is Unauthenticated, action in Action::"http", resource == Service::"tls.default")
when { context.request.path == "/open" };
@id("outside") permit (principal, action in Action::"http", resource == Host::"any.test");
"""
SIDECARS = """\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: api}
spec:
  workloadSelector: {labels: {app: api}}
  ingress: [{port: {number: 80}, defaultEndpoint: "unix://SOCKET_PATH"}]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: web}
spec:
  workloadSelector: {labels: {app: web}}
  egress: [{hosts: ["./api.default"]}, {hosts: ["./two.default"], port: {number: 90}}]
  outboundTrafficPolicy: {mode: ALLOW_ANY}
"""
SHOWN = """\
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: tls}
spec:
  workloadSelector: {labels: {app: tls}}
  ingress: [{port: {number: 80}, tls: {mode: SIMPLE, credentialName: tls}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: tls}
spec: {selector: {matchLabels: {app: tls}}, mtls: {mode: DISABLE}}
"""
POOL = """\
  inboundConnectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}
"""


@dataclass(frozen=True, slots=True)
class World:
    """A mesh in which nothing outside is known, and what is outside."""

    mesh: RunningMesh
    sidecars: str
    outside: Outside

    def get(self, url: str, by: str = "web-v1") -> httpx.Response:
        with self.mesh.client(by) as client:
            return client.get(url)


@pytest.fixture(scope="module")
def world(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("s") / "mesh"
    for folder in ("mesh", "policies"):
        (directory / folder).mkdir(parents=True)
    shutil.copy(root / "tests" / "e2e" / "echo.py", directory)
    place = str(directory.parent / "api.sock")
    (directory / "workloads.yaml").write_text(WORKLOADS.replace("SOCKET_PATH", place))
    (directory / "policies" / "all.cedar").write_text(POLICIES)
    sidecars = SIDECARS.replace("SOCKET_PATH", place) + SHOWN
    authority, credential = Authority("Somebody"), directory / "credentials" / "tls"
    credential.mkdir(parents=True)
    (directory.parent / "roots.pem").write_text(authority.pem)
    for name, text in zip(("tls.crt", "tls.key"), authority.issue("tls.example.com"), strict=True):
        (credential / name).touch(mode=0o600)
        (credential / name).write_text(text)
    (directory / "mesh" / "sidecars.yaml").write_text(sidecars)
    with Outside("127.0.0.2") as outside, Dns({"any.test": ["127.0.0.2"], "other.test": ["127.0.0.2"]}) as dns:
        allow = f'egress: {{allowAddresses: [127.0.0.2/32], dnsResolvers: ["127.0.0.1:{dns.port}"]}}\n'
        (directory / "policyd.yaml").write_text(allow)
        try:
            yield World(up(directory), sidecars, outside)
        finally:
            down(directory)


def test_an_application_may_listen_on_a_unix_socket(world: World) -> None:
    answer = world.get("http://api/here")

    assert (answer.status_code, json.loads(answer.text)["instance"]) == (200, "api-v1")
    assert world.mesh.place("api-v1")["ports"][0]["app_socket"].endswith("/api.sock")


def test_names_that_nothing_declares_leave_from_the_workload_that_may_and_only_if_a_policy_permits(
    world: World,
) -> None:
    port = world.outside.port
    assert world.get(f"http://any.test:{port}/").status_code == 200
    assert world.get(f"http://other.test:{port}/").status_code == 403
    assert world.get(f"http://any.test:{port}/", by="api-v1").status_code == 502


def test_of_a_service_only_the_port_that_is_known_is_routed(world: World) -> None:
    # what is not known is a name like any other that leads outside, where policies are asked
    assert world.get("http://two:80/").status_code == 403
    # nothing serves it: the sidecar at the other end has nobody to hand it to
    assert world.get("http://two:90/").status_code == 503


def test_what_comes_in_at_once_is_bounded(world: World) -> None:
    file = world.mesh.directory / "mesh" / "sidecars.yaml"
    put(file, world.sidecars.replace("---\n", POOL + "---\n"))

    def overflows() -> bool:
        with ThreadPoolExecutor(8) as pool:
            found = Counter(pool.map(lambda _: world.get("http://api/sleep/0.5").status_code, range(8)))
        assert set(found) <= {200, 503}
        return found[503] > 0 and found[200] > 0

    wait_until(overflows, 60)
    put(file, world.sidecars)
    wait_until(lambda: not overflows(), 60)


def test_who_is_not_of_the_mesh_may_be_shown_a_certificate_and_stays_nobody(world: World) -> None:
    port = world.mesh.place("tls-v1")["inbound_port"]
    roots = ssl.create_default_context(cafile=str(world.mesh.directory.parent / "roots.pem"))

    def get(path: str) -> int:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as raw,
            roots.wrap_socket(raw, server_hostname="tls.example.com") as tls,
        ):
            tls.sendall(f"GET {path} HTTP/1.1\r\nhost: tls\r\nconnection: close\r\n\r\n".encode())
            return int(tls.recv(64).split()[1])

    assert (get("/open"), get("/other")) == (200, 403)
    record = records(world.mesh.directory, resource='Service::"tls.default"')[-1]
    assert record["principal"] == 'Unauthenticated::"anonymous"'
