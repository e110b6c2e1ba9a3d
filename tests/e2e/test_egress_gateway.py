"""The way out by an egress gateway, as Istio's tasks have it: each workload is known there by its certificate."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.certificates import Authority
from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.wire import Identity, Refused, https, issue, records
from tests.fakes.outside import Dns, Outside

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

WEB, API = ("spiffe://cluster.local/ns/default/sa/web", "spiffe://cluster.local/ns/default/sa/api")
GATEWAY = "istio-egressgateway"
WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80}
  api-v1: {service: api, port: 80}
gateways:
  istio-egressgateway: {listen: [80, 443, 444, 445], namespace: istio-system, labels: {istio: egressgateway}}
"""
POLICIES = f"""\
@id("web-reads")
permit (principal == Workload::"{WEB}", action in Action::"read", resource in Group::"outside");
@id("web-connects")
permit (principal == Workload::"{WEB}", action == Action::"connect", resource in Group::"outside");
"""
GROUPS = "groups: {outside: {hosts: [www.books.test, origin.books.test, loop.test, tcp.books.test]}}\n"
NAMES = {
    "tcp.books.test": ["127.0.0.2"],
    "www.books.test": ["127.0.0.2"],
    "origin.books.test": ["127.0.0.2"],
    "loop.test": ["127.0.0.1"],
}


def resources(plain: int, tls: int, roots: Path) -> str:
    """As in istio.io's tasks about egress gateways, of HTTP, of TLS, and of TLS that the gateway opens."""
    return f"""\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: books}}
spec:
  hosts: [www.books.test, loop.test]
  ports:
    - {{number: 80, name: http-port, protocol: HTTP, targetPort: {plain}}}
    - {{number: 443, name: tls, protocol: TLS, targetPort: {tls}}}
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: origin}}
spec:
  hosts: [origin.books.test]
  ports:
    - {{number: 80, name: http, protocol: HTTP}}
    - {{number: 443, name: https, protocol: HTTPS, targetPort: {tls}}}
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: istio-egressgateway}}
spec:
  selector: {{istio: egressgateway}}
  servers:
    - port: {{number: 80, name: http, protocol: HTTP}}
      hosts: [www.books.test, loop.test]
    - port: {{number: 443, name: tls, protocol: TLS}}
      hosts: [www.books.test, loop.test]
      tls: {{mode: PASSTHROUGH}}
    - port: {{number: 445, name: tls-for-peers, protocol: TLS}}
      hosts: [tcp.books.test]
      tls: {{mode: ISTIO_MUTUAL}}
    - port: {{number: 444, name: https-port-for-tls-origination, protocol: HTTPS}}
      hosts: [origin.books.test]
      tls: {{mode: ISTIO_MUTUAL}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: egressgateway-for-books}}
spec:
  host: istio-egressgateway.istio-system.svc.cluster.local
  subsets:
    - name: books
    - name: origin
      trafficPolicy:
        loadBalancer: {{simple: ROUND_ROBIN}}
        portLevelSettings:
          - port: {{number: 444}}
            tls: {{mode: ISTIO_MUTUAL, sni: origin.books.test}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: direct-books-through-egress-gateway}}
spec:
  hosts: [www.books.test]
  gateways: [istio-egressgateway, mesh]
  http:
    - match: [{{gateways: [mesh], port: 80}}]
      route:
        - destination:
            {{host: istio-egressgateway.istio-system.svc.cluster.local, subset: books, port: {{number: 80}}}}
          weight: 100
    - match: [{{gateways: [istio-egressgateway], port: 80}}]
      route: [{{destination: {{host: www.books.test, port: {{number: 80}}}}, weight: 100}}]
  tls:
    - match: [{{gateways: [mesh], port: 443, sniHosts: [www.books.test]}}]
      route:
        - destination:
            {{host: istio-egressgateway.istio-system.svc.cluster.local, subset: books, port: {{number: 443}}}}
    - match: [{{gateways: [istio-egressgateway], port: 443, sniHosts: [www.books.test]}}]
      route: [{{destination: {{host: www.books.test, port: {{number: 443}}}}, weight: 100}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: tcp}}
spec:
  hosts: [tcp.books.test]
  ports: [{{number: 9000, name: tcp, protocol: TCP, targetPort: {plain}}}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: tcp}}
spec:
  hosts: [tcp.books.test]
  gateways: [istio-egressgateway, mesh]
  tcp:
    - match: [{{gateways: [mesh], port: 9000}}]
      route:
        - destination:
            {{host: istio-egressgateway.istio-system.svc.cluster.local, subset: books, port: {{number: 445}}}}
    - match: [{{gateways: [istio-egressgateway], port: 445}}]
      route: [{{destination: {{host: tcp.books.test, port: {{number: 9000}}}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: loop}}
spec:
  hosts: [loop.test]
  gateways: [istio-egressgateway]
  http:
    - route: [{{destination: {{host: loop.test, port: {{number: 80}}}}}}]
  tls:
    - match: [{{sniHosts: [loop.test]}}]
      route: [{{destination: {{host: loop.test, port: {{number: 443}}}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: origin}}
spec:
  hosts: [origin.books.test]
  gateways: [istio-egressgateway, mesh]
  http:
    - match: [{{gateways: [mesh], port: 80}}]
      route:
        - destination:
            {{host: istio-egressgateway.istio-system.svc.cluster.local, subset: origin, port: {{number: 444}}}}
    - match: [{{gateways: [istio-egressgateway], port: 444}}]
      route: [{{destination: {{host: origin.books.test, port: {{number: 443}}}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: originate-tls}}
spec:
  host: origin.books.test
  trafficPolicy:
    portLevelSettings:
      - port: {{number: 443}}
        tls: {{mode: SIMPLE, caCertificates: {roots}}}
"""


