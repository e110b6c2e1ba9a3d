"""Applications that know nothing of the mesh: each machine is a network of its own, captured, and policies decide.

`web` and `api` are captured by nftables; `old` by iptables, and it is reached by IPv6 alone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
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

# three agents start with as many Envoys, which takes a while where other tests do the same
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.needs("root", "nft", "iptables-restore", "ip", "nsenter"),
]

PROXY = PROGRAM + "-proxy"
APP = str(Path(__file__).parent / "apps" / "unaware.py")
GROUP = "1337"  # of the agents, and of nobody else
HUB, WEB, API, OLD, OUTSIDE = "10.76.0.1", "10.76.1.2", "10.76.3.2", "fd76:6::2", "10.76.0.80"
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
apiVersion: v1
kind: Service
metadata: {{name: old}}
spec:
  selector: {{app: old}}
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
kind: WorkloadEntry
metadata:
  name: old-1
  annotations:
    policyd/inboundPort.grpc: "15106"
    policyd/inboundPort.tls-own: "15107"
    policyd/inboundPort.tcp-raw: "15108"
spec: {{address: "{OLD}", labels: {{app: old}}, serviceAccount: old}}
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
kind: ServiceEntry
metadata: {{name: database}}
spec:
  hosts: [db.example.test]
  ports: [{{number: 7000, name: own, protocol: TCP}}]
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
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: old}}
spec:
  workloadSelector: {{labels: {{app: old}}}}
  outboundTrafficPolicy: {{mode: ALLOW_ANY}}
  egress: [{{hosts: ["*/*"], captureMode: IPTABLES}}]
  ingress:
    - {{port: {{number: 8080}}, captureMode: IPTABLES}}
    - {{port: {{number: 50051}}, captureMode: IPTABLES}}
    - {{port: {{number: 8443}}, captureMode: IPTABLES}}
    - {{port: {{number: 9000}}, captureMode: IPTABLES}}
"""
PAIRS = (("web", "api"), ("web", "old"), ("old", "api"))
CALLS = """\
@id("{caller}-reads-{called}")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/{caller}", action == Action::"GET",
  resource == Service::"{called}.default") when {{ context.request.path != "/secret" }};
@id("{caller}-greets-{called}")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/{caller}", action == Action::"POST",
  resource == Service::"{called}.default") when {{ context.request.path == "/demo.Greeter/Hello" }};
@id("{caller}-connects-{called}")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/{caller}", action == Action::"connect",
  resource == Service::"{called}.default");
"""
LEAVES = """\
@id("{caller}-leaves")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/{caller}", action == Action::"GET",
  resource == Host::"www.example.test");
@id("{caller}-leaves-by-address")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/{caller}", action == Action::"connect",
  resource == Host::"10.76.0.80") when {{ [9000, 3306, 7001].contains(context.destination.port) }};
@id("{caller}-asks-the-database")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/{caller}", action == Action::"connect",
  resource == Host::"db.example.test");
"""
POLICY = "".join(
    [CALLS.format(caller=caller, called=called) for caller, called in PAIRS]
    + [LEAVES.format(caller=caller) for caller in ("web", "old")]
)


@dataclass(frozen=True, slots=True)
class Captured:
    """The mesh, and its machines."""

    directory: Path
    web: Space
    api: Space
    hub: Space
    old: Space
    applications: dict[str, subprocess.Popen[str]]
    agents: dict[str, subprocess.Popen[str]]
    stranger: subprocess.Popen[str]
    roots: Path
    tools: Path  # those of the machine `old`, where no nft is

    def does(self, *words: Any, on: str = "web") -> Any:
        """What the application on a captured machine gets."""
        return asked(self.applications[on], *words)

    def capture(self, name: str, *words: str, code: int = 0) -> str:
        """`policyd-proxy capture` on a machine."""
        before = ("env", f"PATH={self.tools}") if name == "old" else ()
        space: Space = getattr(self, name)
        return space.run(*before, PROXY, "capture", *words, code=code)

    def said(self, name: str) -> str:
        """What an agent logged."""
        return (self.directory.parent / f"{name}.log").read_text()

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


