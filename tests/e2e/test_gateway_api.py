"""Kubernetes' Gateway API at a real gateway and in real sidecars: what a route says is what its clients see."""

from __future__ import annotations

import json
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml

from policyd.instance import server
from tests.certificates import Authority
from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.terminal import wait_until
from tests.fakes.outside import Outside
from tests.mesh.gateway_api.sample import backend_tls, gateway, resource, route
from tests.ports import free_port
from tests.whole import put

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PLAIN, SECURE, MUTUAL, ANY, RAW = 18080, 18443, 18444, 18445, 19000
ECHO = {"command": [sys.executable, str(Path(__file__).parent / "echo.py")], "health": "/health"}
POLICY = """\
@id("anything") permit (principal, action, resource)
unless { context has request && context.request.path like "/forbidden*" };
"""


def workloads() -> dict[str, Any]:
    """Applications behind a gateway; two ports of `raw` are those of servers in this process."""
    more = [
        {"port": 80, "name": "tcp"},
        {"port": 50051, "name": "grpc", "appPort": free_port()},
        {"port": 443, "name": "tls", "appPort": free_port()},
    ]
    return {
        "workloads": {
            "one": {"service": "one", "port": 80, **ECHO},
            "two": {"service": "two", "port": 80, **ECHO},
            "many-1": {"service": "many", "port": 80, **ECHO},
            "many-2": {"service": "many", "port": 80, **ECHO},
            "far": {"service": "far", "port": 80, "namespace": "far", **ECHO},
            "raw": {"service": "raw", "ports": more, **ECHO},
        },
        "gateways": {"edge": {"listen": [PLAIN, SECURE, MUTUAL, ANY, RAW]}},
    }


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
CORS = {"type": "CORS", "cors": {"allowOrigins": ["https://*.shop.example"], "allowMethods": ["GET"]}}
ANYBODY = {
    "type": "CORS",
    "cors": {"allowOrigins": ["*"], "allowCredentials": True, "allowMethods": ["*"], "allowHeaders": ["x-one"]},
}
CALLS = {
    "matches": [{"method": {"service": "shop.Books"}, "headers": [{"name": "x-try", "value": "yes"}]}],
    "backendRefs": [{"name": "raw", "port": 50051}],
}
GONE = {"matches": [{"method": {"service": "shop.Gone"}}], "backendRefs": to("nobody")}
TARGET = {"group": "networking.istio.io", "kind": "ServiceEntry"}
OUTSIDE = {**TARGET, "port": 443}
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
AUTHORITIES = {"group": "", "kind": "ConfigMap", "name": "bank"}
NO_CLASS = "/[[:nobody:]]"  # a class of characters that RE2 might have, and has not
ENDED = {
    "name": "ended", "port": SECURE, "protocol": "TLS", "hostname": "ended.example",
    "tls": {"certificateRefs": [{"name": "shown"}]},
}  # fmt: skip
RESOURCES = [
    gateway(
        {"name": "http", "port": PLAIN, "protocol": "HTTP"},
        {"name": "own", "port": PLAIN, "protocol": "HTTP", "hostname": "own.example"},
        {
            "name": "https", "port": SECURE, "protocol": "HTTPS", "hostname": "a.example",
            "tls": {"certificateRefs": [{"name": "shown"}]},
        },
        {"name": "raw", "port": RAW, "protocol": "TCP"},
        {
            "name": "passed", "port": SECURE, "protocol": "TLS", "hostname": "passed.example",
            "tls": {"mode": "Passthrough"},
        },
        ENDED,
        {**ENDED, "name": "named", "hostname": "*.ended.example"},
        {**ENDED, "name": "mutual", "port": MUTUAL, "protocol": "HTTPS", "hostname": "a.example"},
        {**ENDED, "name": "any", "port": ANY, "protocol": "HTTPS", "hostname": "a.example"},
        tls={
            "frontend": {
                "default": {},
                "perPort": [
                    {"port": MUTUAL, "tls": {"validation": {"caCertificateRefs": [AUTHORITIES]}}},
                    {
                        "port": ANY,
                        "tls": {"validation": {"caCertificateRefs": [AUTHORITIES], "mode": "AllowInsecureFallback"}},
                    },
                ],
            },
            "backend": {"clientCertificateRef": {"name": "shown"}},
        },
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
        rule("/shared", CORS),
        rule("/anybody", ANYBODY),
        rule("/bank", refs=[{**OUTSIDE, "name": "bank"}]),
        rule("/other-bank", refs=[{**OUTSIDE, "name": "other"}]),
        parentRefs=[{"name": "edge", "sectionName": name} for name in ("http", "https", "mutual", "any")],
        hostnames=["a.example"],
    ),
    route(
        rule("/stays", refs=to("many"), sessionPersistence={"sessionName": "stays"}),
        rule("/lasts", refs=to("many"), sessionPersistence={
            "sessionName": "lasts", "absoluteTimeout": "1h", "cookieConfig": {"lifetimeType": "Permanent"},
        }),
        rule("/told", refs=to("many"), sessionPersistence={"sessionName": "x-told", "type": "Header"}),
        name="sessions", parentRefs=[{"name": "edge", "sectionName": "http"}], hostnames=["a.example"],
    ),
    route(rule("/"), name="wrong", parentRefs=[{"name": "edge", "sectionName": "no"}], hostnames=["wrong.example"]),
    route({"backendRefs": to("raw")}, name="raw", kind="TCPRoute", parentRefs=[{"name": "edge", "sectionName": "raw"}]),
    route(CALLS, GONE, name="calls", kind="GRPCRoute", parentRefs=[{"name": "edge", "sectionName": "http"}],
          hostnames=["calls.example"]),
    route({"backendRefs": [{"name": "raw", "port": 443}]}, name="passed", kind="TLSRoute", hostnames=["passed.example"],
          parentRefs=[{"name": "edge", "sectionName": "passed"}]),
    route({"backendRefs": to("raw")}, name="named", kind="TLSRoute", hostnames=["b.ended.example"],
          parentRefs=[{"name": "edge", "sectionName": "named"}]),
    route({"backendRefs": to("raw")}, name="ended", kind="TCPRoute",
          parentRefs=[{"name": "edge", "sectionName": "ended"}]),
    *(
        backend_tls({**TARGET, "name": name}, name=name, hostname=f"{name}.test",
                    caCertificateRefs=[AUTHORITIES])
        for name in ("bank", "other")
    ),
    route(rule("/to-two", refs=to("two")), rule("/", refs=to("one")), name="mesh",
          parentRefs=[{"group": "", "kind": "Service", "name": "one"}]),
    LET,
]  # fmt: skip


