"""TCP and TLS at the edge, with real clients: decided before there is anything at the other end, then led by rules."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import pytest
import yaml
from cryptography import x509

from tests.certificates import Authority
from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.terminal import wait_until
from tests.e2e.test_gateway_tls import resource
from tests.e2e.wire import Identity, issue, records
from tests.ports import free_port
from tests.whole import put

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PLAIN, SECURE, BY_NAME = 19000, 19443, 15443
STRANGER = "127.0.0.3"  # from here nobody is let in
POLICY = """
@id("in-from-anywhere-but-there") permit (
  principal is Unauthenticated, action == Action::"connect", resource == Service::"edge.default"
) when { !(context has sni) && context.source.ip != ip("127.0.0.3") };
@id("in-by-name") permit (
  principal is Unauthenticated, action == Action::"connect", resource == Service::"edge.default"
) when { context has sni && !(context.sni like "no.*") && !(context.sni like "outbound_.*_.secret.default") };
@id("gateway-on") permit (
  principal == Workload::"spiffe://cluster.local/ns/default/sa/edge", action == Action::"connect", resource
) when { context.destination.port != 7009 };
@id("caller-on") permit (
  principal == Workload::"spiffe://cluster.local/ns/default/sa/caller", action == Action::"connect",
  resource == Service::"echo.default"
);
@id("requests") permit (principal, action in Action::"http", resource == Service::"edge.default");
"""


@dataclass
class Application:
    """A server that speaks first: its name, and then what it was sent. `seen` is how many connected."""

    name: str
    tls: ssl.SSLContext | None = None
    seen: int = 0
    port: int = field(default_factory=free_port)

    def serve(self, listening: socket.socket) -> None:
        while True:
            try:
                raw, _ = listening.accept()
            except OSError:
                return
            self.seen += 1
            with contextlib.suppress(OSError), raw:
                connection = self.tls.wrap_socket(raw, server_side=True) if self.tls else raw
                connection.sendall(f"{self.name}:".encode())
                connection.sendall(connection.recv(100))
                connection.close()


@dataclass(frozen=True)
class World:
    """A mesh with a gateway, and what is behind it."""

    mesh: RunningMesh
    authority: Authority
    clients: Authority
    applications: dict[str, Application]
    work: Path
    ports: dict[int, int]
    proxy: SplitResult
    caller: Identity

    def heard(self, name: str = "", client: tuple[str, str] | None = None) -> bytes:
        """What somebody hears who is let in; again where a busy machine was too late to decide."""
        tries = (self.secure(name, client) if name else self.plain() for _ in range(5))
        return next(filter(None, tries), b"")

    def plain(self, source: str = "127.0.0.1") -> bytes:
        """What comes back on the port of plain connections; nothing where it is closed."""
        with socket.create_connection(("127.0.0.1", self.ports[PLAIN]), 20, (source, 0)) as connection:
            return talk(connection)

    def secure(self, name: str, client: tuple[str, str] | None = None) -> bytes:
        """What comes back over TLS to a name; nothing where it is closed."""
        context = ssl.create_default_context(cadata=self.authority.pem)
        if client is not None:
            file = self.work / "client.pem"
            file.write_text("".join(client))
            context.load_cert_chain(file)
        try:
            with (
                socket.create_connection(("127.0.0.1", self.ports[SECURE]), timeout=20) as raw,
                context.wrap_socket(raw, server_hostname=name) as connection,
            ):
                return talk(connection)
        except (ssl.SSLError, ConnectionError):
            return b""

    def seen(self) -> int:
        return sum(one.seen for one in self.applications.values())

    def tunnelled(self) -> bytes:
        """What the caller's application hears of echo through its own sidecar."""
        with socket.create_connection((self.proxy.hostname or "", self.proxy.port or 0), timeout=20) as raw:
            secret = base64.b64encode(f"{self.proxy.username}:{self.proxy.password}".encode()).decode()
            head = f"CONNECT echo:7000 HTTP/1.1\r\nHost: echo:7000\r\nProxy-Authorization: Basic {secret}\r\n\r\n"
            raw.sendall(head.encode())
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):  # no byte more: what follows is the application's
                answer += raw.recv(1) or b"\r\n\r\n"
            return talk(raw) if b" 200 " in answer else b""

    def by_name(self, name: str) -> tuple[bytes, str]:
        """What the caller hears who asks the port that passes on by name, and whose identity it was shown."""
        context = self.caller.context()
        try:
            with (
                socket.create_connection(("127.0.0.1", self.ports[BY_NAME]), timeout=20) as raw,
                context.wrap_socket(raw, server_hostname=name) as connection,
            ):
                peer = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
                names = peer.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
                connection.sendall(b"CONNECT echo:7000 HTTP/1.1\r\nHost: echo:7000\r\n\r\n")
                answer = b""
                while not answer.endswith(b"\r\n\r\n"):
                    answer += connection.recv(1) or b"\r\n\r\n"
                shown = names.get_values_for_type(x509.UniformResourceIdentifier)[0].rpartition("/")[2]
                return (talk(connection) if b" 200 " in answer else b""), shown
        except (ssl.SSLError, ConnectionError):
            return b"", ""

    def decisions(self, service: str, decision: str = "allow") -> list[dict[str, Any]]:
        """What was decided about connections to a service, oldest first."""
        about = {"action": 'Action::"connect"', "resource": f'Service::"{service}.default"'}
        return records(self.mesh.directory, decision=decision, **about)

    def denied(self, connect: Callable[[], bytes], service: str = "edge") -> dict[str, Any]:
        """The record of a connection that hears and reaches nothing; again where a busy machine was too late."""
        seen, known = self.seen(), len(self.decisions(service, "deny"))
        for _ in range(5):
            assert (connect(), self.seen()) == (b"", seen)
            if len(found := self.decisions(service, "deny")) > known:
                break
        return found[-1]


