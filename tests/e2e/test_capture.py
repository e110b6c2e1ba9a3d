"""Applications that know nothing of the mesh: each machine is a network of its own, captured, and policies decide."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from policyd.mesh.virtual import virtual_addresses
from tests.certificates import Authority
from tests.e2e.conftest import PROGRAM
from tests.e2e.terminal import wait_until
from tests.e2e.wire import policyd, records
from tests.spaces import Space, cable, spaces

pytestmark = [pytest.mark.e2e, pytest.mark.needs("root", "nft", "ip", "nsenter")]

PROXY = PROGRAM + "-proxy"
APP = str(Path(__file__).parent / "apps" / "unaware.py")
GROUP = "1337"  # of the agents, and of nobody else
HUB, WEB, API, OUTSIDE = "10.76.0.1", "10.76.1.2", "10.76.3.2", "10.76.0.80"
CLOSED = {"", "\x15\x03\x01\x00\x02\x02F"}  # the second is an alert of TLS, to who does not speak it
SETTINGS = f"""\
listen: {{xds: "{HUB}:9101", authz: "{HUB}:9102", attestation: "{HUB}:9103"}}
egress: {{allowAddresses: [{OUTSIDE}/32]}}
"""
MESH = f"""\
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: api}}
spec:
  selector: {{app: api}}
  ports:
    - {{name: http, port: 8080}}
    - {{name: grpc, port: 50051}}
    - {{name: tls-own, port: 8443}}
    - {{name: tcp-raw, port: 9000}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: web-1}}
spec: {{address: {WEB}, labels: {{app: web}}, serviceAccount: web}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: api-1
  annotations:
    policyd/inboundPort.grpc: "15106"
    policyd/inboundPort.tls-own: "15107"
    policyd/inboundPort.tcp-raw: "15108"
spec: {{address: {API}, labels: {{app: api}}, serviceAccount: api}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: outside}}
spec:
  hosts: [www.example.test]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 8080}}]
  resolution: STATIC
  endpoints: [{{address: {OUTSIDE}}}]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: web}}
spec:
  workloadSelector: {{labels: {{app: web}}}}
  outboundTrafficPolicy: {{mode: ALLOW_ANY}}
  egress: [{{hosts: ["*/*"], captureMode: IPTABLES}}]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: api}}
spec:
  workloadSelector: {{labels: {{app: api}}}}
  egress: [{{hosts: ["*/*"], captureMode: IPTABLES}}]
  ingress:
    - {{port: {{number: 8080}}, captureMode: IPTABLES}}
    - {{port: {{number: 50051}}, captureMode: IPTABLES}}
    - {{port: {{number: 8443}}, captureMode: IPTABLES}}
    - {{port: {{number: 9000}}, captureMode: IPTABLES}}
"""
POLICY = """\
@id("web-reads")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"GET",
  resource == Service::"api.default") when { context.request.path != "/secret" };
@id("web-greets")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"POST",
  resource == Service::"api.default") when { context.request.path == "/demo.Greeter/Hello" };
@id("web-connects")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"connect",
  resource == Service::"api.default");
@id("web-leaves")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"GET",
  resource == Host::"www.example.test");
@id("web-leaves-by-address")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"connect",
  resource == Host::"10.76.0.80") when { context.destination.port == 9000 };