@pytest.fixture(scope="module")
def servers() -> Authority:
    """Who certifies what the gateway shows."""
    return Authority("servers")


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, servers: Authority) -> Iterator[Outside]:
    """A server outside of the mesh, that speaks TLS to who has a certificate."""
    folder = tmp_path_factory.mktemp("bank")
    context = shown(servers, folder, "bank.test")
    context.load_verify_locations(cadata=servers.pem)
    context.verify_mode = ssl.CERT_REQUIRED  # as the gateway has one of them
    with Outside("127.0.0.2", tls=context) as found:
        yield found


def shown(servers: Authority, folder: Path, name: str) -> ssl.SSLContext:
    """How a server proves that it has a name."""
    certificate, key = servers.issue(name)
    (folder / name).write_text(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / name)
    return context


@pytest.fixture(scope="module")
def passed(mesh: RunningMesh, tmp_path_factory: pytest.TempPathFactory, servers: Authority) -> Iterator[Outside]:
    """The application of `raw` that opens TLS by itself; nobody has its port before the mesh is up."""
    context = shown(servers, tmp_path_factory.mktemp("passed"), "passed.example")
    with Outside("127.0.0.1", app_port(mesh, "tls"), tls=context) as found:
        yield found


@pytest.fixture(scope="module")
def calls(mesh: RunningMesh) -> Iterator[None]:
    """The application of `raw` that answers calls of gRPC."""
    answer = grpc.unary_unary_rpc_method_handler(lambda asked, _: b"got " + asked)
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Books", {"Get": answer})])
    server.add_insecure_port(f"127.0.0.1:{app_port(mesh, 'grpc')}")
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait(10)


def app_port(mesh: RunningMesh, name: str) -> int:
    """Where the application of `raw` is to listen, for one of its ports."""
    declared = yaml.safe_load((mesh.directory / "workloads.yaml").read_text())
    [found] = [one["appPort"] for one in declared["workloads"]["raw"]["ports"] if one["name"] == name]
    return int(found)


