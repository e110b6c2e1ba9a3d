"""TLS at the edge, with real certificates: who is shown what, who gets in, and that no key leaves its file."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.certificates import Authority
from tests.e2e import h3
from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.terminal import wait_until
from tests.e2e.wire import records
from tests.whole import put

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("gateway-tls"), pytest.mark.timeout(120)]

PLAIN, SECURE, BEHIND, ROW = 18080, 18443, 18081, 18082
CALLER = "spiffe://cluster.local/ns/default/sa/caller"
WORKLOADS = {
    "workloads": {
        "echo-1": {
            "service": "echo",
            "port": 80,
            "command": [sys.executable, str(Path(__file__).parent / "echo.py")],
            "health": "/health",
        },
        "caller": {"service": "caller", "port": 80},
    },
    "gateways": {
        "edge": {"listen": [PLAIN, SECURE], "http3": True},
        "behind": {
            "listen": BEHIND,
            "labels": {"istio": "behind"},
            "gatewayTopology": {"proxyProtocol": {"from": ["127.0.0.1"]}},
        },
        "row": {
            "listen": ROW,
            "labels": {"istio": "row"},
            "gatewayTopology": {"numTrustedProxies": 2, "forwardClientCertDetails": "SANITIZE_SET"},
        },
    },
}
POLICY = f"""
@id("gateway-to-echo") permit (
  principal == Workload::"spiffe://cluster.local/ns/default/sa/edge", action in Action::"http",
  resource == Service::"echo.default"
);
@id("anyone-to-gateway") permit (
  principal is Unauthenticated, action in Action::"http", resource == Service::"edge.default"
) when {{ !(context.request.path like "/admin*") }};
@id("caller-to-gateway") permit (
  principal == Workload::"{CALLER}", action in Action::"http", resource == Service::"edge.default"
);
@id("behind-to-echo") permit (
  principal == Workload::"spiffe://cluster.local/ns/default/sa/behind", action in Action::"http",
  resource == Service::"echo.default"
);
@id("row-to-echo") permit (
  principal == Workload::"spiffe://cluster.local/ns/default/sa/row", action in Action::"http",
  resource == Service::"echo.default"
);
@id("those-addresses-to-row") permit (
  principal is Unauthenticated, action in Action::"http", resource == Service::"row.default"
) when {{ context.client_ip.isInRange(ip("203.0.113.0/24")) && context.source.ip.isLoopback() }};
@id("those-addresses-to-behind") permit (
  principal is Unauthenticated, action in Action::"http", resource == Service::"behind.default"
) when {{ context.client_ip.isInRange(ip("203.0.113.0/24")) }};
"""


def server(host: str, **tls: Any) -> dict[str, Any]:
    port = {"number": SECURE, "name": "https", "protocol": "HTTPS"}
    return {"port": port, "hosts": [host], "tls": {"mode": "SIMPLE", **tls}}


SERVERS = [
    {
        "port": {"number": PLAIN, "name": "http", "protocol": "HTTP"},
        "hosts": ["*"],
        "tls": {"httpsRedirect": True},
    },
    server("simple.example", credentialName="simple"),
    server("mutual.example", mode="MUTUAL", credentialName="mutual"),
    server("named.example", mode="MUTUAL", credentialName="mutual", subjectAltNames=["good.client"]),
    server("optional.example", mode="OPTIONAL_MUTUAL", credentialName="mutual"),
    server(
        "files.example",
        serverCertificate="credentials/simple/tls.crt",
        privateKey="credentials/simple/tls.key",
        minProtocolVersion="TLSV1_3",
    ),
    server(
        "old.example",
        credentialName="simple",
        maxProtocolVersion="TLSV1_2",
        cipherSuites=["ECDHE-ECDSA-AES256-GCM-SHA384"],
    ),
    server("*.wild.example", credentialName="simple"),
    server("expired.example", credentialName="expired"),
    server("two.example", credentialNames=["two", "simple"]),
    server("others.example", mode="MUTUAL", credentialName="others"),
    server("revoked.example", mode="MUTUAL", credentialName="mutual", caCrl="credentials/revoked.crl"),
]


def resource(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


@dataclass(frozen=True, slots=True)
class Edge:
    """A mesh with a gateway, the authorities of both sides, and clients' certificates in files."""

    mesh: RunningMesh
    servers: Authority
    clients: Authority
    strangers: Authority
    work: Path

    def put(self, name: str, certificate: str, key: str) -> None:
        """Put a credential in place as operators do: the key first, closed to others."""
        where = self.mesh.directory / "credentials" / name
        where.mkdir(parents=True, exist_ok=True)
        for file, text in (("tls.key", key), ("tls.crt", certificate)):
            put(where / file, text, 0o600)

    @property
    def ports(self) -> dict[int, int]:
        return {
            one["declared"]: one["actual"]
            for name in ("edge", "behind", "row")
            for one in self.mesh.place(name)["listens"]
        }

    def trust(self, client: tuple[str, str] | None = None) -> ssl.SSLContext:
        """What a client believes, and the certificate that it shows."""
        context = ssl.create_default_context(cadata=self.servers.pem)
        if client is not None:
            file = self.work / "client.pem"
            file.write_text("".join(client))
            context.load_cert_chain(file)
        return context

    def get(
        self,
        name: str,
        path: str = "/",
        client: tuple[str, str] | None = None,
        host: str | None = None,
        port: int = SECURE,
        **more: str,
    ) -> httpx.Response:
        """Ask an encrypted port for a server by its name (SNI), and for `host` there, with more headers."""
        url = f"https://127.0.0.1:{self.ports[port]}{path}"
        headers = {"host": host or name} | {key.replace("_", "-"): value for key, value in more.items()}
        with httpx.Client(verify=self.trust(client), trust_env=False, timeout=20) as asking:
            for _ in range(5):
                reply = asking.get(url, headers=headers, extensions={"sni_hostname": name})
                if reply.status_code != 503:  # a busy machine was too late to decide
                    break
        return reply

    def shake(self, name: str | None, context: ssl.SSLContext) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", self.ports[SECURE]), timeout=20)
        return context.wrap_socket(raw, server_hostname=name)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    folder, work = tmp_path_factory.mktemp("edge"), tmp_path_factory.mktemp("clients")
    for name in ("mesh", "policies", "credentials"):
        (folder / name).mkdir()
    (folder / "workloads.yaml").write_text(yaml.safe_dump(WORKLOADS))
    (folder / "policies" / "all.cedar").write_text(POLICY)
    route = {"hosts": ["*"], "gateways": ["edge"], "http": [{"route": [{"destination": {"host": "echo"}}]}]}
    gateway = resource("Gateway", "edge", selector={"istio": "ingressgateway"}, servers=SERVERS)
    plain = {"port": {"number": BEHIND, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    behind = resource("Gateway", "behind", selector={"istio": "behind"}, servers=[plain])
    rules = [resource("VirtualService", name, **route | {"gateways": [name]}) for name in ("edge", "behind", "row")]
    encrypted = server("row.example", mode="OPTIONAL_MUTUAL", credentialName="mutual")
    encrypted["port"]["number"] = ROW
    row = resource("Gateway", "row", selector={"istio": "row"}, servers=[encrypted])
    (folder / "mesh" / "edge.yaml").write_text(yaml.safe_dump_all([gateway, behind, row, *rules]))
    made = Edge(RunningMesh(folder), Authority("servers"), Authority("clients"), Authority("strangers"), work)
    simple = ("simple.example", "files.example", "old.example", "*.wild.example", "two.example")
    made.put("simple", *made.servers.issue(*simple))
    made.put("two", *made.servers.issue("two.example", for_rsa=True))
    made.put("others", *made.servers.issue("others.example"))
    (folder / "credentials/others/ca.crt").write_text(made.strangers.pem)
    made.put(
        "mutual",
        *made.servers.issue("mutual.example", "named.example", "optional.example", "revoked.example", "row.example"),
    )
    (folder / "credentials" / "revoked.crl").write_text(made.clients.revocations())
    made.put("expired", *made.servers.issue("expired.example", ended=True))
    (folder / "credentials" / "mutual" / "ca.crt").write_text(made.clients.pem)
    try:
        up(folder)
        yield made
    finally:
        down(folder)


@pytest.mark.parametrize("name", ["simple.example", "files.example", "old.example", "a.wild.example"])
def test_each_server_shows_its_certificate_and_leads_to_the_service(edge: Edge, name: str) -> None:
    reply = edge.get(name, "/a")

    assert (reply.status_code, reply.json()["path"], reply.json()["host"]) == (200, "/a", name)


def test_http3_leads_to_the_service_and_is_decided_as_what_comes_by_tcp(edge: Edge) -> None:
    port = edge.ports[SECURE]
    allowed = h3.get(port, "simple.example", "/a", edge.servers.pem)
    denied = h3.get(port, "simple.example", "/admin", edge.servers.pem)

    assert (allowed.status, json.loads(allowed.body)["path"]) == (200, "/a")
    assert denied.status == 403
    record = edge.mesh.record(denied.headers["x-policyd-decision-id"])
    assert (record["decision"], record["resource"]) == ("deny", 'Service::"edge.default"')
    assert edge.get("simple.example").headers["alt-svc"] == f'h3=":{port}"; ma=86400'
    assert "alt-svc" not in edge.get("old.example").headers  # which has no TLS 1.3


def test_over_http3_too_a_server_answers_for_its_own_hosts_only(edge: Edge) -> None:
    other = h3.get(edge.ports[SECURE], "simple.example", "/a", edge.servers.pem, host="mutual.example")
    assert (other.status, other.headers.get("x-app")) == (404, None)


@pytest.mark.parametrize(
    ("name", "client", "status"),
    [
        ("mutual.example", ("clients", "good.client"), 200),
        ("mutual.example", None, None),
        ("mutual.example", ("strangers", "good.client"), None),
        ("mutual.example", ("expired", "good.client"), None),
        # the authorities are those of the server that is asked for
        ("others.example", ("strangers", "good.client"), 200),
        ("others.example", ("clients", "good.client"), None),
        ("named.example", ("clients", "good.client"), 200),
        ("named.example", ("clients", "other.client"), None),
        ("optional.example", None, 200),
        ("optional.example", ("clients", "good.client"), 200),
        ("optional.example", ("strangers", "good.client"), None),
        ("simple.example", ("strangers", "good.client"), 200),  # which asks for none
    ],
)
def test_over_http3_clients_show_the_certificates_that_they_show_over_tcp(
    edge: Edge, name: str, client: tuple[str, str] | None, status: int | None
) -> None:
    def asked(path: str) -> int | None:
        shown = None
        if client is not None:
            authority = edge.strangers if client[0] == "strangers" else edge.clients
            shown = authority.issue(client[1], ended=client[0] == "expired")
        try:
            return h3.get(edge.ports[SECURE], name, path, edge.servers.pem, client=shown).status
        except ConnectionError:
            return None

    before = len(records(edge.mesh.directory, resource='Service::"edge.default"'))
    assert asked("/a") == status
    assert asked("/admin") == (403 if status else None)
    after = len(records(edge.mesh.directory, resource='Service::"edge.default"'))
    assert after - before == (2 if status else 0)  # who was not let in asked for nothing


@pytest.mark.parametrize("version", [1, 2])
def test_of_a_balancer_the_address_is_believed_that_it_says(edge: Edge, version: int) -> None:
    port = edge.ports[BEHIND]
    allowed = h3.behind(port, h3.header(version, "203.0.113.9"), "/a")
    denied = h3.behind(port, h3.header(version, "198.51.100.9"), "/a")

    assert (allowed.split()[1], denied.split()[1]) == (b"200", b"403")
    assert b'"x-forwarded-for": "203.0.113.9"' in allowed
    told = edge.mesh.record(re.search(rb"(?i)x-policyd-decision-id: (\S+)", denied)[1].decode())  # type: ignore[index]
    assert "198.51.100.9" in json.dumps(told["context"])


@pytest.mark.parametrize(
    ("first", "source"),
    [
        (b"", "127.0.0.1"),
        (b"PROXY TCP4 somebody 192.0.2.80 1234 80\r\n", "127.0.0.1"),
        (b"PROXY " + b"x" * 200 + b"\r\n", "127.0.0.1"),
        (h3.header(1, "203.0.113.9"), "127.0.0.2"),
    ],
    ids=["no header", "no address", "no end", "of somebody else"],
)
def test_of_nobody_else_is_a_connection_taken(edge: Edge, first: bytes, source: str) -> None:
    assert h3.behind(edge.ports[BEHIND], first, "/a", source) == b""


@pytest.mark.parametrize(
    ("forwarded", "status", "client"),
    [
        ("203.0.113.9, 10.0.0.7", 200, "203.0.113.9"),
        # whatever a client writes in front of what the proxies say
        ("198.51.100.9, 203.0.113.9, 10.0.0.7", 200, "203.0.113.9"),
        ("203.0.113.9, 198.51.100.9, 10.0.0.7", 403, "198.51.100.9"),
        # of whom the proxies say nothing, the connection does
        ("203.0.113.9", 403, "127.0.0.1"),
        ("somebody, 10.0.0.7", 403, "127.0.0.1"),
    ],
)
def test_behind_proxies_in_a_row_the_client_is_whom_the_first_one_says(
    edge: Edge, forwarded: str, status: int, client: str
) -> None:
    reply = edge.get("row.example", "/a", port=ROW, x_forwarded_for=forwarded)

    assert reply.status_code == status
    told = records(edge.mesh.directory, resource='Service::"row.default"')[-1]
    assert told["context"]["client_ip"]["__extn"]["arg"] == client


def test_nobody_else_is_believed_about_the_address_of_a_client(edge: Edge) -> None:
    reply = edge.get("simple.example", "/admin", x_forwarded_for="203.0.113.9, 10.0.0.7")
    assert reply.status_code == 403
    told = json.dumps(edge.mesh.record(reply.headers["x-policyd-decision-id"])["context"])
    assert "203.0.113.9" not in told


def test_applications_are_told_of_a_client_s_certificate_by_the_gateway_that_checked_it(edge: Edge) -> None:
    forged = f"By=spiffe://cluster.local/ns/default/sa/row;URI={CALLER}"
    at = {"x_forwarded_for": "203.0.113.9, 10.0.0.7", "x_forwarded_client_cert": forged}
    shown = edge.clients.issue("good.client")

    def told(client: tuple[str, str] | None) -> list[str]:
        reply = edge.get("row.example", "/a", client, port=ROW, **at)
        assert reply.status_code == 200
        return str(reply.json()["headers"]["x-forwarded-client-cert"]).split(",")

    of_client, of_gateway = told(shown)
    assert "DNS=good.client" in of_client
    assert "URI=spiffe://cluster.local/ns/default/sa/row" in of_gateway
    assert [one for one in told(None) if "URI=spiffe://cluster.local/ns/default/sa/row" not in one] == []
    assert CALLER not in ",".join((*told(shown), *told(None)))


def test_plain_requests_are_sent_to_the_encrypted_port_after_the_decision(edge: Edge) -> None:
    url = f"http://127.0.0.1:{edge.ports[PLAIN]}"
    reply = httpx.get(f"{url}/a?x=1", headers={"host": "simple.example"})
    denied = httpx.get(f"{url}/admin", headers={"host": "simple.example"})

    assert reply.status_code == 301
    assert reply.headers["location"] == f"https://simple.example:{edge.ports[SECURE]}/a?x=1"
    assert denied.status_code == 403


@pytest.mark.parametrize("name", ["nobody.example", "wild.example", None])
def test_a_name_that_no_server_has_gets_no_certificate(edge: Edge, name: str | None) -> None:
    context = edge.trust()
    context.check_hostname = False

    with pytest.raises((ssl.SSLError, ConnectionError)):
        edge.shake(name, context)


def test_who_was_let_in_for_one_host_reaches_no_other(edge: Edge) -> None:
    """Else a server without client certificates would be the way around one that wants them."""
    reply = edge.get("simple.example", host="mutual.example")

    assert (reply.status_code, reply.headers.get("x-app")) == (404, None)


def refused(edge: Edge, name: str, client: tuple[str, str] | None) -> bool:
    """In TLS 1.3 the server's refusal arrives with the first read."""
    try:
        edge.get(name, client=client)
    except httpx.TransportError:
        return True
    return False


def test_a_client_certificate_of_the_right_authority_is_let_in(edge: Edge) -> None:
    assert edge.get("mutual.example", client=edge.clients.issue("good.client")).status_code == 200


@pytest.mark.parametrize("kind", ["none", "stranger", "expired"])
def test_other_clients_are_not(edge: Edge, kind: str) -> None:
    client = {
        "none": None,
        "stranger": edge.strangers.issue("good.client"),
        "expired": edge.clients.issue("good.client", ended=True),
    }[kind]

    assert refused(edge, "mutual.example", client)


def test_a_client_whose_certificate_was_revoked_is_let_in_no_more(edge: Edge) -> None:
    kept, lost = edge.clients.issue("good.client"), edge.clients.issue("good.client")
    assert edge.get("revoked.example", client=lost).status_code == 200

    file = edge.mesh.directory / "credentials" / "revoked.crl"
    put(file, edge.clients.revocations(lost[0]))
    wait_until(lambda: refused(edge, "revoked.example", lost), 20)
    assert edge.get("revoked.example", client=kept).status_code == 200
    with pytest.raises(ConnectionError):
        h3.get(edge.ports[SECURE], "revoked.example", "/a", edge.servers.pem, client=lost)
    assert h3.get(edge.ports[SECURE], "revoked.example", "/a", edge.servers.pem, client=kept).status == 200
    # it is that server's alone
    assert edge.get("mutual.example", client=lost).status_code == 200


@pytest.mark.parametrize(("suite", "kind"), [("ECDHE-RSA-AES128-GCM-SHA256", "rsa"), ("ECDHE+aECDSA", "ecdsa")])
def test_of_two_certificates_a_client_is_shown_the_one_that_it_can_check(edge: Edge, suite: str, kind: str) -> None:
    context = edge.trust()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(suite)

    with edge.shake("two.example", context) as connection:
        shown = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"").public_key()
    assert isinstance(shown, rsa.RSAPublicKey) is (kind == "rsa")


def test_a_name_that_clients_must_have_is_asked_for(edge: Edge) -> None:
    assert edge.get("named.example", client=edge.clients.issue("good.client")).status_code == 200
    assert refused(edge, "named.example", edge.clients.issue("other.client"))


def test_an_optional_certificate_may_be_missing_but_not_be_wrong(edge: Edge) -> None:
    assert edge.get("optional.example").status_code == 200
    assert edge.get("optional.example", client=edge.clients.issue("good.client")).status_code == 200
    assert refused(edge, "optional.example", edge.strangers.issue("good.client"))


def test_a_certificate_of_another_authority_makes_nobody_a_workload(edge: Edge) -> None:
    """The name in it is that of a workload which would be allowed."""
    client = edge.clients.issue(CALLER)

    assert edge.get("mutual.example", client=client).status_code == 200
    reply = edge.get("mutual.example", "/admin", client=client)
    assert reply.status_code == 403
    record = edge.mesh.record(reply.headers["x-policyd-decision-id"])
    assert record["principal"].startswith("Unauthenticated::")


@pytest.mark.parametrize(
    ("name", "least", "most", "agreed"),
    [
        ("simple.example", ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
        ("simple.example", ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
        ("old.example", ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3, "TLSv1.2"),
        ("files.example", ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2, None),
        ("old.example", ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3, None),
    ],
)
def test_versions_are_those_that_the_server_allows(
    edge: Edge, name: str, least: ssl.TLSVersion, most: ssl.TLSVersion, agreed: str | None
) -> None:
    context = edge.trust()
    context.minimum_version, context.maximum_version = least, most
    if agreed is None:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            edge.shake(name, context)
        return
    with edge.shake(name, context) as connection:
        assert connection.version() == agreed
        if name == "old.example":
            assert connection.cipher() == ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2", 256)


@pytest.mark.parametrize(("offered", "chosen"), [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], None)])
def test_http2_is_agreed_on_by_alpn(edge: Edge, offered: list[str], chosen: str | None) -> None:
    context = edge.trust()
    context.set_alpn_protocols(offered)

    with edge.shake("simple.example", context) as connection:
        assert connection.selected_alpn_protocol() == chosen


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_http2_carries_requests(edge: Edge) -> None:
    roots, port = edge.work / "roots.pem", edge.ports[SECURE]
    roots.write_text(edge.servers.pem)
    there = ["--resolve", f"simple.example:{port}:127.0.0.1", "--cacert", str(roots), "--noproxy", "*"]
    written = ["--http2", "-s", "-o", "/dev/null", "-w", "%{http_version} %{http_code}"]
    done = subprocess.run(
        ["curl", *there, *written, f"https://simple.example:{port}/"], capture_output=True, text=True, timeout=30
    )

    assert done.stdout == "2 200"


def test_an_expired_certificate_is_not_believed_by_clients(edge: Edge) -> None:
    with pytest.raises(httpx.ConnectError, match="expired"):
        edge.get("expired.example")

    [warning] = [one for one in edge.mesh.status()["warnings"] if "expired" in str(one)]
    assert "credentials/expired/tls.crt" in str(warning)


def test_a_new_certificate_is_shown_without_ending_a_connection(edge: Edge) -> None:
    edge.put("renewed", *edge.servers.issue("renewed.example"))
    file = edge.mesh.directory / "mesh" / "edge.yaml"
    gateway, *others = yaml.safe_load_all(file.read_text())
    gateway["spec"]["servers"].append(server("renewed.example", credentialName="renewed"))
    put(file, yaml.safe_dump_all([gateway, *others]))
    wait_until(lambda: serial(edge) is not None, 20)
    before = serial(edge)

    with edge.shake("renewed.example", edge.trust()) as old:
        edge.put("renewed", *edge.servers.issue("renewed.example"))
        wait_until(lambda: serial(edge) not in (None, before), 20)
        old.sendall(b"GET /still HTTP/1.1\r\nHost: renewed.example\r\nConnection: close\r\n\r\n")
        assert old.makefile("rb").readline().split()[1] == b"200"


def serial(edge: Edge) -> object:
    """The serial number of the certificate that is shown; None where none is."""
    try:
        with edge.shake("renewed.example", edge.trust()) as connection:
            return (connection.getpeercert() or {}).get("serialNumber")
    except (ssl.SSLError, ConnectionError):
        return None


def test_a_key_that_others_may_read_changes_nothing_and_is_said(edge: Edge) -> None:
    key = edge.mesh.directory / "credentials" / "simple" / "tls.key"
    key.chmod(0o644)
    try:
        wait_until(lambda: bool(edge.mesh.status()["refused"]), 20)
        said = str(edge.mesh.status()["refused"])
        assert "credentials/simple/tls.key` holds a private key that others may read" in said
        assert edge.get("simple.example").status_code == 200
    finally:
        key.chmod(0o600)
    wait_until(lambda: not edge.mesh.status()["refused"], 20)


def test_no_key_is_anywhere_but_in_its_file(edge: Edge) -> None:
    keys = [file.read_text().splitlines()[1] for file in edge.mesh.directory.glob("credentials/*/tls.key")]
    state = edge.mesh.directory / ".policyd"
    kept = [file.read_bytes() for file in state.rglob("*") if file.is_file()]

    assert len(keys) >= 3
    assert kept
    assert not [key for key in keys for content in kept if key.encode() in content]
