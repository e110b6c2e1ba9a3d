"""What applications speak, through real sidecars: gRPC and HTTP/2 by CONNECT, gRPC-Web; each call is decided."""

from __future__ import annotations

import base64
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha1
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest

from tests.certificates import Authority
from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.terminal import wait_until
from tests.e2e.test_metrics import found, page
from tests.e2e.wire import issue, records
from tests.fakes.outside import Dns, ForwardProxy, Outside
from tests.ports import free_port

pytestmark = pytest.mark.e2e

GREETER = Path(__file__).parents[2] / "examples/grpc/greeter.py"
POLICY = """\
@id("web-greets")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"POST",
  resource == Service::"greeter.default")
when { context.request.path like "/demo.Greeter/*" && [50051, 9000].contains(context.destination.port) };
@id("web-asks-either")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"GET",
  resource == Service::"either.default");
@id("other-connects-to-either")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/other", action == Action::"connect",
  resource == Service::"either.default");
@id("third-connects-to-raw")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/third", action == Action::"connect",
  resource == Service::"raw.default");
@id("web-greets-alone")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"POST",
  resource == Service::"alone.default") when { context.request.path == "/example.Greeter/Hello" };
@id("web-in-browsers")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"POST",
  resource == Service::"greeter.default")
when { context.request.path == "/demo.Greeter/Hello" && context.destination.port == 8080 };
@id("browsers-in")
permit (principal is Unauthenticated, action == Action::"POST", resource == Service::"edge.default");
@id("web-and-browsers-talk")
permit (principal, action == Action::"GET", resource == Service::"talk.default")
when { context.request.path == "/ws" && principal != Workload::"spiffe://cluster.local/ns/default/sa/other" };
@id("browsers-talk")
permit (principal is Unauthenticated, action == Action::"GET", resource == Service::"edge.default");
@id("edge-greets")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/edge", action == Action::"POST",
  resource == Service::"greeter.default")
when { context.request.path == "/demo.Greeter/Hello" };
"""
ROUTES = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: greeter}
spec:
  hosts: [greeter]
  http:
    - match: [{headers: {x-fail: {exact: "yes"}}}]
      fault: {abort: {grpcStatus: RESOURCE_EXHAUSTED, percentage: {value: 100}}}
      route: [{destination: {host: greeter, port: {number: 50051}}}]
    - match: [{port: 9000}]
      route: [{destination: {host: greeter, port: {number: 9000}}}]
    - match: [{port: 50051}]
      route: [{destination: {host: greeter, port: {number: 50051}}}]
    - route: [{destination: {host: greeter, port: {number: 8080}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: either}
spec:
  hosts: [either]
  tcp:
    - match: [{sourceLabels: {app: third}}]
      route:
        - {destination: {host: raw}, weight: 50}
        - {destination: {host: raw, subset: same}, weight: 50}
  tls:
    - match: [{sniHosts: [either], sourceLabels: {app: third}}]
      route: [{destination: {host: secure}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: raw}
spec: {host: raw, subsets: [{name: same}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: talk}
spec:
  host: talk
  subsets: [{name: http2, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: alone}
spec: {workloadSelector: {labels: {app: alone}}, egress: [{hosts: [./alone.default.svc.cluster.local]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 18085, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: ["*"]
  gateways: [edge]
  http:
    - match: [{uri: {prefix: /ws}}]
      route: [{destination: {host: talk, subset: http2}}]
    - route: [{destination: {host: greeter, port: {number: 8080}}}]
"""


TLS_POLICY = """\
@id("web-to-secure")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"connect",
  resource == Service::"secure.default")
when { context has sni && context.sni == "secure" };
@id("third-to-secure")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/third", action == Action::"connect",
  resource == Service::"secure.default")
when { context has sni && context.sni == "either" };
@id("web-out")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"connect",
  resource in Group::"outside")
when { context has sni && context.sni like "*.test" };
@id("web-far")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"connect",
  resource == Host::"far.test") when { [443, 9000].contains(context.destination.port) };
@id("other-out-by-any-name")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/other", action == Action::"connect",
  resource == Host::"any.test");
"""
ENTRIES = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: tls}}
spec:
  hosts: [tls.test]
  addresses: [192.0.2.9]
  ports: [{{number: 443, name: https, protocol: HTTPS, targetPort: {port}}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.2}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: wild}}
spec:
  hosts: ["*.wild.test"]
  ports: [{{number: {port}, name: tls, protocol: TLS}}]
  resolution: DYNAMIC_DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: led}}
spec:
  hosts: [led.test, shared.test]
  ports: [{{number: 443, name: tls, protocol: TLS, targetPort: {port}}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: led}}
spec:
  hosts: [led.test]
  tls:
    - match: [{{sniHosts: [led.test]}}]
      route: [{{destination: {{host: tls.test, port: {{number: 443}}}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: shared}}
spec:
  hosts: [shared.test]
  tls:
    - match: [{{sniHosts: [shared.test]}}]
      route:
        - {{destination: {{host: tls.test, port: {{number: 443}}}}, weight: 50}}
        - {{destination: {{host: led.test, port: {{number: 443}}}}, weight: 50}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: far}}
spec:
  hosts: [far.test]
  ports: [{{number: 443, name: tls, protocol: TLS}}, {{number: 9000, name: tcp, protocol: TCP}}]
  resolution: STATIC
  endpoints: [{{address: 192.0.2.1}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: proxy}}
spec:
  hosts: [proxy.test]
  ports: [{{number: 3128, name: tcp, protocol: TCP, targetPort: {proxy}}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.2}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: proxy}}
spec:
  host: proxy.test
  subsets:
    - {{name: tls, trafficPolicy: {{tunnel: {{targetHost: far.test, targetPort: 443}}}}}}
    - {{name: tcp, trafficPolicy: {{tunnel: {{protocol: CONNECT, targetHost: far.test, targetPort: 9000}}}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: far}}
spec:
  hosts: [far.test]
  tls:
    - match: [{{port: 443, sniHosts: [far.test]}}]
      route: [{{destination: {{host: proxy.test, subset: tls, port: {{number: 3128}}}}}}]
  tcp:
    - match: [{{port: 9000}}]
      route: [{{destination: {{host: proxy.test, subset: tcp, port: {{number: 3128}}}}}}]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: other}}
spec:
  workloadSelector: {{labels: {{app: other}}}}
  outboundTrafficPolicy: {{mode: ALLOW_ANY}}
"""


def speaks_tls(work: Path) -> ssl.SSLContext:
    """The server's side of TLS, with a certificate that nobody here looks at."""
    certificate, key = Authority("somebody").issue("any.test")
    (work / "tls.pem").write_text(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(work / "tls.pem")
    return context


class Greeter(grpc.GenericRpcHandler):  # type: ignore[misc]
    """An application that speaks gRPC: says hello, counts down, and tells what it was sent."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []

    def service(self, call: Any) -> Any:
        def hello(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.seen.append({key: str(value) for key, value in context.invocation_metadata()})
            return b"hello " + request

        def count(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            yield from (str(number).encode() for number in range(int(request), 0, -1))

        handlers = {
            "/demo.Greeter/Hello": grpc.unary_unary_rpc_method_handler(hello),
            "/demo.Greeter/Count": grpc.unary_stream_rpc_method_handler(count),
        }
        return handlers.get(call.method)


@dataclass
class Either:
    """An application that answers HTTP, and echoes what is none; `seen` is what reached it."""

    seen: list[bytes] = field(default_factory=list)

    def serve(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(4096):
                self.seen.append(data)
                http = data.startswith(b"GET ")
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nit\n" if http else data)


class Talk(Either):
    """An application that speaks WebSocket (RFC 6455), and sends every frame back; `seen` is what reached it."""

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            self.seen.append(head)
            key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
            accept = sha1(key.partition(b":")[2].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + base64.b64encode(accept) + b"\r\n\r\n"
            )
            while data := connection.recv(4096):
                connection.sendall(data)


@dataclass(frozen=True)
class World:
    """A mesh with a greeter, an application of TLS and one of which nobody says what it speaks; a server outside."""

    mesh: RunningMesh
    greeter: Greeter
    secure: Outside
    outside: Outside
    either: Either
    raw: Either
    talk: Talk
    forward: ForwardProxy

    def proxy(self, by: str) -> str:
        found: str = self.mesh.place(by)["proxy_url"]
        return found

    def channel(self, by: str, to: str = "greeter:50051") -> grpc.Channel:
        """As an application has it whose environment names its proxy."""
        return grpc.insecure_channel(to, options=[("grpc.http_proxy", self.proxy(by))])

    def hello(self, by: str, **metadata: str) -> bytes:
        with self.channel(by) as channel:
            call = channel.unary_unary("/demo.Greeter/Hello")
            answer: bytes = call(b"world", timeout=20, metadata=list(metadata.items()))
            return answer

    def refused(self, by: str, method: str = "/demo.Greeter/Hello", **metadata: str) -> grpc.RpcError:
        names = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        with self.channel(by) as channel, pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(method)(b"world", timeout=20, metadata=names)
        return error.value


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("protocols") / "mesh"
    (directory / "policies").mkdir(parents=True)
    (directory / "mesh").mkdir()
    ports = [free_port() for _ in range(8)]
    (directory / "workloads.yaml").write_text(
        "workloads:\n  web-v1: {service: web, port: 80}\n  other-v1: {service: other, port: 80}\n"
        "  greeter-v1:\n    service: greeter\n    ports:\n"
        f"      - {{port: 50051, name: grpc, appPort: {ports[0]}}}\n"
        f"      - {{port: 8080, name: grpc-web, appPort: {ports[1]}}}\n"
        f"      - {{port: 9000, name: calls, appPort: {ports[4]}}}\n"
        "  alone-v1:\n    {service: alone, port: 50051, protocol: grpc, proxyless: true,"
        f" inboundPort: {ports[7]}, command: [python, {GREETER}, '127.0.0.1:{ports[7]}', alone]}}\n"
        f"  talk-v1: {{service: talk, port: 80, appPort: {ports[6]}}}\n"
        "  third-v1: {service: third, port: 80}\n"
        f"  raw-v1: {{service: raw, port: 9100, protocol: tcp, appPort: {ports[5]}}}\n"
        f"  either-v1: {{service: either, ports: [{{port: 9000, name: any, appPort: {ports[3]}}}]}}\n"
        f"  secure-v1: {{service: secure, port: 443, protocol: tls, appPort: {ports[2]}}}\n"
        "gateways: {edge: {listen: 18085}}\n"
    )
    (directory / "policies/greeter.cedar").write_text(POLICY)
    (directory / "policies/tls.cedar").write_text(TLS_POLICY)
    (directory / "mesh/routes.yaml").write_text(ROUTES)
    (directory / "groups.yaml").write_text(
        "groups: {outside: {hosts: [tls.test, a.wild.test, led.test, shared.test]}}\n"
    )
    greeter = Greeter()
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[greeter])
    tls = speaks_tls(directory.parent)
    with (
        Outside("127.0.0.2", tls=tls) as outside,
        ForwardProxy("127.0.0.2") as forward,
        Dns({"a.wild.test": ["127.0.0.2"], "any.test": ["127.0.0.2"]}) as dns,
    ):
        forward.targets |= {"far.test:443": ("127.0.0.2", outside.port), "far.test:9000": ("127.0.0.1", ports[5])}
        (directory / "mesh/outside.yaml").write_text(ENTRIES.format(port=outside.port, proxy=forward.port))
        (directory / "policyd.yaml").write_text(
            f'egress: {{allowAddresses: [127.0.0.2/32], dnsResolvers: ["127.0.0.1:{dns.port}"]}}\n'
        )
        try:
            mesh = up(directory)
            for port in (*ports[:2], ports[4]):
                server.add_insecure_port(f"127.0.0.1:{port}")
            server.start()
            either, raw, talk = Either(), Either(), Talk()
            with (
                Outside("127.0.0.1", ports[2], tls=tls) as secure,
                socket.create_server(("127.0.0.1", ports[3])) as listening,
                socket.create_server(("127.0.0.1", ports[5])) as listening_too,
                socket.create_server(("127.0.0.1", ports[6])) as talking,
            ):
                for served, at in ((either, listening), (raw, listening_too), (talk, talking)):
                    threading.Thread(target=served.serve, args=(at,), daemon=True).start()
                yield World(mesh, greeter, secure, outside, either, raw, talk, forward)
        finally:
            down(directory)
            server.stop(None)


def test_a_call_is_answered_and_on_record_as_what_it_is(world: World) -> None:
    assert world.hello("web-v1") == b"hello world"
    record = records(world.mesh.directory, resource='Service::"greeter.default"')[-1]
    assert (record["decision"], record["principal"], record["reasons"], record["context"]["request"]["path"]) == (
        "allow",
        'Workload::"spiffe://cluster.local/ns/default/sa/web"',
        ["web-greets"],
        "/demo.Greeter/Hello",
    )


def test_a_stream_of_answers_comes_whole(world: World) -> None:
    with world.channel("web-v1") as channel:
        assert list(channel.unary_stream("/demo.Greeter/Count")(b"3", timeout=20)) == [b"3", b"2", b"1"]


def test_messages_of_grpc_are_counted_at_both_ends_under_istio_s_names(world: World) -> None:
    before = messages(world)
    with world.channel("web-v1") as channel:
        assert len(list(channel.unary_stream("/demo.Greeter/Count")(b"5", timeout=20))) == 5

    def counted() -> dict[tuple[str, str, str], float]:
        return {key: value - before.get(key, 0.0) for key, value in messages(world).items()}

    wanted = {
        (name, reporter, "greeter"): count
        for name, count in (("request", 1.0), ("response", 5.0))
        for reporter in ("source", "destination")
    }
    wait_until(lambda: {key: value for key, value in counted().items() if value} == wanted, 30, lambda: f"{counted()}")


def messages(world: World) -> dict[tuple[str, str, str], float]:
    """Messages so far: sent by callers or got by them, who counted, and the Service."""
    text, counts = page(world.mesh), {}
    for name in ("request", "response"):
        for labels, value in found(text, f"istio_{name}_messages_total"):
            key = name, labels["reporter"], labels["destination_service_name"]
            counts[key] = counts.get(key, 0.0) + value
    return counts


def test_who_is_not_permitted_is_told_so_in_the_words_of_grpc(world: World) -> None:
    error = world.refused("other-v1")

    assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "access denied\n")
    told = dict(error.trailing_metadata())
    record = world.mesh.record(told["x-policyd-decision-id"])
    assert (record["decision"], record["principal"]) == (
        "deny",
        'Workload::"spiffe://cluster.local/ns/default/sa/other"',
    )


def test_an_application_without_a_sidecar_decides_about_who_calls_through_one(world: World) -> None:
    def called(by: str, method: str) -> str:
        with world.channel(by, "alone:50051") as channel:
            try:
                return str(channel.unary_unary(f"/example.Greeter/{method}")(b"web", timeout=20), "ascii")
            except grpc.RpcError as error:
                return str(error.details())

    wait_until(lambda: called("web-v1", "Hello") == "hello web, says alone", 60)
    assert called("web-v1", "Secret") == "Unauthorized RPC rejected"
    assert called("other-v1", "Hello") == "Unauthorized RPC rejected"


def test_a_path_that_means_nothing_is_no_call(world: World) -> None:
    error = world.refused("web-v1", "/demo.Greeter/Hello;x=1")

    assert (error.code(), error.details()) == (
        grpc.StatusCode.INTERNAL,  # what gRPC makes of 400
        "the path of the request is not acceptable\n",
    )


def test_the_rules_of_its_service_hold_inside_the_tunnel(world: World) -> None:
    before = len(world.greeter.seen)

    assert world.refused("web-v1", x_fail="yes").code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(world.greeter.seen) == before


def test_the_secret_of_the_proxy_stays_outside(world: World) -> None:
    world.hello("web-v1", colour="red")

    assert world.greeter.seen[-1]["colour"] == "red"
    assert "proxy-authorization" not in world.greeter.seen[-1]


def test_a_wrong_secret_opens_no_tunnel(world: World) -> None:
    proxy = urlsplit(world.proxy("web-v1"))
    wrong = f"http://{proxy.username}:wrong@{proxy.hostname}:{proxy.port}"
    with (
        grpc.insecure_channel("greeter:50051", options=[("grpc.http_proxy", wrong)]) as channel,
        pytest.raises(grpc.RpcError) as error,
    ):
        channel.unary_unary("/demo.Greeter/Hello")(b"", timeout=20)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_call_counts_as_a_request_and_its_tunnel_not_as_a_connection(world: World) -> None:
    world.hello("web-v1")

    def counted() -> list[tuple[dict[str, str], float]]:
        return found(page(world.mesh), "istio_requests_total", proxy="web-v1", reporter="source")

    wait_until(lambda: any(one["grpc_response_status"] == "0" for one, _ in counted()), 20)
    assert {one["request_protocol"] for one, _ in counted()} == {"grpc"}
    assert found(page(world.mesh), "istio_tcp_connections_opened_total", proxy="web-v1") == []


# ---- browsers


FRAME = struct.pack(">BI", 0, 5) + b"world"
GRPC_WEB = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}


def of_browser(world: World, by: str) -> httpx.Response:
    """A call as a page makes it: HTTP/1.1, one message in a frame."""
    with world.mesh.client(by) as client:
        return client.post("http://greeter:8080/demo.Greeter/Hello", content=FRAME, headers=GRPC_WEB)


@pytest.mark.parametrize(
    ("method", "status", "word"), [("Hello", 200, "0"), ("Count", 403, "7")], ids=["permitted", "denied behind it"]
)
def test_a_page_outside_calls_through_a_gateway(world: World, method: str, status: int, word: str) -> None:
    port = world.mesh.place("edge")["listens"][0]["actual"]
    url = f"http://127.0.0.1:{port}/demo.Greeter/{method}"
    tries = (httpx.post(url, content=FRAME, headers=GRPC_WEB, trust_env=False, timeout=20) for _ in range(5))
    answer = next(one for one in tries if one.status_code != 503)  # a busy machine was too late to decide

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/grpc-web+proto")
    if status == 200:
        assert b"hello world" in answer.content
        assert f"grpc-status:{word}".encode() in answer.content
    else:
        assert answer.headers["grpc-status"] == word


def test_a_page_calls_by_grpc_web(world: World) -> None:
    answer = of_browser(world, "web-v1")

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/grpc-web+proto")
    message = struct.pack(">BI", 0, 11) + b"hello world"
    assert answer.content.startswith(message)
    assert answer.content[len(message)] == 0x80  # a frame of trailers
    assert b"grpc-status:0" in answer.content


def test_a_page_is_denied_in_its_own_words(world: World) -> None:
    answer = of_browser(world, "other-v1")

    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/grpc-web+proto")
    assert (answer.headers["grpc-status"], answer.headers["grpc-message"]) == ("7", "access denied%0A")
    assert world.mesh.record(answer.headers["x-policyd-decision-id"])["decision"] == "deny"


# ---- WebSocket


def upgraded(world: World, by: str) -> tuple[str, bytes]:
    """How who asks for WebSocket is answered ("edge": somebody outside), and what they hear of a frame."""
    host, target, secret = "talk", "http://talk/ws", ""
    if by == "edge":
        address, host, target = ("127.0.0.1", world.mesh.place("edge")["listens"][0]["actual"]), "any.example", "/ws"
    else:
        proxy = urlsplit(world.proxy(by))
        address = (proxy.hostname or "", proxy.port or 0)
        opens = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
        secret = f"Proxy-Authorization: Basic {opens}\r\n"
    asked = (
        f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{secret}Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection(address, timeout=20) as raw:
        first = first_line(raw, asked.encode())
        if " 101 " not in first:
            return first, b""
        raw.sendall(FRAME_OF_HELLO)
        heard = b""
        while len(heard) < len(FRAME_OF_HELLO) and (more := raw.recv(100)):
            heard += more
        return first, heard


FRAME_OF_HELLO = bytes.fromhex("818537fa213d7f9f4d5158")  # "Hello", masked: RFC 6455, 5.7


@pytest.mark.parametrize("by", ["web-v1", "edge"])
def test_websocket_goes_through_once_its_request_is_permitted(world: World, by: str) -> None:
    tries = (upgraded(world, by) for _ in range(5))
    found = next(one for one in tries if " 503 " not in one[0])  # a busy machine was too late to decide

    assert found == ("HTTP/1.1 101 Switching Protocols", FRAME_OF_HELLO)
    record = records(world.mesh.directory, resource='Service::"talk.default"')[-1]
    assert (record["action"], record["reasons"]) == ('Action::"GET"', ["web-and-browsers-talk"])


def test_who_may_not_ask_gets_no_websocket(world: World) -> None:
    before = len(world.talk.seen)
    assert (upgraded(world, "other-v1"), len(world.talk.seen)) == (("HTTP/1.1 403 Forbidden", b""), before)


# ---- tunnels by hand


def through(world: World, by: str, to: str, *sent: bytes) -> list[str]:
    """The first lines of what comes back for a CONNECT and, one after the other, for what is sent through it."""
    proxy = urlsplit(world.proxy(by))
    secret = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
    opening = f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nProxy-Authorization: Basic {secret}\r\n\r\n".encode()
    with socket.create_connection((proxy.hostname or "", proxy.port or 0), timeout=20) as raw:
        return [first_line(raw, one) for one in (opening, *sent)]


def first_line(raw: socket.socket, sent: bytes) -> str:
    """The first line of the answer, "" where the other end ends the connection."""
    head = b""
    with suppress(ConnectionError):
        raw.sendall(sent)
        while b"\r\n\r\n" not in head and (more := raw.recv(4096)):
            head += more
    return head.decode("latin-1").partition("\r\n")[0]


def test_a_tunnel_inside_a_tunnel_goes_around_nothing(world: World) -> None:
    inside = b"CONNECT greeter:50051 HTTP/1.1\r\nHost: greeter:50051\r\n\r\n"
    plain = b"GET /demo.Greeter/Hello HTTP/1.1\r\nHost: greeter:50051\r\n\r\n"

    opened = "HTTP/1.1 200 OK"
    assert through(world, "other-v1", "greeter:50051", plain) == [opened, "HTTP/1.1 403 Forbidden"]
    assert through(world, "other-v1", "greeter:50051", inside, plain) == [opened, opened, "HTTP/1.1 403 Forbidden"]


def test_what_is_no_http_ends_the_tunnel(world: World) -> None:
    assert through(world, "web-v1", "greeter:50051", b"\x16\x03\x01 no HTTP\r\n\r\n")[1] in (
        "HTTP/1.1 400 Bad Request",
        "",
    )


def by_gateway(world: World, sent: bytes) -> str:
    """The first line of what a gateway answers somebody outside."""
    with socket.create_connection(("127.0.0.1", world.mesh.place("edge")["listens"][0]["actual"]), timeout=20) as raw:
        return first_line(raw, sent)


def page_outside(world: World, method: str) -> str:
    """The status of a call that a page outside makes."""
    url = f"http://127.0.0.1:{world.mesh.place('edge')['listens'][0]['actual']}/demo.Greeter/{method}"
    return str(httpx.post(url, content=FRAME, headers=GRPC_WEB, trust_env=False, timeout=20).status_code)


BYTES = b"\x00\x01 no HTTP\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: either:9000\r\n\r\n"
ALLOW, DENY = "allow", "deny"
# what is done, how it ends, and what is on record of it: about whom, what was asked, how it was decided and by what
DECIDED: dict[str, tuple[Callable[[World], str], str, list[tuple[str, str, str, list[str]]]]] = {
    "gRPC-Web through a sidecar": (
        lambda world: str(of_browser(world, "web-v1").status_code),
        "200", [("greeter", "POST", ALLOW, ["web-in-browsers"])],
    ),
    "gRPC-Web that is denied": (
        lambda world: str(of_browser(world, "other-v1").status_code), "403", [("greeter", "POST", DENY, [])]
    ),
    "gRPC-Web through a gateway": (
        lambda world: page_outside(world, "Hello"),
        "200", [("edge", "POST", ALLOW, ["browsers-in"]), ("greeter", "POST", ALLOW, ["edge-greets"])],
    ),
    "gRPC-Web that is denied behind a gateway": (
        lambda world: page_outside(world, "Count"),
        "403", [("edge", "POST", ALLOW, ["browsers-in"]), ("greeter", "POST", DENY, [])],
    ),
    "WebSocket through a sidecar": (
        lambda world: upgraded(world, "web-v1")[0].split()[1],
        "101", [("talk", "GET", ALLOW, ["web-and-browsers-talk"])],
    ),
    "WebSocket that is denied": (
        lambda world: upgraded(world, "other-v1")[0].split()[1], "403", [("talk", "GET", DENY, [])]
    ),
    "WebSocket through a gateway": (
        lambda world: upgraded(world, "edge")[0].split()[1],
        "101", [("edge", "GET", ALLOW, ["browsers-talk"]), ("talk", "GET", ALLOW, ["web-and-browsers-talk"])],
    ),
    "a tunnel of bytes": (
        lambda world: through(world, "third-v1", "raw:9100", BYTES)[1],
        BYTES.decode().strip(), [("raw", "connect", ALLOW, ["third-connects-to-raw"])],
    ),
    "a tunnel of bytes that is denied": (
        lambda world: through(world, "other-v1", "raw:9100")[0].split()[1], "403", [("raw", "connect", DENY, [])]
    ),
    "bytes where the first ones tell": (
        lambda world: through(world, "other-v1", "either:9000", BYTES)[1],
        BYTES.decode().strip(), [("either", "connect", ALLOW, ["other-connects-to-either"])],
    ),
    "bytes where the first ones tell, denied": (
        lambda world: through(world, "web-v1", "either:9000", BYTES)[1], "", [("either", "connect", DENY, [])]
    ),
    "a request in a tunnel": (
        lambda world: through(world, "web-v1", "either:9000", GET)[1].split()[1],
        "200", [("either", "GET", ALLOW, ["web-asks-either"])],
    ),
    "a request in a tunnel that is denied": (
        lambda world: through(world, "other-v1", "either:9000", GET)[1].split()[1],
        "403", [("either", "GET", DENY, [])],
    ),
    # nobody outside is led on by CONNECT, wherever it is asked to
    "a tunnel through a gateway": (
        lambda world: by_gateway(world, b"CONNECT talk:80 HTTP/1.1\r\nHost: talk:80\r\n\r\n").split()[1],
        "404", [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DECIDED)
def test_each_way_of_coming_is_decided_as_what_it_is_and_on_record(world: World, what: str) -> None:
    come, ends, expected = DECIDED[what]
    for _ in range(5):
        before = len(records(world.mesh.directory, kind="decision"))
        if (ended := come(world)) != "503":  # a busy machine was too late to decide
            break

    assert ended == ends
    found = records(world.mesh.directory, kind="decision")[before:]
    assert [(one["resource"], one["action"], one["decision"], one.get("reasons", [])) for one in found] == [
        (f'Service::"{service}.default"', f'Action::"{action}"', decision, by)
        for service, action, decision, by in expected
    ]


# ---- TLS that is not opened


def ask(world: World, by: str, to: str, sni: str | None) -> str:
    """What comes of a request over TLS through a tunnel: why there is none, what answers, or that it ended."""
    proxy = urlsplit(world.proxy(by))
    secret = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((proxy.hostname or "", proxy.port or 0), timeout=20) as raw:
        raw.sendall(f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nProxy-Authorization: Basic {secret}\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += raw.recv(1)
        if (status := head.split(b" ")[1]) != b"200":
            return f"no tunnel: {status.decode()}"
        try:
            with context.wrap_socket(raw, server_hostname=sni) as inside:
                inside.sendall(b"GET /it HTTP/1.1\r\nHost: inside\r\nConnection: close\r\n\r\n")
                return inside.recv(4096).split(b"\r\n")[0].decode()
        except (ssl.SSLError, ConnectionError):
            return "ended"


ANSWERED = "HTTP/1.0 200 OK"


@pytest.mark.parametrize(
    ("by", "to", "sni", "outcome"),
    [
        ("web-v1", "secure:443", "secure", ANSWERED),
        ("web-v1", "secure:443", "other", "ended"),
        ("web-v1", "secure:443", None, "ended"),
        ("web-v1", "secure.default:443", "secure.default", "no tunnel: 403"),
        ("other-v1", "secure:443", "secure", "no tunnel: 403"),
    ],
)
def test_a_service_that_speaks_tls_is_decided_by_the_name_that_its_client_asks_for(
    world: World, by: str, to: str, sni: str | None, outcome: str
) -> None:
    before = len(world.secure.seen)

    assert ask(world, by, to, sni) == outcome
    assert len(world.secure.seen) - before == (outcome == ANSWERED)
    record = records(world.mesh.directory, resource='Service::"secure.default"')[-1]
    assert (record["action"], record["proxy"]) == ('Action::"connect"', "secure-v1")
    # what the decision read
    assert record["context"].get("sni") == (to.removesuffix(":443") if by == "web-v1" else None)


@pytest.mark.parametrize(
    ("by", "to", "sni", "outcome"),
    [
        ("web-v1", "tls.test:443", "tls.test", ANSWERED),
        ("web-v1", "TLS.test:443", "tls.test", ANSWERED),
        ("web-v1", "192.0.2.9:443", "tls.test", ANSWERED),
        ("web-v1", "tls.test:443", "a.wild.test", "ended"),
        ("web-v1", "tls.test:443", "tls.test.evil", "ended"),
        ("web-v1", "tls.test:443", "tls", "ended"),
        ("web-v1", "tls.test:443", None, "ended"),
        ("other-v1", "tls.test:443", "tls.test", "no tunnel: 403"),
        ("web-v1", "a.wild.test:{port}", "a.wild.test", ANSWERED),
        ("web-v1", "a.wild.test:{port}", "b.wild.test", "ended"),
        ("web-v1", "b.wild.test:{port}", "b.wild.test", "no tunnel: 403"),
        # led elsewhere, whole and in shares
        ("web-v1", "led.test:443", "led.test", ANSWERED),
        ("web-v1", "led.test:443", "tls.test", "ended"),
        ("web-v1", "led.test:443", None, "ended"),
        *[("web-v1", "shared.test:443", sni, outcome) for _ in range(3)
          for sni, outcome in (("shared.test", ANSWERED), ("tls.test", "ended"), ("led.test", "ended"))],
        # by a name that nothing declares, on a port of which nobody says what it speaks
        ("other-v1", "any.test:{port}", "any.test", ANSWERED),
        ("other-v1", "any.test:{port}", "tls.test", "ended"),
        ("other-v1", "any.test:{port}", None, "ended"),
    ],
)  # fmt: skip
def test_a_tunnel_out_of_the_mesh_takes_only_who_asks_for_its_own_name(
    world: World, by: str, to: str, sni: str | None, outcome: str
) -> None:
    before = len(world.outside.seen)

    assert ask(world, by, to.format(port=world.outside.port), sni) == outcome
    assert len(world.outside.seen) - before == (outcome == ANSWERED)


def test_a_tunnel_that_is_led_elsewhere_is_decided_as_what_it_leads_to_by_the_name_in_it(world: World) -> None:
    assert ask(world, "web-v1", "led.test:443", "led.test") == ANSWERED
    record = records(world.mesh.directory, action='Action::"connect"', proxy="web-v1")[-1]
    assert (record["resource"], record["context"]["sni"]) == ('Host::"tls.test"', "led.test")


def test_connections_leave_by_a_forward_proxy_and_are_decided_as_what_is_behind_it(world: World) -> None:
    before = len(world.outside.seen)
    assert ask(world, "other-v1", "far.test:443", "far.test") == "no tunnel: 403"
    assert world.forward.asked == []
    # nor is the way asked for by whose TLS is for another name
    assert (ask(world, "web-v1", "far.test:443", "tls.test"), len(world.outside.seen)) == ("ended", before)
    assert world.forward.asked == []

    assert ask(world, "web-v1", "far.test:443", "far.test") == ANSWERED
    asked, headers = world.forward.asked[-1]
    assert (asked, headers["host"], len(world.outside.seen)) == ("CONNECT far.test:443", "far.test:443", before + 1)
    assert not [name for name in headers if name.startswith("x-policyd") or name == "proxy-authorization"]
    record = records(world.mesh.directory, resource='Host::"far.test"')[-1]
    assert (record["decision"], record["reasons"], record["context"]["destination"]["port"]) == (
        "allow", ["web-far"], 443,
    )  # fmt: skip


def test_what_is_no_tls_leaves_by_a_forward_proxy_too(world: World) -> None:
    bytes_, before = b"\x00\x02 no HTTP\r\n\r\n", len(world.raw.seen)
    assert through(world, "web-v1", "far.test:9000", bytes_) == ["HTTP/1.1 200 OK", "\x00\x02 no HTTP"]
    assert (world.forward.asked[-1][0], world.raw.seen[before:]) == ("CONNECT far.test:9000", [bytes_])


def test_what_is_no_tls_does_not_leave_as_such(world: World) -> None:
    before = len(world.outside.seen)

    plain = b"GET /it HTTP/1.1\r\nHost: tls.test\r\n\r\n"
    assert through(world, "web-v1", "tls.test:443", plain) == ["HTTP/1.1 200 OK", ""]
    assert through(world, "web-v1", "secure:443", plain) == ["HTTP/1.1 200 OK", ""]
    assert len(world.outside.seen) == before


# ---- ports of which nobody says what they speak


def test_requests_are_told_from_connections_by_the_first_bytes(world: World) -> None:
    get, other = b"GET /it HTTP/1.1\r\nHost: either:9000\r\n\r\n", b"\x00\x01 no HTTP\r\n\r\n"
    opened, answered, denied = "HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 403 Forbidden"

    assert through(world, "web-v1", "either:9000", get) == [opened, answered]
    assert through(world, "other-v1", "either:9000", other) == [opened, "\x00\x01 no HTTP"]
    before = len(world.either.seen)
    assert through(world, "web-v1", "either:9000", other) == [opened, ""]
    assert through(world, "other-v1", "either:9000", get) == [opened, denied]
    assert len(world.either.seen) == before
    found = records(world.mesh.directory, resource='Service::"either.default"')[-4:]
    assert [(one["action"].split('"')[1], one["decision"]) for one in found] == [
        ("GET", "allow"),
        ("connect", "allow"),
        ("connect", "deny"),
        ("GET", "deny"),
    ]


def test_what_is_no_http_is_led_by_tcp_rules_and_requests_are_not(world: World) -> None:
    get, other = b"GET /it HTTP/1.1\r\nHost: either:9000\r\n\r\n", b"\x00\x01 no HTTP\r\n\r\n"
    opened, before = "HTTP/1.1 200 OK", len(world.either.seen)

    for _ in range(4):  # by both shares
        assert through(world, "third-v1", "either:9000", other) == [opened, "\x00\x01 no HTTP"]
    assert through(world, "third-v1", "either:9000", get) == [opened, "HTTP/1.1 403 Forbidden"]
    assert (world.raw.seen[-4:], len(world.either.seen)) == ([other] * 4, before)
    record = records(world.mesh.directory, resource='Service::"raw.default"')[-1]
    assert (record["decision"], record["reasons"]) == ("allow", ["third-connects-to-raw"])


def test_tls_there_is_led_by_tls_rules_if_it_is_for_the_name_that_was_asked_for(world: World) -> None:
    before = len(world.raw.seen), len(world.secure.seen), len(world.either.seen)

    assert ask(world, "third-v1", "either:9000", "either") == ANSWERED
    assert ask(world, "third-v1", "either:9000", "secure") == "ended"
    assert (len(world.raw.seen), len(world.secure.seen), len(world.either.seen)) == (
        before[0],
        before[1] + 1,
        before[2],
    )
    record = records(world.mesh.directory, resource='Service::"secure.default"')[-1]
    assert (record["reasons"], record["context"]["sni"]) == (["third-to-secure"], "either")


def test_requests_come_without_a_tunnel_too(world: World) -> None:
    with world.mesh.client("web-v1") as client:
        assert client.get("http://either:9000/it").text == "it\n"
    with world.mesh.client("other-v1") as client:
        assert client.get("http://either:9000/it").status_code == 403


def test_who_may_connect_gets_no_request_through_a_tunnel_of_their_own(world: World, tmp_path: Path) -> None:
    identity = issue(world.mesh.directory, "other", tmp_path / "other")
    before = len(world.either.seen)
    port = world.mesh.place("either-v1")["inbound_port"]

    def answers(sent: bytes) -> list[str]:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as raw,
            identity.context().wrap_socket(raw) as connection,
        ):
            opening = b"CONNECT either:9000 HTTP/1.1\r\nHost: either:9000\r\n\r\n"
            return [first_line(connection, one) for one in (opening, sent)]

    assert answers(b"\x00 no HTTP\r\n\r\n") == ["HTTP/1.1 200 OK", "\x00 no HTTP"]
    assert answers(b"GET /it HTTP/1.1\r\nHost: either\r\n\r\n") == ["HTTP/1.1 200 OK", ""]
    assert len(world.either.seen) == before + 1


def test_grpc_is_found_there_too(world: World) -> None:
    with world.channel("web-v1", "greeter:9000") as channel:
        assert channel.unary_unary("/demo.Greeter/Hello")(b"you", timeout=20) == b"hello you"


def test_connections_that_were_told_by_their_bytes_are_counted(world: World) -> None:
    through(world, "other-v1", "either:9000", b"\x00 no HTTP\r\n\r\n")

    def opened() -> list[tuple[dict[str, str], float]]:
        return found(page(world.mesh), "istio_tcp_connections_opened_total", proxy="other-v1", reporter="source")

    wait_until(lambda: any(one["destination_service"] == "either.default.svc.cluster.local" for one, _ in opened()), 20)