def banks(port: int) -> list[dict[str, Any]]:
    """One server outside, by its own name and by another one."""
    found = []
    for name in ("bank", "other"):
        spec = {
            "hosts": [f"{name}.test"],
            "ports": [{"number": 443, "name": "https", "protocol": "HTTPS"}],
            "resolution": "STATIC",
            "endpoints": [{"address": "127.0.0.2", "ports": {"https": port}}],
        }
        found.append({**resource("ServiceEntry", name, spec), "apiVersion": "networking.istio.io/v1"})
    return found


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, servers: Authority, bank: Outside) -> Iterator[RunningMesh]:
    """A mesh with all of it."""
    folder = tmp_path_factory.mktemp("gateway-api")
    (folder / "mesh").mkdir()
    (folder / "policies").mkdir()
    (folder / "credentials" / "bank").mkdir(parents=True)
    (folder / "credentials" / "bank" / "ca.crt").write_text(servers.pem)
    show(folder, "shown", *servers.issue("a.example", "ended.example", "*.ended.example"))
    (folder / "workloads.yaml").write_text(yaml.safe_dump(workloads()))
    (folder / "policyd.yaml").write_text("egress: {allowAddresses: [127.0.0.2/32]}\n")
    (folder / "mesh" / "banks.yaml").write_text(yaml.safe_dump_all(banks(bank.port)))
    (folder / "policies" / "all.cedar").write_text(POLICY)
    write(folder, RESOURCES)
    try:
        yield up(folder)
    finally:
        down(folder)


def show(folder: Path, name: str, certificate: str, key: str) -> None:
    """Give the gateway a certificate to show."""
    credential = folder / "credentials" / name
    credential.mkdir()
    (credential / "tls.key").touch(mode=0o600)
    (credential / "tls.key").write_text(key)
    (credential / "tls.crt").write_text(certificate)


def write(folder: Path, resources: list[dict[str, Any]]) -> None:
    put(folder / "mesh" / "it.yaml", yaml.safe_dump_all(resources))


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
    named = {"sni_hostname": "a.example"}
    reply = client.get(path, headers=headers, extensions=named)
    for _ in range(5):
        if reply.status_code != 503 or "x-app" in reply.headers:
            break
        reply = client.get(path, headers=headers, extensions=named)
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
        ("/bank", "a.example", 200),
        ("/other-bank", "a.example", 503),
    ],
)
def test_who_is_answered_how(client: httpx.Client, path: str, host: str, expected: int) -> None:
    assert asked(client, path, host=host).status_code == expected


def test_a_backend_with_another_name_s_certificate_gets_nothing(client: httpx.Client, bank: Outside) -> None:
    seen = list(bank.seen)

    assert asked(client, "/bank/a").text == "127.0.0.2\n"
    assert client.get("/other-bank/a").status_code == 503
    assert bank.seen[len(seen) :] == ["GET a.example /bank/a"]


@pytest.mark.parametrize(("origin", "told"), [("https://a.shop.example", True), ("https://shop.test", False)])
def test_browsers_are_told_who_may_use_the_answers(client: httpx.Client, origin: str, told: bool) -> None:
    headers = {"origin": origin, "access-control-request-method": "GET"}

    before = client.options("/shared", headers=headers)
    after = asked(client, "/shared", origin=origin)

    expected = origin if told else None
    assert (before.status_code, before.headers.get("access-control-allow-origin")) == (200, expected)
    assert (after.status_code, after.headers.get("access-control-allow-origin")) == (200, expected)


def test_where_credentials_are_allowed_no_browser_is_told_a_star(client: httpx.Client) -> None:
    origin = "https://anywhere.test"
    headers = {"origin": origin, "access-control-request-method": "PUT", "access-control-request-headers": "x-one"}

    before = client.options("/anybody", headers=headers).headers
    after = asked(client, "/anybody", origin=origin, cookie="a=b").headers

    for one in (before, after):
        assert (one["access-control-allow-origin"], one["access-control-allow-credentials"]) == (origin, "true")
    assert "PUT" in before["access-control-allow-methods"].split(",")
    assert "*" not in "".join(text for name, text in before.items() if name.startswith("access-control-"))