def network(hub: Space, web: Space, api: Space, old: Space) -> None:
    """Three machines with a cable from each to the hub, where policyd and the outside are, and one between two."""
    cable(hub, "web", ["10.76.1.1/30", "fd76::1/64"], web, "hub", [f"{WEB}/30", "fd76::2/64"])
    cable(hub, "api", ["10.76.2.1/30"], api, "hub", ["10.76.2.2/30"])
    cable(web, "api", ["10.76.3.1/30"], api, "web", [f"{API}/30"])
    cable(hub, "old", ["10.76.6.1/30", "fd76:6::1/64"], old, "hub", ["10.76.6.2/30", f"{OLD}/64"])
    hub.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    hub.has("route", "add", f"{API}/32", "via", "10.76.2.2")
    old.has("route", "add", "default", "via", "10.76.6.1")
    old.has("-6", "route", "add", "default", "via", "fd76:6::1")
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
    """Three captured machines, and the hub."""
    directory = work / "mesh"
    for name, text in (("policyd.yaml", SETTINGS), ("mesh/mesh.yaml", MESH), ("policies/all.cedar", POLICY)):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    (directory / "workloads.yaml").write_text("workloads: {}\n")
    (work / "resolv.conf").write_text(f"nameserver {OUTSIDE}\noptions timeout:5 attempts:2\n")
    authority = Authority("somebody")
    (work / "roots.pem").write_text(authority.pem)
    for name in ("api", "old"):
        (work / f"{name}.pem").write_text("".join(authority.issue(name, f"{name}.default")))
    (work / "tools").mkdir()
    for name in ("iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"):
        (work / "tools" / name).symlink_to(str(shutil.which(name)))
    with spaces(4) as (hub, web, api, old), ExitStack() as stack:
        network(hub, web, api, old)
        started(stack, hub.enter(PROGRAM, "serve", "--dir", str(directory)), work / "serve.log")
        for space, name in ((api, "api"), (old, "old"), (hub, "api")):
            application(stack, space, work, "server", str(work / f"{name}.pem"))
        started(stack, hub.enter(sys.executable, APP, "names", OUTSIDE, "far.test", "192.0.2.9"), work / "names.log")
        clients = {name: application(stack, one, work, "client") for name, one in (("web", web), ("old", old))}
        stranger = application(stack, hub, work, "client")
        found = Captured(directory, web, api, hub, old, clients, {}, stranger, work / "roots.pem", work / "tools")
        log = (work / "serve.log").read_text
        wait_until(lambda: policyd(directory, "status").returncode == 0, 60, log)
        for name, space in (("web", web), ("api", api), ("old", old)):
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
            found.agents[name] = started(stack, space.enter(*run), work / f"{name}.log")
            by = "iptables" if name == "old" else "nftables"
            assert found.capture(name, "install", "--proxy-group", GROUP).startswith(f"captured by {by};")

        def ready() -> bool:
            proxies = json.loads(policyd(directory, "proxy", "status", "--json").stdout)["proxies"]
            return len(proxies) == 3 and all(one["state"] == "synced" for proxy in proxies for one in proxy["types"])

        logs = [work / f"{name}.log" for name in ("web", "api", "old", "serve")]
        wait_until(ready, 60, lambda: "".join(one.read_text() for one in logs))
        yield found


@pytest.mark.parametrize(("caller", "called"), PAIRS)
@pytest.mark.parametrize(
    ("does", "gets"),
    [
        (("get", "{called}", 8080, "/books"), [200, "GET /books"]),
        (("get", "{called}", 8080, "/books", "GET", 4), [200, "GET /books"]),
        (("get", "{called}", 8080, "/books", "GET", 6), [200, "GET /books"]),
        (("get", "{called}.default.svc.cluster.local", 8080, "/books"), [200, "GET /books"]),
        (("get", "{called}", 8080, "/secret"), [403, "access denied\n"]),
        (("get", "{called}", 8080, "/books", "DELETE"), [403, "access denied\n"]),
        (("greet", "{called}", 50051), "hello world"),
        (("chat", "{called}", 8080, "/ws"), "ping"),
        (("chat", "{called}", 8080, "/secret"), "403"),
        (("hear", "{called}", 9000), "first hello you"),
        (("get", "www.example.test", 80, "/out"), [200, "GET /out"]),
        (("get", "www.example.test", 80, "/out", "DELETE"), [403, "access denied\n"]),
        (("say", OUTSIDE, 9000, "it is me\n"), "first hello it is me\n"),
        (("say", OUTSIDE, 9001, "it is me\n"), ""),  # no policy permits it
        (("say", "{address}", 9000, "it is me\n"), ""),  # an instance's own address is no way around its name
        (("get", "{address}", 8080, "/books"), [403, "access denied\n"]),
    ],
)
def test_what_an_application_does_is_decided_though_it_knows_of_nothing(
    mesh: Captured, caller: str, called: str, does: tuple[Any, ...], gets: Any
) -> None:
    address = {"api": API, "old": OLD}[called]
    words = [one.format(called=called, address=address) if isinstance(one, str) else one for one in does]

    assert mesh.does(*words, on=caller) == gets


@pytest.mark.parametrize("caller", ["web", "old"])
@pytest.mark.parametrize(
    ("host", "port"),
    [
        (OUTSIDE, 3306),  # nobody declared it, and it is MySQL's
        ("db.example.test", 7000),  # declared as TCP
    ],
)
def test_who_waits_for_its_server_hears_it_at_once(mesh: Captured, caller: str, host: str, port: int) -> None:
    begin = time.monotonic()

    assert mesh.does("hear", host, port, on=caller) == "first hello you"
    assert time.monotonic() - begin < 2.0