@dataclass(frozen=True, slots=True)
class World:
    """A mesh, what is outside (on 127.0.0.2), and what must never be reached (on 127.0.0.1, same ports)."""

    mesh: RunningMesh
    plain: Outside
    secure: Outside
    inside: tuple[Outside, Outside]
    authority: Authority
    identities: dict[str, Identity]
    ports: dict[int, int]

    def get(self, url: str, by: str = "web-v1") -> httpx.Response:
        """Ask by the application's own proxy; again where a busy machine was too late to decide."""
        with self.mesh.client(by) as client:
            tries = (client.get(url) for _ in range(5))
            return next((one for one in tries if one.status_code != 503), client.get(url))

    def tunnel(self, to: str, by: str = "web-v1", sni: str = "") -> tuple[int, str]:
        """The status of a CONNECT, and what a GET over TLS through it answers."""
        proxy = urlsplit(self.mesh.place(by)["proxy_url"])
        secret = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
        for _ in range(5):
            with socket.create_connection((proxy.hostname or "", proxy.port or 0), timeout=20) as raw:
                head = f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nProxy-Authorization: Basic {secret}\r\n\r\n"
                raw.sendall(head.encode())
                answer = http.client.HTTPResponse(raw, method="CONNECT")
                answer.begin()
                if answer.status == 200:
                    name = to.partition(":")[0]
                    return 200, self.plainly(raw, name) if to.endswith(":9000") else self.over_tls(raw, sni or name)
                if answer.status != 503:
                    break
        return answer.status, ""

    def plainly(self, raw: socket.socket, name: str) -> str:
        """What a request hears in a tunnel of bytes that nobody reads."""
        raw.sendall(f"GET /through HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        with closing(http.client.HTTPResponse(raw, method="GET")) as through:
            through.begin()
            return through.read().decode()

    def over_tls(self, raw: socket.socket, name: str) -> str:
        context = ssl.create_default_context(cadata=self.authority.pem)
        with context.wrap_socket(raw, server_hostname=name) as connection:
            connection.sendall(f"GET /through HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            with closing(http.client.HTTPResponse(connection, method="GET")) as through:
                through.begin()
                return through.read().decode()

    def left(self) -> int:
        return len(self.plain.seen) + len(self.secure.seen)

    def decided(self, proxy: str, decision: str = "allow", **fields: Any) -> dict[str, Any]:
        return records(self.mesh.directory, kind="decision", proxy=proxy, decision=decision, **fields)[-1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    work = tmp_path_factory.mktemp("egress-gateway")
    authority = Authority("outside")
    pem, roots = work / "outside.pem", work / "roots.pem"
    pem.write_text("".join(authority.issue("www.books.test", "origin.books.test", "loop.test")))
    roots.write_text(authority.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    directory = work / "mesh"
    for name in ("mesh", "policies"):
        (directory / name).mkdir(parents=True)
    with ExitStack() as stack:
        plain = stack.enter_context(Outside("127.0.0.2"))
        secure = stack.enter_context(Outside("127.0.0.2", tls=context))
        inside = tuple(stack.enter_context(Outside("127.0.0.1", one.port)) for one in (plain, secure))
        dns = stack.enter_context(Dns(NAMES))
        (directory / "workloads.yaml").write_text(WORKLOADS)
        (directory / "groups.yaml").write_text(GROUPS)
        (directory / "mesh/books.yaml").write_text(resources(plain.port, secure.port, roots))
        (directory / "policies/books.cedar").write_text(POLICIES)
        (directory / "policyd.yaml").write_text(
            f'egress: {{allowAddresses: [127.0.0.2/32], dnsResolvers: ["127.0.0.1:{dns.port}"]}}\n'
        )
        stack.callback(down, directory)
        mesh = up(directory)
        identities = {name: issue(directory, name, work / name) for name in ("web", "api")}
        ports = {one["declared"]: one["actual"] for one in mesh.place(GATEWAY)["listens"]}
        yield World(mesh, plain, secure, (inside[0], inside[1]), authority, identities, ports)


def test_a_request_leaves_by_the_gateway_and_is_decided_at_both_as_the_workloads(world: World) -> None:
    answer = world.get("http://www.books.test/a")

    assert (answer.status_code, answer.text) == (200, "127.0.0.2\n")
    for proxy in ("web-v1", GATEWAY):
        record = world.decided(proxy, resource='Host::"www.books.test"')
        assert (record["principal"], record["action"], record["reasons"]) == (
            f'Workload::"{WEB}"',
            'Action::"GET"',
            ["web-reads"],
        )


def test_who_may_not_leave_does_not_even_reach_the_gateway(world: World) -> None:
    before = world.left()

    assert (world.get("http://www.books.test/", by="api-v1").status_code, world.left()) == (403, before)
    assert world.tunnel("www.books.test:443", by="api-v1")[0] == 403
    assert world.decided("api-v1", "deny")["resource"] == 'Host::"www.books.test"'


def by_hand(world: World, who: str, declared: int, target: str, host: str, method: str = "GET") -> int:
    """The status that somebody gets at the gateway who has gone around their own sidecar.

    0: of a tunnel, that it ended when TLS began in it.
    """
    identity = world.identities[who]
    name = f"outbound_.{declared}_._.{GATEWAY}.istio-system"
    for _ in range(5):
        with (
            socket.create_connection(("127.0.0.1", world.ports[declared]), timeout=20) as raw,
            identity.context().wrap_socket(raw, server_hostname=name) as connection,
        ):
            connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = connection.makefile("rb")
            status = int(answer.readline().split()[1])
            if method == "CONNECT" and status == 200:
                while answer.readline().strip():
                    pass
                connection.sendall(hello(host.partition(":")[0]))
                return 200 if answer.read(1) else 0
        if status != 503:
            break
    return status


def hello(name: str) -> bytes:
    """What a client of TLS says first who asks for a name."""
    out = ssl.MemoryBIO()
    asking = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        asking.do_handshake()
    return out.read()


def test_the_gateway_decides_by_itself_who_asks(world: World) -> None:
    """A workload that goes around its own sidecar meets the same policy there, under its own name."""
    before = world.left()

    assert by_hand(world, "api", 80, "/", "www.books.test") == 403
    assert by_hand(world, "api", 443, "www.books.test:443", "www.books.test:443", "CONNECT") == 403
    assert world.left() == before
    for action in ("GET", "connect"):
        record = world.decided(GATEWAY, "deny", action=f'Action::"{action}"')
        assert (record["principal"], record["resource"]) == (f'Workload::"{API}"', 'Host::"www.books.test"')
    assert by_hand(world, "web", 80, "/", "www.books.test") == 200
    assert by_hand(world, "web", 443, "www.books.test:443", "www.books.test", "CONNECT") == 200


def test_a_stranger_at_the_gateway_is_nobody(world: World) -> None:
    before = world.left()
    url = f"http://127.0.0.1:{world.ports[80]}/"
    tries = (httpx.get(url, headers={"host": "www.books.test"}, trust_env=False, timeout=20) for _ in range(5))

    assert next(one.status_code for one in tries if one.status_code != 503) == 403
    assert world.decided(GATEWAY, "deny")["principal"] == 'Unauthenticated::"anonymous"'
    with socket.create_connection(("127.0.0.1", world.ports[443]), timeout=20) as raw, pytest.raises(OSError):
        world.over_tls(raw, "www.books.test")
    assert world.left() == before


def test_tls_goes_through_the_gateway_as_it_is(world: World) -> None:
    assert world.tunnel("www.books.test:443") == (200, "127.0.0.2\n")
    for proxy in ("web-v1", GATEWAY):
        record = world.decided(proxy, action='Action::"connect"')
        assert (record["principal"], record["resource"]) == (f'Workload::"{WEB}"', 'Host::"www.books.test"')


def test_connections_go_through_a_server_for_workloads_too(world: World) -> None:
    """TLS with ISTIO_MUTUAL: the gateway ends the mesh's own TLS, and leads on what was in it."""
    assert world.tunnel("tcp.books.test:9000") == (200, "127.0.0.2\n")
    for proxy in ("web-v1", GATEWAY):
        record = world.decided(proxy, action='Action::"connect"')
        assert (record["principal"], record["resource"]) == (f'Workload::"{WEB}"', 'Host::"tcp.books.test"')
    before = world.left()
    assert by_hand(world, "api", 445, "tcp.books.test:9000", "tcp.books.test", "CONNECT") == 403
    assert (world.tunnel("tcp.books.test:9000", by="api-v1")[0], world.left()) == (403, before)


def test_a_workload_asks_for_no_other_name_in_its_tunnel(world: World) -> None:
    """That is seen at the gateway, where the sidecar and its caller cannot be asked to be honest."""
    before = world.left()
    with pytest.raises(OSError):
        world.tunnel("www.books.test:443", sni="origin.books.test")
    assert world.left() == before
    assert world.decided(GATEWAY, action='Action::"connect"')["resource"] == 'Host::"www.books.test"'


def test_the_gateway_opens_tls_for_what_came_by_the_meshs_own(world: World) -> None:
    answer = world.get("http://origin.books.test/volumes")

    assert (answer.status_code, answer.text) == (200, "127.0.0.2\n")
    assert world.secure.seen[-1] == "GET origin.books.test /volumes"
    assert world.decided(GATEWAY, resource='Host::"origin.books.test"')["principal"] == f'Workload::"{WEB}"'


def answered(raw: socket.socket, context: ssl.SSLContext) -> bytes:
    """What a request gets; nothing where the handshake does not hold: in TLS 1.3 that comes with the first read."""
    try:
        with context.wrap_socket(raw, server_hostname="origin.books.test") as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: origin.books.test\r\n\r\n")
            return connection.recv(100)
    except OSError:
        return b""


def test_a_server_for_workloads_shakes_no_strangers_hand(world: World, tmp_path: Path) -> None:
    before = len(records(world.mesh.directory, kind="decision"))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", world.ports[444]), timeout=20) as raw:
        assert answered(raw, context) == b""
    with pytest.raises(Refused):
        https(world.ports[444], world.identities["web"], "/")  # by no name
    assert len(records(world.mesh.directory, kind="decision")) == before


@pytest.mark.parametrize(("declared", "method", "target"), [(80, "GET", "/"), (443, "CONNECT", "loop.test:443")])
def test_the_gateway_leads_nobody_to_forbidden_addresses(world: World, declared: int, method: str, target: str) -> None:
    assert world.get("http://www.books.test/").status_code == 200  # names are looked up by now
    status = by_hand(world, "web", declared, target, "loop.test", method)

    assert (status in (403, 503, 0), [one.seen for one in world.inside]) == (True, [[], []])
    assert world.decided(GATEWAY, resource='Host::"loop.test"')["principal"] == f'Workload::"{WEB}"'