SESSIONS = {
    "/stays/a": ("set-cookie", 'stays="'),
    "/lasts/a": ("set-cookie", 'lasts="'),
    "/told/a": ("x-told", ""),
}


@pytest.mark.parametrize("path", SESSIONS)
def test_a_client_stays_with_the_instance_that_answered_it_first(client: httpx.Client, path: str) -> None:
    name, begin = SESSIONS[path]

    def begun() -> tuple[str, dict[str, str]]:
        client.cookies.clear()
        reply = asked(client, path)
        said = reply.headers[name]
        assert said.startswith(begin)
        assert ("Max-Age=3600" in said, "Max-Age" in said) == (path == "/lasts/a",) * 2
        client.cookies.clear()
        own = {"cookie": said.partition(";")[0]} if name == "set-cookie" else {name: said}
        return reply.json()["instance"], own

    seen: dict[str, dict[str, str]] = {}
    while len(seen) < 2:  # new clients come to each
        instance, own = begun()
        seen[instance] = own
    for instance, own in seen.items():
        assert {client.get(path, headers=own).json()["instance"] for _ in range(8)} == {instance}
        client.cookies.clear()
    # who tells of nobody's instance is led like a new client
    wrong = {key: value.partition('"')[0] + "MTI3LjAuMC4xOjE=" for key, value in own.items()}
    assert client.get(path, headers=wrong).json()["instance"] in seen


def call(mesh: RunningMesh, service: str = "shop.Books", **metadata: str) -> bytes | grpc.StatusCode:
    """The answer to a call at the gateway, or its status."""
    options = [("grpc.default_authority", "calls.example")]
    with grpc.insecure_channel(f"127.0.0.1:{port(mesh, PLAIN)}", options) as channel:
        get = channel.unary_unary(f"/{service}/Get")
        try:
            answer: bytes = get(b"it", timeout=30, wait_for_ready=True, metadata=list(metadata.items()))
        except grpc.RpcError as error:
            status: grpc.StatusCode = error.code()
            return status
        return answer


@pytest.mark.usefixtures("calls")
def test_calls_go_where_their_route_says(mesh: RunningMesh) -> None:
    wait_until(lambda: call(mesh, **{"x-try": "yes"}) == b"got it", 30)

    assert call(mesh, **{"x-try": "no"}) is grpc.StatusCode.UNIMPLEMENTED
    assert call(mesh, "shop.Gone") is grpc.StatusCode.UNAVAILABLE


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
    whole = Counter(asked(client, "/halves").json()["instance"] for _ in range(24))
    half = Counter(asked(client, "/broken").status_code for _ in range(24))

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
    with httpx.Client(verify=trusting(servers), trust_env=False, timeout=20, headers={"host": "a.example"}) as secure:
        secure.base_url = httpx.URL(f"https://127.0.0.1:{port(mesh, SECURE)}")
        reply = asked(secure, "/segments")

    assert reply.json()["instance"] == "one"