def test_where_nobody_declared_it_a_server_is_heard_once_its_client_spoke(mesh: Captured) -> None:
    assert mesh.does("say", OUTSIDE, 7001, "it is me\n") == "first hello it is me\n"


@pytest.mark.parametrize(("caller", "called"), PAIRS)
def test_tls_passes_unopened_to_the_name_that_was_decided(mesh: Captured, caller: str, called: str) -> None:
    assert mesh.does("secure", called, 8443, called, str(mesh.roots), on=caller) == "hello hello"
    decided = mesh.decided(f'Service::"{called}.default"')
    assert (decided["decision"], decided["principal"]) == (
        "allow",
        f'Workload::"spiffe://cluster.local/ns/default/sa/{caller}"',
    )

    assert mesh.does("secure", called, 8443, "other", str(mesh.roots), on=caller) == "ConnectionResetError"
    assert mesh.decided('Host::"other"')["decision"] == "deny"


def test_names_of_the_mesh_have_addresses_of_their_own(mesh: Captured) -> None:
    found = virtual_addresses(["api.default"])["api.default"]

    assert mesh.does("look", "api") == mesh.does("look", "api.default.svc") == sorted(map(str, (found.v4, found.v6)))


@pytest.mark.parametrize(
    ("settings", "name", "found"),
    [
        ("", "api", ""),
        ("options use-vc\n", "api", ""),  # by TCP
        ("search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n", "api", ""),
        ("search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n", "api.default", ""),
        (
            "search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
            "far.test",
            "192.0.2.9",
        ),
        ("search test\n", "far", "192.0.2.9"),
    ],
)
def test_names_are_looked_up_as_the_machine_is_set_up(
    mesh: Captured, tmp_path: Path, settings: str, name: str, found: str
) -> None:
    (tmp_path / "resolv.conf").write_text(f"nameserver {OUTSIDE}\n{settings}")
    virtual = virtual_addresses(["api.default"])["api.default"]
    with ExitStack() as stack:
        client = application(stack, mesh.web, tmp_path, "client")

        assert asked(client, "look", name) == ([found] if found else sorted(map(str, (virtual.v4, virtual.v6))))


def test_a_name_outside_is_asked_of_the_machines_resolvers(mesh: Captured) -> None:
    assert mesh.does("look", "far.test") == ["192.0.2.9"]
    assert mesh.does("look", "nowhere.test").startswith("gaierror")


@pytest.mark.parametrize(("name", "there"), [("api", "10.76.2.2"), ("old", OLD), ("old", "10.76.6.2")])
def test_nobody_comes_past_the_sidecar(mesh: Captured, name: str, there: str) -> None:
    ways = [("say", there, 8080, "GET / HTTP/1.1\r\nhost: api\r\n\r\n"), ("say", there, 9000), ("say", there, 9009)]

    assert {asked(mesh.stranger, *way) for way in ways} <= CLOSED
    mesh.capture(name, "remove")
    if ":" not in there:  # the application listens on IPv4 alone
        assert asked(mesh.stranger, "say", there, 9000) == "first hello hello"
    mesh.capture(name, "install", "--proxy-group", GROUP)
    assert {asked(mesh.stranger, *way) for way in ways} <= CLOSED


def test_who_was_not_redirected_needs_the_secret(mesh: Captured) -> None:
    assert mesh.does(
        "say", "127.0.0.1", 15001, "GET / HTTP/1.1\r\nhost: api:8080\r\nconnection: close\r\n\r\n"
    ).startswith("HTTP/1.1 401 ")


def test_rules_are_shown_and_mended(mesh: Captured) -> None:
    words = ("--proxy-group", GROUP)
    whole = mesh.capture("web", "show", *words)

    mesh.web.run("nft", "flush", "chain", "inet", "policyd_capture", "input")
    assert "this is not what was installed; install it again" in mesh.capture("web", "show", *words, code=1)
    mesh.capture("web", "install", *words)
    mesh.capture("web", "install", *words)
    assert mesh.capture("web", "show", *words) == whole


def test_what_is_under_way_while_an_agent_ends_still_finds_names(mesh: Captured) -> None:
    """The last test here, as its machine is captured by nobody afterwards."""
    assert mesh.does("keep", "api", 9000) == "first "
    known = mesh.does("look", "api")
    mesh.agents["web"].terminate()
    wait_until(lambda: "sidecar.draining" in mesh.said("web"), 20, lambda: mesh.said("web"))

    assert mesh.does("look", "api") == known
    assert "sidecar.stopped" not in mesh.said("web")
