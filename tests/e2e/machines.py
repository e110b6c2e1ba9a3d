"""Machines whose applications know nothing of the mesh: each is a network of its own, captured.

`web` and `api` are captured by nftables; `old` by iptables, and it is reached by IPv6 alone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.certificates import Authority
from tests.e2e.conftest import PROGRAM
from tests.e2e.terminal import wait_until
from tests.e2e.wire import policyd, records
from tests.spaces import Space, cable, spaces

PROXY = PROGRAM + "-proxy"
APP = str(Path(__file__).parent / "apps" / "unaware.py")
GROUP = "1337"  # of the agents, and of nobody else
HUB, WEB, API, OLD, OUTSIDE = "10.76.0.1", "10.76.1.2", "10.76.3.2", "fd76:6::2", "10.76.0.80"
SETTINGS = f"""\
listen: {{xds: "{HUB}:9101", authz: "{HUB}:9102", attestation: "{HUB}:9103"}}
egress: {{allowAddresses: [{OUTSIDE}/32]}}
"""
SERVING = """\
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports:
    - {{name: http, port: 8080}}
    - {{name: grpc, port: 50051}}
    - {{name: tls-own, port: 8443}}
    - {{name: tcp-raw, port: 9000}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: {name}-1
  annotations:
    policyd/inboundPort.grpc: "15106"
    policyd/inboundPort.tls-own: "15107"
    policyd/inboundPort.tcp-raw: "15108"
spec: {{address: "{address}", labels: {{app: {name}}}, serviceAccount: {name}}}
"""
MESH = f"""\
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: web-1}}
spec: {{address: {WEB}, labels: {{app: web}}, serviceAccount: web}}
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
MESH += "".join(SERVING.format(name=name, address=address) for name, address in (("api", API), ("old", OLD)))
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