def talk(connection: socket.socket) -> bytes:
    """Listen first, as clients of such servers do; all that is said."""
    try:
        said = connection.recv(100)
        if said:
            connection.sendall(b"hello")
        return said + b"".join(iter(lambda: connection.recv(100), b""))
    except ConnectionError:
        return b""


def tls_server(*hosts: str, protocol: str = "TLS", port: int = SECURE, **tls: Any) -> dict[str, Any]:
    return {"port": {"number": port, "name": "tls", "protocol": protocol}, "hosts": list(hosts), "tls": tls}


def led(*shares: tuple[str, int], **match: Any) -> dict[str, Any]:
    """A rule to subsets of echo, or to other services."""
    route = [
        {"destination": {"host": "echo", "subset": to} if to.startswith("v") else {"host": to}, "weight": weight}
        for to, weight in shares
    ]
    return {"match": [match], "route": route} if match else {"route": route}


def rules(*plain: tuple[str, int]) -> list[dict[str, Any]]:
    plain_server = {"port": {"number": PLAIN, "name": "tcp", "protocol": "TCP"}, "hosts": ["*"]}
    return [
        resource(
            "Gateway",
            "edge",
            selector={"istio": "ingressgateway"},
            servers=[
                plain_server,
                tls_server("pass.test", "no.test", "*.wild.test", mode="PASSTHROUGH"),
                tls_server("term.test", mode="SIMPLE", credentialName="edge"),
                tls_server("mutual.test", mode="MUTUAL", credentialName="edge"),
                tls_server("web.test", protocol="HTTPS", mode="SIMPLE", credentialName="edge"),
                tls_server("*.default.svc.cluster.local", mode="AUTO_PASSTHROUGH", port=BY_NAME),
            ],
        ),
        resource("DestinationRule", "echo", host="echo", subsets=[
            {"name": name, "labels": {"version": name}} for name in ("v1", "v2")
        ]),
        resource("VirtualService", "plain", hosts=["*"], gateways=["edge"], tcp=[
            led(("v2", 0), ("v1", 1), port=1),
            led(("v2", 1), destinationSubnets=["192.0.2.0/24"]),
            led(*plain, port=PLAIN, destinationSubnets=["127.0.0.0/8"]),
        ]),
        resource("VirtualService", "inside", hosts=["echo"], tcp=[
            led(("v1", 1), sourceLabels={"app": "nobody"}),
            led(*plain, port=7000),
        ]),
        resource("VirtualService", "ended", hosts=["term.test", "mutual.test"], gateways=["edge"], tcp=[
            led(("v2", 1)),
        ]),
        resource("VirtualService", "passed", hosts=["pass.test", "*.wild.test", "no.test"], gateways=["edge"], tls=[
            led(("other", 1), port=SECURE, sniHosts=["*.wild.test"]),
            led(("secret", 1), sniHosts=["a.wild.test", "pass.test", "no.test"]),
        ]),
    ]  # fmt: skip


