"""Two meshes of two trust domains, two control planes, real Envoys: workloads of one call those of the other."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from policyd.svid import bundle
from tests.e2e.conftest import PROGRAM, RunningMesh, down, up
from tests.e2e.terminal import wait_until
from tests.e2e.wire import Identity, issue, sidecar
from tests.whole import put

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("federation")]

SHOP, BANK = "shop.test", "bank.test"
PAY = f"spiffe://{BANK}/ns/default/sa/pay"
WEB = f"spiffe://{SHOP}/ns/default/sa/web"
SHOPS_POLICIES = """\
@id("out") permit (principal, action in Action::"http", resource == Host::"pay.bank.test");
"""
BANKS_POLICIES = f"""\
@id("the-shops-web")
permit (principal == Workload::"{WEB}", action in Action::"read", resource == Service::"pay.default");
"""
ALONE = f"""\
trustDomain: {SHOP}
egress: {{allowAddresses: [127.0.0.1/32]}}
ca: {{bundleEndpoint: {{listen: '127.0.0.1:0'}}}}
"""
WORKLOADS = {
    SHOP: "workloads: {web-v1: {service: web, port: 80}, guest-v1: {service: guest, port: 80}}\n",
    BANK: "workloads: {pay-v1: {service: pay, port: 80, command: [python, echo.py]}}\n",
}


def settings(own: str, other: str, port: int | None, more: str = "") -> str:
    """policyd.yaml of a mesh that knows the other one, whose endpoint is at `port`, or nowhere."""
    endpoint = (
        f", bundleEndpoint: 'https://127.0.0.1:{port}/', endpointId: 'spiffe://{other}/policyd/server'" if port else ""
    )
    return (
        f"trustDomain: {own}\n"
        "egress: {allowAddresses: [127.0.0.1/32]}\n"
        f"ca: {{bundleEndpoint: {{listen: '127.0.0.1:0'}}, federation: [{{trustDomain: {other}{endpoint}}}]{more}}}\n"
    )


def leads_to(port: int, asked: str = "") -> str:
    """Where the shop finds the bank's service, and whom it expects there."""
    return f"""\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: pay}}
spec:
  hosts: [pay.bank.test]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1}}]
  subjectAltNames: ["{PAY}"]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: pay}}
spec:
  host: pay.bank.test
  trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL{asked}}}}}
"""


@dataclass
class World:
    """Both meshes."""

    shop: RunningMesh
    bank: RunningMesh

    def asks(self, instance: str) -> httpx.Response:
        """What an instance of the shop gets of the bank."""
        with self.shop.client(instance) as client:
            return client.get("http://pay.bank.test/balance")


def folder(target: Path, root: Path, domain: str, policies: str) -> Path:
    (target / "policies").mkdir(parents=True)
    (target / "mesh").mkdir()
    (target / "workloads.yaml").write_text(WORKLOADS[domain])
    (target / "policies" / "all.cedar").write_text(policies)
    shutil.copy(root / "tests" / "e2e" / "apps" / "echo.py", target)
    (target / "policyd.yaml").write_text(ALONE if domain == SHOP else settings(BANK, SHOP, None))
    return target


def run(mesh: RunningMesh, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *words, "--dir", str(mesh.directory)], capture_output=True, text=True, timeout=30)


def endpoint(mesh: RunningMesh) -> int:
    """The port of its bundle endpoint."""
    facts = json.loads((mesh.directory / ".policyd" / "server.json").read_text())
    return int(facts["bundles"].rpartition(":")[2])


