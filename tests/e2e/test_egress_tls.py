"""Bookinfo's details ask for books outside, in plain HTTP; the sidecar opens TLS: Istio's sample, other names."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.certificates import Authority
from tests.e2e.conftest import down, up
from tests.e2e.test_destinations import stats
from tests.e2e.test_egress import World
from tests.e2e.wire import records
from tests.fakes.outside import Dns, Outside

pytestmark = pytest.mark.e2e

WORKLOADS = """\
workloads:
  details-v2: {service: details, port: 9080, locality: eu/eu-1}
  reviews-v1: {service: reviews, port: 9080}
"""
POLICIES = """\
@id("details-asks-books")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/details", action == Action::"GET",
  resource == Host::"www.books.test") when { context.request.path like "/books/*" };
@id("details-asks-others")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/details", action == Action::"GET",
  resource == Host::"other.books.test");
@id("details-asks-partners")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/details", action == Action::"GET",
  resource in Group::"partners");
"""
PARTNERS = (
    "mutual.test", "good.test", "revoked.test", "headed.test", "parted.test", "placed.test", "passed.test",
    "unchecked.test", "turns.test", "broken.test",
)  # fmt: skip
GROUPS = f"groups: {{partners: {{hosts: [{', '.join(PARTNERS)}]}}}}\n"


def resources(port: int, roots: Path) -> str:
    """As in samples/bookinfo/networking/egress-rule-google-apis.yaml."""
    return f"""\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: books}}
spec:
  hosts: [www.books.test, other.books.test]
  ports:
    - {{number: 80, name: http, protocol: HTTP}}
    - {{number: 443, name: https, protocol: HTTPS, targetPort: {port}}}
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: rewrite-port-for-books}}
spec:
  hosts: [www.books.test]
  http:
    - match: [{{port: 80}}]
      route: [{{destination: {{host: www.books.test, port: {{number: 443}}}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: rewrite-port-for-others}}
spec:
  hosts: [other.books.test]
  http:
    - route: [{{destination: {{host: other.books.test, port: {{number: 443}}}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: ratings-outside}}
spec:
  hosts: [reviews]
  http:
    - match: [{{uri: {{prefix: /books/}}}}]
      route: [{{destination: {{host: www.books.test, port: {{number: 443}}}}}}]
    - route: [{{destination: {{host: reviews}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: originate-tls}}
spec:
  host: "*.books.test"
  trafficPolicy:
    loadBalancer: {{simple: ROUND_ROBIN}}
    portLevelSettings:
      - port: {{number: 443}}
        tls: {{mode: SIMPLE, caCertificates: {roots}}}
"""


def others(tls: int, plain: int, closed: int) -> str:
    """A Host whose addresses take turns, one whose certificate nobody checks, and one of whose places one is closed."""
    return f"""\
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: unchecked}}
spec:
  hosts: [unchecked.test]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {tls}}}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: unchecked}}
spec: {{host: unchecked.test, trafficPolicy: {{tls: {{mode: SIMPLE, insecureSkipVerify: true}}}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: turns}}
spec:
  hosts: [turns.test]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {plain}}}]
  resolution: DNS_ROUND_ROBIN
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: broken}}
spec:
  hosts: [broken.test]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints:
    - {{address: 127.0.0.2, ports: {{http: {plain}}}}}
    - {{address: 127.0.0.2, ports: {{http: {closed}}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: broken}}
spec:
  host: broken.test
  trafficPolicy:
    loadBalancer: {{simple: ROUND_ROBIN}}
    outlierDetection:
      {{splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 1, consecutive5xxErrors: 0,
       baseEjectionTime: 3m, maxEjectionPercent: 100}}
"""


def partners(port: int, headed: int, plain: int, files: Path) -> str:
    """Hosts that want a certificate of the caller, whose own is on a list of revoked ones or not, or a PROXY header."""
    known = {
        "mutual": "{mode: MUTUAL, credentialName: partner}",
        "good": f"{{mode: MUTUAL, caCertificates: {files}/ca.pem, clientCertificate: {files}/own.pem, "
        f"privateKey: {files}/own.key, caCrl: {files}/none.pem}}",
        "revoked": f"{{mode: MUTUAL, caCertificates: {files}/ca.pem, clientCertificate: {files}/own.pem, "
        f"privateKey: {files}/own.key, caCrl: {files}/all.pem}}",
    }
    rules = (f"""\
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec:
  hosts: [{name}.test]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}}}