def application(name: str, tls: ssl.SSLContext | None = None) -> tuple[str, Application]:
    return name, Application(name, tls)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, work = tmp_path_factory.mktemp("edge"), tmp_path_factory.mktemp("work")
    for name in ("mesh", "policies", "credentials/edge"):
        (folder / name).mkdir(parents=True)
    authority, clients = Authority("servers"), Authority("clients")
    own = work / "own.pem"
    own.write_text("".join(authority.issue("pass.test", "*.wild.test", "no.test")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    behind = dict((application("v1"), application("v2"), application("secret", context), application("other", context)))
    workloads = {
        f"echo-{name}": {"service": "echo", "port": 7000, "protocol": "tcp", "labels": {"version": name}}
        | {"appPort": behind[name].port}
        for name in ("v1", "v2")
    } | {
        f"{name}-v1": {"service": name, "port": port, "protocol": "tcp", "appPort": behind[name].port}
        for name, port in (("secret", 7001), ("other", 7009))
    }
    workloads["caller-v1"] = {"service": "caller", "port": 80}
    declared = {"workloads": workloads, "gateways": {"edge": {"listen": [PLAIN, SECURE, BY_NAME]}}}
    (folder / "workloads.yaml").write_text(yaml.safe_dump(declared))
    (folder / "policies" / "all.cedar").write_text(POLICY)
    (folder / "mesh" / "edge.yaml").write_text(yaml.safe_dump_all(rules(("v1", 1))))
    certificate, key = authority.issue("term.test", "mutual.test", "web.test")
    for file, text in (("tls.key", key), ("tls.crt", certificate), ("ca.crt", clients.pem)):
        fresh = folder / "credentials/edge" / file
        fresh.touch(mode=0o600)
        fresh.write_text(text)
    with contextlib.ExitStack() as stack:
        stack.callback(down, folder)
        mesh = up(folder)
        ports = {one["declared"]: one["actual"] for one in mesh.place("edge")["listens"]}
        for one in behind.values():
            listening = stack.enter_context(socket.create_server(("127.0.0.1", one.port)))
            threading.Thread(target=one.serve, args=(listening,), daemon=True).start()
        proxy = urlsplit(mesh.place("caller-v1")["proxy_url"])
        caller = issue(folder, "caller-v1", work / "caller")
        yield World(mesh, authority, clients, behind, work, ports, proxy, caller)


def test_a_service_that_speaks_first_is_heard_after_the_decision(world: World) -> None:
    assert world.heard() == b"v1:hello"

    at_the_edge, behind = world.decisions("edge")[-1], world.decisions("echo")[-1]
    assert (at_the_edge["principal"], at_the_edge["reasons"]) == (
        'Unauthenticated::"anonymous"',
        ["in-from-anywhere-but-there"],
    )
    assert (behind["principal"], behind["proxy"]) == (
        'Workload::"spiffe://cluster.local/ns/default/sa/edge"',
        "echo-v1",
    )


def test_who_may_not_connect_hears_nothing_and_reaches_nothing(world: World) -> None:
    """By where they come from: the decision is about the client's own address, not the tunnel's."""
    record = world.denied(lambda: world.plain(STRANGER))

    assert record["context"]["source"]["ip"] == {"__extn": {"fn": "ip", "arg": STRANGER}}


def test_tls_that_is_passed_on_ends_at_the_application(world: World) -> None:
    assert world.heard("pass.test") == b"secret:hello"

    record = world.decisions("edge")[-1]
    assert (record["reasons"], record["context"]["sni"]) == (["in-by-name"], "pass.test")


def test_a_name_that_a_policy_refuses_reaches_nothing(world: World) -> None:
    assert world.denied(lambda: world.secure("no.test"))["context"]["sni"] == "no.test"


def test_the_narrower_name_goes_first(world: World) -> None:
    assert world.heard("a.wild.test") == b"secret:hello"


def test_the_sidecar_behind_decides_too(world: World) -> None:
    assert world.denied(lambda: world.secure("b.wild.test"), "other")["proxy"] == "other-v1"


@pytest.mark.parametrize("name", ["nobody.test", "wild.test"])
def test_a_name_that_nothing_serves_gets_no_handshake(world: World, name: str) -> None:
    before = world.seen()
    assert (world.secure(name), world.seen()) == (b"", before)


def test_tls_can_end_at_the_gateway(world: World) -> None:
    assert world.heard("term.test") == b"v2:hello"
    assert world.decisions("edge")[-1]["context"]["sni"] == "term.test"


def test_a_server_that_wants_certificates_asks_about_nobody_without(world: World) -> None:
    before = len(records(world.mesh.directory, kind="decision"))

    assert world.secure("mutual.test") == b""
    assert len(records(world.mesh.directory, kind="decision")) == before
    caller = world.clients.issue("spiffe://cluster.local/ns/default/sa/edge")
    assert world.heard("mutual.test", caller) == b"v2:hello"
    # another authority's word makes nobody a workload
    assert world.decisions("edge")[-1]["principal"] == 'Unauthenticated::"anonymous"'


def test_requests_have_their_server_beside_the_connections(world: World) -> None:
    context = ssl.create_default_context(cadata=world.authority.pem)
    with (
        socket.create_connection(("127.0.0.1", world.ports[SECURE]), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname="web.test") as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n")
        # 404 after the decision; 503 where a busy machine was too late
        assert connection.makefile("rb").readline().split()[1] in (b"404", b"503")


@pytest.mark.parametrize(
    ("name", "heard"),
    [
        ("outbound_.7000_.v1_.echo.default", b"v1:hello"),
        ("outbound_.7000_.v2_.echo.default", b"v2:hello"),
        ("outbound_.7000_.v2_.echo.default.svc.cluster.local", b"v2:hello"),
    ],
)
def test_mutual_tls_is_passed_on_to_the_service_that_the_name_means(world: World, name: str, heard: bytes) -> None:
    """The sidecar there sees the caller's own certificate; at the gateway the connection is decided by the name."""
    tries = (world.by_name(name) for _ in range(5))
    assert next((found for found in tries if found[0]), None) == (heard, "echo")

    at_the_edge, behind = world.decisions("edge")[-1], world.decisions("echo")[-1]
    assert (at_the_edge["reasons"], at_the_edge["context"]["sni"]) == (["in-by-name"], name)
    assert (behind["principal"], behind["reasons"]) == (
        'Workload::"spiffe://cluster.local/ns/default/sa/caller"',
        ["caller-on"],
    )


def test_a_policy_decides_about_the_name_before_anything_is_passed_on(world: World) -> None:
    denied = world.denied(lambda: world.by_name("outbound_.7001_._.secret.default")[0])
    assert denied["context"]["sni"] == "outbound_.7001_._.secret.default"


@pytest.mark.parametrize(
    "name",
    [
        "outbound_.7000_.v3_.echo.default", "outbound_.7001_._.echo.default", "outbound_.80_._.echo.far", "pass.test",
        "policyd-authz", "outbound|7000||echo.default", "echo.default.svc.cluster.local",
    ],
)  # fmt: skip
def test_a_name_that_means_no_service_leads_nowhere(world: World, name: str) -> None:
    before = world.seen()
    assert (world.by_name(name), world.seen()) == ((b"", ""), before)


def test_sidecars_lead_tunnels_by_the_same_rules(world: World) -> None:
    wait_until(lambda: world.tunnelled() == b"v1:hello", 60)
    assert world.decisions("echo")[-1]["principal"] == 'Workload::"spiffe://cluster.local/ns/default/sa/caller"'


def test_connections_are_shifted_by_weight(world: World) -> None:
    file = world.mesh.directory / "mesh" / "edge.yaml"
    put(file, yaml.safe_dump_all(rules(("v1", 0), ("v2", 1))))
    wait_until(lambda: world.plain() == b"v2:hello", 60)
    assert {world.heard() for _ in range(5)} == {b"v2:hello"}
    wait_until(lambda: world.tunnelled() == b"v2:hello", 60)

    put(file, yaml.safe_dump_all(rules(("v1", 1), ("v2", 1))))
    for connect in (world.plain, world.tunnelled):
        wait_until(lambda connect=connect: connect() == b"v1:hello", 60)  # type: ignore[misc]
        wait_until(lambda connect=connect: connect() == b"v2:hello", 60)  # type: ignore[misc]