@pytest.fixture(scope="module")
def world(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Up, and each with the other's first bundle, brought by hand."""
    base = tmp_path_factory.mktemp("federation")
    meshes: list[RunningMesh] = []
    try:
        for domain, policies in ((SHOP, SHOPS_POLICIES), (BANK, BANKS_POLICIES)):
            meshes.append(up(folder(base / domain, root, domain, policies)))
        shop, bank = meshes
        named = (
            "ca",
            "federation",
            "create",
            BANK,
            "--bundle",
            str(base / f"{BANK}.json"),
        )  # the other by its settings
        brought = ("ca", "bundle", "import", str(base / f"{SHOP}.json"), "--trust-domain", SHOP)
        for mesh, other, domain, words in ((shop, bank, BANK, named), (bank, shop, SHOP, brought)):
            assert run(other, "ca", "bundle", "export", str(base / f"{domain}.json")).returncode == 0
            done = run(mesh, *words)
            assert (done.returncode, f"the workloads of `{domain}` are known" in done.stdout) == (0, True), done.stderr
        put(shop.directory / "mesh" / "pay.yaml", leads_to(bank.place("pay-v1")["inbound_port"]))
        yield World(shop, bank)
    finally:
        for mesh in meshes:
            down(mesh.directory)


def test_a_workload_calls_one_of_another_trust_domain_under_its_policies(world: World) -> None:
    wait_until(lambda: world.asks("web-v1").status_code == 200, 30, lambda: world.asks("web-v1").text)
    assert world.asks("web-v1").text == "pay-v1"
    records = world.bank.records("pay-v1")
    assert {(one["principal"], one["decision"]) for one in records} == {(f'Workload::"{WEB}"', "allow")}


def test_another_workload_of_that_trust_domain_is_denied_by_name(world: World) -> None:
    wait_until(lambda: world.asks("web-v1").status_code == 200, 30)
    denied = world.asks("guest-v1")
    assert denied.status_code == 403
    record = world.bank.record(denied.headers["x-policyd-decision-id"])
    assert record["principal"] == f'Workload::"spiffe://{SHOP}/ns/default/sa/guest"'


def test_bundles_are_fetched_from_where_they_are_published(world: World) -> None:
    for mesh, own, other, port in (
        (world.shop, SHOP, BANK, endpoint(world.bank)),
        (world.bank, BANK, SHOP, endpoint(world.shop)),
    ):
        put(mesh.directory / "policyd.yaml", settings(own, other, port))

        def asked(mesh: RunningMesh = mesh, other: str = other) -> bool:
            return run(mesh, "ca", "federation", "refresh", other).returncode == 0

        wait_until(asked, 30, lambda mesh=mesh, other=other: run(mesh, "ca", "federation", "refresh", other).stderr)
        [told] = mesh.says("ca", "federation", "list")
        document = run(world.bank if other == BANK else world.shop, "ca", "bundle", "show", "--json").stdout
        published = bundle.read(document.encode(), other)
        assert (told["trust_domain"], told["profile"], told["sequence"], told["problem"]) == (
            other, "https_spiffe", published.sequence, None,
        )  # fmt: skip
    assert world.asks("web-v1").status_code == 200


def resumed(
    context: ssl.SSLContext, port: int, session: ssl.SSLSession | None, server: str | None = None
) -> tuple[int, ssl.SSLSession]:
    """Ask by hand, with the session of a connection before: the status, and the session to go on with."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname=server, session=session) as connection,
    ):
        connection.sendall(b"GET /balance HTTP/1.1\r\nHost: pay\r\nConnection: close\r\n\r\n")
        with closing(http.client.HTTPResponse(connection, method="GET")) as response:
            response.begin()
            response.read()
            assert connection.session is not None
            return response.status, connection.session


def told_to_go(connection: http.client.HTTPSConnection) -> bool:
    """Whether an answer says that it is the last one on its connection, or there is none any more."""
    try:
        connection.request("GET", "/balance", headers={"host": "pay"})
        with closing(connection.getresponse()) as response:
            response.read()
            if response.getheader("connection") != "close":
                return False
    except (ssl.SSLError, ConnectionError, http.client.HTTPException):
        pass
    connection.close()
    return True


class Door:
    """The port of the bank's sidecar, as who has papers and names a server comes to it."""

    def __init__(self, world: World) -> None:
        self.port = world.bank.place("pay-v1")["inbound_port"]

    def opened(self, papers: Identity) -> http.client.HTTPSConnection:
        """A connection that stays open from one request to the next."""
        context = papers.context()
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)

    def asks(self, papers: Identity, server: str | None, session: ssl.SSLSession | None = None) -> int | None:
        """The status of the answer; None where the handshake does not hold."""
        context = papers.context()
        context.verify_mode = ssl.CERT_NONE  # whom the bank believes is what is asked here
        try:
            return resumed(context, self.port, session, server)[0]
        except (ssl.SSLError, ConnectionError, http.client.HTTPException):
            return None