"""


@dataclass(frozen=True, slots=True)
class Captured:
    """The mesh, and its machines."""

    directory: Path
    web: Space
    api: Space
    hub: Space
    application: subprocess.Popen[str]
    stranger: subprocess.Popen[str]
    roots: Path

    def does(self, *words: Any) -> Any:
        """What the application on the captured machine gets."""
        return asked(self.application, *words)

    def decided(self, resource: str) -> dict[str, Any]:
        """The last record about a resource."""
        return [one for one in records(self.directory) if one.get("resource") == resource][-1]


def asked(client: subprocess.Popen[str], *words: Any) -> Any:
    """What a client gets."""
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(json.dumps(words) + "\n")
    client.stdin.flush()
    return json.loads(client.stdout.readline())


def started(stack: ExitStack, command: list[str], log: Path) -> subprocess.Popen[str]:
    """A program that ends with the tests."""
    with log.open("w") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, text=True)
    stack.enter_context(process)  # waits for its end
    stack.callback(process.terminate)
    return process


def application(stack: ExitStack, space: Space, work: Path, *words: str) -> subprocess.Popen[str]:
    """A program in a network, with a resolv.conf of its own, as on another machine."""
    there = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    command = space.enter(
        "unshare", "--mount", "sh", "-c", there, str(work / "resolv.conf"), sys.executable, APP, *words
    )
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stack.enter_context(process)
    stack.callback(process.terminate)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def network(hub: Space, web: Space, api: Space) -> None:
    """Two machines, a cable between them, and one from each to the hub, where policyd and the outside are."""
    cable(hub, "web", ["10.76.1.1/30", "fd76::1/64"], web, "hub", [f"{WEB}/30", "fd76::2/64"])
    cable(hub, "api", ["10.76.2.1/30"], api, "hub", ["10.76.2.2/30"])
    cable(web, "api", ["10.76.3.1/30"], api, "web", [f"{API}/30"])
    for address in (HUB, OUTSIDE):
        hub.has("addr", "add", f"{address}/32", "dev", "lo")
    web.has("route", "add", "default", "via", "10.76.1.1")
    web.has("-6", "route", "add", "default", "via", "fd76::1")
    api.has("route", "add", "default", "via", "10.76.2.1")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captured]:
    """All of it, once."""
    with machines(tmp_path_factory.mktemp("capture")) as found:
        yield found


@contextmanager
def machines(work: Path) -> Iterator[Captured]:
    """Two captured machines, and the hub."""
    directory = work / "mesh"
    for name, text in (("policyd.yaml", SETTINGS), ("mesh/mesh.yaml", MESH), ("policies/all.cedar", POLICY)):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    (directory / "workloads.yaml").write_text("workloads: {}\n")
    (work / "resolv.conf").write_text(f"nameserver {OUTSIDE}\noptions timeout:5 attempts:2\n")
    authority = Authority("somebody")
    (work / "roots.pem").write_text(authority.pem)
    (work / "api.pem").write_text("".join(authority.issue("api", "api.default")))
    with spaces(3) as (hub, web, api), ExitStack() as stack:
        network(hub, web, api)
        started(stack, hub.enter(PROGRAM, "serve", "--dir", str(directory)), work / "serve.log")
        for space in (api, hub):
            application(stack, space, work, "server", str(work / "api.pem"))
        started(stack, hub.enter(sys.executable, APP, "names", OUTSIDE, "far.test", "192.0.2.9"), work / "names.log")
        client, stranger = (application(stack, space, work, "client") for space in (web, hub))
        log = (work / "serve.log").read_text
        wait_until(lambda: policyd(directory, "status").returncode == 0, 60, log)
        for name, space in (("web", web), ("api", api)):
            done = policyd(directory, "ca", "token", "create", "--agent", name, "--workload", name)
            assert done.returncode == 0, done.stderr
            (work / f"{name}.token").write_text(done.stdout)
            run = [
                "setpriv",
                f"--regid={GROUP}",
                "--clear-groups",
                PROXY,
                "run",
                "--join-file",
                str(work / f"{name}.token"),
            ]
            run += ["--resolv-conf", str(work / "resolv.conf")]
            started(stack, space.enter(*run), work / f"{name}.log")
            space.run(PROXY, "capture", "install", "--proxy-group", GROUP)

        def ready() -> bool:
            found = json.loads(policyd(directory, "proxy", "status", "--json").stdout)["proxies"]
            return len(found) == 2 and all(one["state"] == "synced" for proxy in found for one in proxy["types"])

        wait_until(ready, 60, lambda: "".join((work / f"{name}.log").read_text() for name in ("web", "api", "serve")))
        yield Captured(directory, web, api, hub, client, stranger, work / "roots.pem")


@pytest.mark.parametrize(
    ("does", "gets"),
    [
        (("get", "api", 8080, "/books"), [200, "GET /books"]),
        (("get", "api", 8080, "/books", "GET", 4), [200, "GET /books"]),
        (("get", "api", 8080, "/books", "GET", 6), [200, "GET /books"]),
        (("get", "api.default.svc.cluster.local", 8080, "/books"), [200, "GET /books"]),
        (("get", "api", 8080, "/secret"), [403, "access denied\n"]),
        (("get", "api", 8080, "/books", "DELETE"), [403, "access denied\n"]),
        (("greet", "api", 50051), "hello world"),
        (("chat", "api", 8080, "/ws"), "ping"),
        (("chat", "api", 8080, "/secret"), "403"),
        (("hear", "api", 9000), "first hello you"),
        (("get", "www.example.test", 80, "/out"), [200, "GET /out"]),
        (("get", "www.example.test", 80, "/out", "DELETE"), [403, "access denied\n"]),
        (("say", OUTSIDE, 9000, "it is me\n"), "first hello it is me\n"),
        (("say", OUTSIDE, 9001, "it is me\n"), ""),  # no policy permits it
        (("say", API, 9000, "it is me\n"), ""),  # an instance's own address is no way around its name
        (("get", API, 8080, "/books"), [403, "access denied\n"]),
    ],
)
def test_what_an_application_does_is_decided_though_it_knows_of_nothing(
    mesh: Captured, does: tuple[Any, ...], gets: Any
) -> None:
    assert mesh.does(*does) == gets


def test_tls_passes_unopened_to_the_name_that_was_decided(mesh: Captured) -> None:
    assert mesh.does("secure", "api", 8443, "api", str(mesh.roots)) == "hello hello"
    decided = mesh.decided('Service::"api.default"')
    assert (decided["decision"], decided["principal"]) == (
        "allow",
        'Workload::"spiffe://cluster.local/ns/default/sa/web"',
    )

    assert mesh.does("secure", "api", 8443, "other", str(mesh.roots)) == "ConnectionResetError"
    assert mesh.decided('Host::"other"')["decision"] == "deny"


def test_names_of_the_mesh_have_addresses_of_their_own(mesh: Captured) -> None:
    found = virtual_addresses(["api.default"])["api.default"]

    assert mesh.does("look", "api") == mesh.does("look", "api.default.svc") == sorted(map(str, (found.v4, found.v6)))


def test_a_name_outside_is_asked_of_the_machines_resolvers(mesh: Captured) -> None:
    assert mesh.does("look", "far.test") == ["192.0.2.9"]
    assert mesh.does("look", "nowhere.test").startswith("gaierror")


def test_nobody_comes_past_the_sidecar(mesh: Captured) -> None:
    there = "10.76.2.2"  # the machine, from the hub
    ways = [("say", there, 8080, "GET / HTTP/1.1\r\nhost: api\r\n\r\n"), ("say", there, 9000), ("say", there, 9009)]

    assert {asked(mesh.stranger, *way) for way in ways} <= CLOSED
    mesh.api.run(PROXY, "capture", "remove")
    assert asked(mesh.stranger, "say", there, 9000) == "first hello hello"
    mesh.api.run(PROXY, "capture", "install", "--proxy-group", GROUP)
    assert {asked(mesh.stranger, *way) for way in ways} <= CLOSED


def test_who_was_not_redirected_needs_the_secret(mesh: Captured) -> None:
    assert mesh.does(
        "say", "127.0.0.1", 15001, "GET / HTTP/1.1\r\nhost: api:8080\r\nconnection: close\r\n\r\n"
    ).startswith("HTTP/1.1 401 ")


def test_rules_are_shown_and_mended(mesh: Captured) -> None:
    install = (PROXY, "capture", "install", "--proxy-group", GROUP)
    show = (PROXY, "capture", "show", "--proxy-group", GROUP)
    whole = mesh.web.run(*show)

    mesh.web.run("nft", "flush", "chain", "inet", "policyd_capture", "input")
    assert "this is not what was installed; install it again" in mesh.web.run(*show, code=1)
    mesh.web.run(*install)
    mesh.web.run(*install)
    assert mesh.web.run(*show) == whole
