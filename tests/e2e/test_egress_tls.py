"""Bookinfo's details ask for books outside, in plain HTTP; the sidecar opens TLS: Istio's sample, other names."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e.conftest import down, up
from tests.e2e.test_egress import World
from tests.e2e.wire import records
from tests.fakes.outside import Dns, Outside

pytestmark = pytest.mark.e2e

WORKLOADS = """\
workloads:
  details-v2: {service: details, port: 9080}
  reviews-v1: {service: reviews, port: 9080}
"""
POLICIES = """\
@id("details-asks-books")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/details", action == Action::"GET",
  resource == Host::"www.books.test") when { context.request.path like "/books/*" };
@id("details-asks-others")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/details", action == Action::"GET",
  resource == Host::"other.books.test");
"""


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
    names = {"www.books.test": ["127.0.0.2"], "other.books.test": ["127.0.0.2"]}
    with Outside("127.0.0.2", tls=context) as outside, Outside("127.0.0.1") as inside, Dns(names) as dns:
        directory = folder / "mesh"
        (directory / "mesh").mkdir(parents=True)
        (directory / "policies").mkdir()
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