def test_one_certificate_is_refused_and_the_next_of_the_same_identity_is_not(world: World, tmp_path: Path) -> None:
    """Each trust domain has a chain of its own: by lists of what is revoked, and by no roots but its own."""
    file, way = world.bank.directory / "policyd.yaml", world.shop.directory / "mesh" / "pay.yaml"
    before, led = file.read_text(), way.read_text()
    door = Door(world)
    lost, good = (issue(world.bank.directory, "pay", tmp_path / name) for name in ("lost", "good"))
    web = issue(world.shop.directory, "web-v1", tmp_path / "web")
    serial = f"{lost.leaf.serial_number:032x}"
    refused = run(world.bank, "ca", "revoke", "--serial", serial)
    assert (refused.returncode, "revokeSerials" in refused.stderr) == (3, True)
    try:
        put(file, settings(BANK, SHOP, endpoint(world.shop), ", revokeSerials: true"))
        put(way, leads_to(door.port, f", sni: {SHOP}"))
        wait_until(lambda: (door.asks(web, None), door.asks(web, SHOP)) == (None, 200), 30)
        # a stranger's roots vouch for strangers, whatever name of a server is asked for
        assert (door.asks(good, None), door.asks(good, SHOP)) == (403, None)
        wait_until(lambda: world.asks("web-v1").status_code == 200, 30, lambda: world.asks("web-v1").text)

        context = lost.context()
        context.verify_mode = ssl.CERT_NONE
        status, session = resumed(context, door.port, None)
        assert status == 403  # it is who it says, and permitted nothing
        kept = door.opened(lost)
        assert told_to_go(kept) is False
        done = run(world.bank, "ca", "revoke", "--serial", serial, "--reason", "key lost")
        assert (done.returncode, done.stdout) == (0, f"the certificate `{serial}` is revoked\n"), done.stderr
        wait_until(lambda: door.asks(lost, None) is None, 30)
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
            resumed(context, door.port, session)
        wait_until(lambda: told_to_go(kept), 30)  # and cut off within a minute, if it did not go (tests/xds/test_eras)
        assert door.asks(good, None) == 403

        own = sidecar(world.bank, "pay-v1")["svid_serial"]
        assert run(world.bank, "ca", "revoke", "--serial", own).returncode == 0
        wait_until(lambda: sidecar(world.bank, "pay-v1")["svid_serial"] != own, 30)  # its agent gets it another at once
        wait_until(lambda: world.asks("web-v1").status_code == 200, 30, lambda: world.asks("web-v1").text)

        assert run(world.bank, "ca", "crl", str(tmp_path / "crl.pem")).returncode == 0
        listed = x509.load_pem_x509_crl((tmp_path / "crl.pem").read_bytes())
        assert {f"{one.serial_number:032x}" for one in listed} == {serial, own}
        assert run(world.bank, "ca", "revoke", "--serial", serial, "--undo").returncode == 0
        wait_until(lambda: door.asks(lost, None) == 403, 30)
    finally:
        put(file, before)
        put(way, led)


def test_a_trust_domain_that_is_known_no_more_is_one_of_strangers(world: World, tmp_path: Path) -> None:
    wait_until(lambda: world.asks("web-v1").status_code == 200, 30)
    papers = issue(world.shop.directory, "web-v1", tmp_path / "web")
    context, port = papers.context(), world.bank.place("pay-v1")["inbound_port"]
    context.verify_mode = ssl.CERT_NONE  # whom the bank trusts is what is asked here
    status, session = resumed(context, port, None)
    assert (status, resumed(context, port, session)[0]) == (200, 200)
    file = world.bank.directory / "policyd.yaml"
    before = file.read_text()
    endpoint_only = f"trustDomain: {BANK}\nca: {{bundleEndpoint: {{listen: '127.0.0.1:0'}}}}\n"
    put(file, endpoint_only + "egress: {allowAddresses: [127.0.0.1/32]}\n")
    wait_until(lambda: world.asks("web-v1").status_code == 503, 30, lambda: world.asks("web-v1").text)

    def is_refused() -> bool:
        """The session was good; those who began it are strangers now, to policyd maybe sooner than to the sidecar."""
        try:
            assert resumed(context, port, session)[0] == 503
        except (ssl.SSLError, ConnectionError, http.client.HTTPException):
            return True
        return False

    wait_until(is_refused, 30)
    put(file, before)