spec: {{host: {name}.test, trafficPolicy: {{tls: {tls}}}}}
""" for name, tls in known.items())  # fmt: skip
    return f"""\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: headed}}
spec:
  hosts: [headed.test]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {headed}}}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: headed}}
spec: {{host: headed.test, trafficPolicy: {{proxyProtocol: {{version: V1}}}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: parted}}
spec:
  hosts: [parted.test]
  addresses: [192.0.2.16/30]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints:
    - {{address: 127.0.0.2, ports: {{http: {headed}}}, labels: {{version: v1}}}}
    - {{address: 127.0.0.2, ports: {{http: {plain}}}, labels: {{version: v2}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: passed}}
spec:
  hosts: [passed.test]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {plain}}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.2, ports: {{http: {headed}}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: passed}}
spec: {{host: passed.test, trafficPolicy: {{loadBalancer: {{simple: PASSTHROUGH}}}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: placed}}
spec:
  hosts: [placed.test]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints:
    - {{address: 127.0.0.2, ports: {{http: {headed}}}, locality: us}}
    - {{address: 127.0.0.2, ports: {{http: {plain}}}, locality: eu/eu-1}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: placed}}
spec: {{host: placed.test, trafficPolicy: {{outlierDetection: {{consecutive5xxErrors: 5}}}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: parted}}
spec:
  host: parted.test
  subsets: [{{name: one, labels: {{version: v1}}}}, {{name: two, labels: {{version: v2}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: parted}}
spec:
  hosts: [parted.test]
  http:
    - match: [{{uri: {{prefix: /one}}}}]
      route: [{{destination: {{host: parted.test, subset: one}}}}]
    - route: [{{destination: {{host: parted.test, subset: two}}}}]
{"".join(rules)}"""


class Headed:
    """A server of HTTP whose connections begin with a header of the PROXY protocol, which it answers."""

    def __init__(self) -> None:
        self._server = ThreadingTCPServer(("127.0.0.2", 0), self.Handler)
        self.port: int = self._server.server_address[1]

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            first = self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            body = first.strip()
            self.wfile.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def keep(folder: Path, credential: Path) -> ssl.SSLContext:
    """Write what callers show and believe, and return how a partner proves itself and wants them to."""
    partner = Authority("Partner")
    shown, shown_key = partner.issue("mutual.test", "good.test", "revoked.test")
    own, own_key = partner.issue("details.example.com")
    credential.mkdir(parents=True)
    for path, text in {
        folder / "ca.pem": partner.pem,
        folder / "own.pem": own,
        folder / "own.key": own_key,
        folder / "none.pem": partner.revocations(),
        folder / "all.pem": partner.revocations(shown),
        folder / "shown.pem": shown,
        folder / "shown.key": shown_key,
        credential / "ca.crt": partner.pem,
        credential / "tls.crt": own,
        credential / "tls.key": own_key,
    }.items():
        path.touch(mode=0o600)
        path.write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "shown.pem", folder / "shown.key")
    context.load_verify_locations(folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate of a name, and its key, in files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "outside.pem", folder / "outside.key"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return chain, private


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("egress-tls")
    chain, key = certificate(folder, "www.books.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    called = (
        "www.books.test",
        "other.books.test",
        "mutual.test",
        "good.test",
        "revoked.test",
        "headed.test",
        "passed.test",
        "unchecked.test",
        "turns.test",
    )
    names = {name: ["127.0.0.2"] for name in called}
    directory = folder / "mesh"
    wary = keep(folder, directory / "credentials" / "partner")
    with (
        Outside("127.0.0.2", tls=context) as outside,
        Outside("127.0.0.2", tls=wary) as partner,
        Headed() as headed,
        Outside("127.0.0.2") as plain,
        Outside("127.0.0.1") as inside,
        Dns(names) as dns,
        socket.socket() as closed,
    ):
        closed.bind(("127.0.0.2", 0))  # where nobody listens, and nobody else will
        (directory / "mesh").mkdir(parents=True)
        (directory / "policies").mkdir()
        (directory / "groups.yaml").write_text(GROUPS)
        (directory / "mesh/partners.yaml").write_text(partners(partner.port, headed.port, plain.port, folder))
        (directory / "mesh/others.yaml").write_text(others(outside.port, plain.port, closed.getsockname()[1]))
        (directory / "workloads.yaml").write_text(WORKLOADS)
        (directory / "mesh/books.yaml").write_text(resources(outside.port, chain))
        (directory / "policies/books.cedar").write_text(POLICIES)
        (directory / "policyd.yaml").write_text(
            f'egress: {{allowAddresses: [127.0.0.2/32], dnsResolvers: ["127.0.0.1:{dns.port}"]}}\n'
        )
        try:
            yield World(up(directory), outside, inside)
        finally:
            down(directory)


def test_details_come_from_outside_over_tls_that_the_sidecar_opened(world: World) -> None:
    answer = world.get("http://www.books.test/books/v1/volumes", by="details-v2")

    assert (answer.status_code, answer.text) == (200, "127.0.0.2\n")
    assert world.outside.seen[-1] == "GET www.books.test /books/v1/volumes"
    record = records(world.mesh.directory, resource='Host::"www.books.test"')[-1]
    assert (record["decision"], record["reasons"]) == ("allow", ["details-asks-books"])


@pytest.mark.parametrize(("by", "path"), [("details-v2", "/maps"), ("reviews-v1", "/books/v1")])
def test_nobody_else_and_nothing_else_leaves(world: World, by: str, path: str) -> None:
    before = world.left()
    assert (world.get(f"http://www.books.test{path}", by=by).status_code, world.left()) == (403, before)


def test_a_server_with_another_names_certificate_gets_no_request(world: World) -> None:
    before = world.left()
    assert (world.get("http://other.books.test/", by="details-v2").status_code, world.left()) == (503, before)


def test_a_name_of_the_mesh_that_leads_outside_is_decided_as_the_host(world: World) -> None:
    answer = world.get("http://reviews:9080/books/1", by="details-v2")
    assert (answer.status_code, world.outside.seen[-1]) == (200, "GET reviews:9080 /books/1")

    before = world.left()
    denied = world.get("http://reviews:9080/books/1", by="reviews-v1")
    assert (denied.status_code, world.left()) == (403, before)
    assert world.mesh.record(denied.headers["x-policyd-decision-id"])["resource"] == 'Host::"www.books.test"'


@pytest.mark.parametrize(("host", "status"), [("mutual.test", 200), ("good.test", 200), ("revoked.test", 503)])
def test_a_partner_is_shown_a_certificate_unless_its_own_was_revoked(world: World, host: str, status: int) -> None:
    assert world.get(f"http://{host}/", by="details-v2").status_code == status


def test_a_certificate_that_nobody_is_to_check_is_not_checked(world: World) -> None:
    assert world.get("http://unchecked.test/", by="details-v2").status_code == 200
    assert world.outside.seen[-1] == "GET unchecked.test /"


def test_a_host_whose_addresses_take_turns_is_reached(world: World) -> None:
    assert world.get("http://turns.test/", by="details-v2").text == "127.0.0.2\n"


def test_a_place_that_cannot_be_reached_is_left_alone_whatever_the_others_answer(world: World) -> None:
    assert {world.get("http://broken.test/", by="details-v2").text for _ in range(6)} == {"127.0.0.2\n"}

    found = stats(world.mesh, "details-v2", "^cluster.outbound.80..broken.test.outlier_detection.ejections_enforced")
    causes = {name.rpartition("ejections_enforced_")[2]: count for name, count in found.items() if count}
    assert causes == {"consecutive_local_origin_failure": 1, "total": 1}


def test_a_connection_may_begin_with_where_it_comes_from(world: World) -> None:
    answer = world.get("http://headed.test/", by="details-v2")
    assert (answer.status_code, answer.text.split()[:2]) == (200, ["PROXY", "TCP4"])


@pytest.mark.parametrize("host", ["parted.test", "192.0.2.18"])  # by its name, and by an address of its range
def test_routes_lead_to_parts_of_a_host(world: World, host: str) -> None:
    for _ in range(3):
        assert world.get(f"http://{host}/one", by="details-v2").text == "GET /one HTTP/1.1"
        assert world.get(f"http://{host}/two", by="details-v2").text == "127.0.0.2\n"


def test_what_is_near_goes_before_what_is_far(world: World) -> None:
    assert {world.get("http://placed.test/", by="details-v2").text for _ in range(10)} == {"127.0.0.2\n"}


def test_what_is_passed_through_goes_to_what_the_name_means_and_not_to_declared_endpoints(world: World) -> None:
    answer = world.get("http://passed.test/", by="details-v2")
    assert (answer.status_code, answer.text) == (200, "127.0.0.2\n")