def test_connections_go_where_their_route_says(mesh: RunningMesh) -> None:
    with socket.create_connection(("127.0.0.1", port(mesh, RAW)), timeout=20) as raw:
        raw.sendall(b"GET /raw HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        told = b"".join(iter(lambda: raw.recv(65536), b""))

    assert json.loads(told.partition(b"\r\n\r\n")[2])["instance"] == "raw"


def trusting(servers: Authority, own: Path | None = None) -> ssl.SSLContext:
    """How a client believes the gateway, and what it shows."""
    trust = ssl.create_default_context(cadata=servers.pem)
    if own is not None:
        trust.load_cert_chain(own)
    return trust


@pytest.mark.parametrize(
    ("at", "authority", "let"),
    [
        (MUTUAL, "servers", True),
        (MUTUAL, "others", False),
        (MUTUAL, "", False),
        (ANY, "servers", True),
        (ANY, "others", True),
        (ANY, "", True),
    ],
)
def test_clients_show_a_certificate_where_the_gateway_wants_one(
    mesh: RunningMesh, servers: Authority, tmp_path: Path, at: int, authority: str, let: bool
) -> None:
    own = tmp_path / "client.pem"
    own.write_text("".join((servers if authority == "servers" else Authority("others")).issue("client.example")))
    context = trusting(servers, own if authority else None)
    with httpx.Client(verify=context, trust_env=False, timeout=20, headers={"host": "a.example"}) as secure:
        secure.base_url = httpx.URL(f"https://127.0.0.1:{port(mesh, at)}")

        def answered() -> bool:
            try:
                return asked(secure, "/segments").status_code == 200
            except httpx.TransportError:
                return False

        assert answered() is let


def over_tls(mesh: RunningMesh, name: str, servers: Authority) -> bytes:
    """What is answered to a request in TLS with a name; the certificate must be of it."""
    trust = trusting(servers)
    with (
        socket.create_connection(("127.0.0.1", port(mesh, SECURE)), timeout=20) as raw,
        trust.wrap_socket(raw, server_hostname=name) as secure,
    ):
        secure.sendall(f"GET /in HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: secure.recv(65536), b""))


def test_tls_is_passed_on_by_name(mesh: RunningMesh, servers: Authority, passed: Outside) -> None:
    assert over_tls(mesh, "passed.example", servers).endswith(b"127.0.0.1\n")  # its own certificate, not the gateway's
    assert passed.seen[-1] == "GET passed.example /in"


@pytest.mark.parametrize("name", ["ended.example", "b.ended.example"])
def test_tls_that_ends_at_the_gateway_goes_on_as_a_connection(mesh: RunningMesh, servers: Authority, name: str) -> None:
    told = over_tls(mesh, name, servers)

    assert json.loads(told.partition(b"\r\n\r\n")[2])["instance"] == "raw"


def test_a_name_that_no_route_is_for_leads_nowhere(mesh: RunningMesh, servers: Authority) -> None:
    with suppress(OSError):
        assert over_tls(mesh, "c.ended.example", servers) == b""


def test_routes_of_a_service_hold_in_sidecars(mesh: RunningMesh) -> None:
    with mesh.client("two") as inside:
        led = [inside.get(f"http://one{path}").json()["instance"] for path in ("/to-two", "/to-two/b", "/to-twob")]

    assert led == ["two", "two", "one"]


def programmed(mesh: RunningMesh) -> dict[str, tuple[str, str, str]]:
    """Whether the Gateway and each of its listeners are in the proxies, with the reason and the message."""
    with server(mesh.directory) as client:
        [edge] = client.resources("gtw", "edge")
    status = json.loads(edge.json)["status"]
    told = {"edge": status["conditions"], **{one["name"]: one["conditions"] for one in status["listeners"]}}
    every = {name: {one["type"]: one for one in conditions}["Programmed"] for name, conditions in told.items()}
    return {name: (one["status"], one["reason"], one["message"]) for name, one in every.items()}


def test_what_is_told_is_what_holds(client: httpx.Client, mesh: RunningMesh) -> None:
    [wrong] = mesh.says("mesh", "get", "httproute", "wrong")["resources"]
    [edge] = mesh.says("mesh", "get", "gtw", "edge")["resources"]

    assert wrong["status"]["parents"][0]["conditions"][0]["reason"] == "NoMatchingParent"
    wait_until(lambda: programmed(mesh)["edge"] == ("True", "Programmed", ""), 30)
    assert [one["attachedRoutes"] for one in edge["status"]["listeners"]] == [3, 0, 1, 1, 1, 1, 1, 1, 1]

    # what a proxy rejects is told in its own words, until it is taken back
    odd = route({**rule("/"), "matches": [{"path": {"type": "RegularExpression", "value": NO_CLASS}}]}, name="odd")
    write(mesh.directory, [*RESOURCES, odd])
    wait_until(lambda: programmed(mesh)["http"][:2] == ("False", "Pending"), 60)
    wait_until(lambda: "rejected routes" in programmed(mesh)["edge"][2], 60)
    assert "[:nobody:]" in programmed(mesh)["edge"][2]
    assert asked(client, "/segments").status_code == 200

    # a listener that is taken away takes its routes with it, and nothing else
    write(mesh.directory, [one for one in RESOURCES if one["metadata"]["name"] != "let"])
    wait_until(lambda: asked(client, "/far").status_code == 500, 30)
    wait_until(lambda: set(programmed(mesh).values()) == {("True", "Programmed", "")}, 30)
    assert asked(client, "/segments").status_code == 200
