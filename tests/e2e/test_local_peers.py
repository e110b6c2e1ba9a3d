"""Certificates of another trust domain whose names would forge a line of a sidecar's decisions, or another workload.

The authority of the other trust domain is trusted with its own workloads, and signs any name.
"""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from policyd.svid import bundle
from tests.e2e.conftest import RunningMesh, down, up
from tests.e2e.terminal import wait_until
from tests.e2e.test_local import AUTO, ENFORCEMENT, PATIENCE
from tests.e2e.wire import Identity, Refused, Reply, https, issue, policyd
from tests.fakes.toy_ca import ToyCa

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("local-peers")]

OTHER = "other.test"
FRIEND = f"spiffe://{OTHER}/ns/default/sa/friend"
WEB = "spiffe://cluster.local/ns/default/sa/web"
WORKLOADS = """\
workloads:
  web-v1:  {service: web, port: 80}
  shop-v1: {service: shop, port: 80, command: [python, echo.py]}
"""
POLICIES = "".join(
    f'@id("{name}") permit (principal == Workload::"{id_}", action in Action::"http", resource);\n'
    for name, id_ in (("friend", FRIEND), ("web", WEB))
)
AFTER = b"\x1fx\x1fy\n1\x1f1\x1f"  # ends a line, and begins one
HOSTILE = {
    "a line's end": FRIEND.encode() + b"\n" + FRIEND.encode(),
    "a column's end": FRIEND.encode() + AFTER,
    "a tab": FRIEND.encode() + b"\t",
    "quotes": FRIEND.encode() + b"\"'\\",
    "a comma": FRIEND.encode() + b"," + WEB.encode(),
    "no UTF-8": FRIEND.encode() + b"\xff\xfe",
    "a zero": FRIEND.encode() + b"\0",
    "a percent sign": FRIEND.encode() + b"%41",
}


@pytest.fixture(scope="module")
def other() -> ToyCa:
    return ToyCa(OTHER)


@pytest.fixture(scope="module")
def mesh(root: Path, tmp_path_factory: pytest.TempPathFactory, other: ToyCa) -> Iterator[RunningMesh]:
    """A service whose sidecar decides, in a mesh that knows the other trust domain."""
    base = tmp_path_factory.mktemp("local-peers")
    directory = base / "mesh"
    for folder in ("mesh", "policies"):
        (directory / folder).mkdir(parents=True)
    shutil.copy(root / "tests" / "e2e" / "apps" / "echo.py", directory)
    (directory / "workloads.yaml").write_text(WORKLOADS)
    (directory / "policies" / "all.cedar").write_text(POLICIES)
    (directory / "mesh" / "enforcement.yaml").write_text(ENFORCEMENT.format(AUTO))
    (directory / "policyd.yaml").write_text(f"ca: {{federation: [{{trustDomain: {OTHER}}}]}}\n")
    (base / "other.json").write_bytes(bundle.write(bundle.Bundle(OTHER, (other.root.der,))))
    try:
        made = up(directory)
        done = policyd(directory, "ca", "bundle", "import", str(base / "other.json"), "--trust-domain", OTHER)
        assert done.returncode == 0, done.stderr
        yield made
    finally:
        down(directory)


class Callers:
    """Who has certificates of the other trust domain, with any names."""

    def __init__(self, mesh: RunningMesh, other: ToyCa, folder: Path) -> None:
        self._other = other
        self._folder = folder
        self._port = mesh.place("shop-v1")["inbound_port"]
        self._roots = issue(mesh.directory, "web-v1", folder / "web").roots

    def ask(self, *names: bytes) -> Reply | None:
        """The shop's answer; None where the handshake does not hold."""
        key = ec.generate_private_key(ec.SECP256R1())
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        papers = Identity(self._folder / "key.pem", self._folder / "certificate.pem", self._roots)
        papers.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
        chain = self._other.sign(key.public_key(), (), raw=names)
        papers.certificate.write_text("".join(map(ssl.DER_cert_to_PEM_cert, chain)))
        try:
            return https(self._port, papers, "/who")
        except Refused:
            return None


@pytest.fixture(scope="module")
def callers(mesh: RunningMesh, other: ToyCa, tmp_path_factory: pytest.TempPathFactory) -> Callers:
    made = Callers(mesh, other, tmp_path_factory.mktemp("papers"))

    def is_known() -> bool:
        reply = made.ask(FRIEND.encode())
        return reply is not None and reply.status == 200

    wait_until(is_known, PATIENCE)
    return made


def decided(mesh: RunningMesh, reply: Reply) -> dict[str, Any]:
    """What is on record of who asked, and of what was decided."""
    wait_until(lambda: any(one.get("decision_id") == reply.decision_id for one in mesh.records()), PATIENCE)
    record = mesh.record(reply.decision_id)
    return {name: record.get(name) for name in ("decision", "principal", "decided_by", "errors")}


def test_policyd_decides_where_others_write_certificates_whatever_auto_could(mesh: RunningMesh) -> None:
    done = policyd(mesh.directory, "policy", "compile", "--service", "shop")

    assert "workloads of other trust domains are known there" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("what", HOSTILE)
def test_a_name_that_is_no_spiffe_id_is_nobodys_and_nobody_decides(
    mesh: RunningMesh, callers: Callers, what: str
) -> None:
    reply = callers.ask(HOSTILE[what])

    assert reply is not None
    assert reply.status == 503
    why = "a peer without an identity on `shop-v1/inbound`, which verifies them"
    assert decided(mesh, reply) == {
        "decision": "error",
        "principal": None,
        "decided_by": None,
        "errors": [{"source": "incomplete_request", "message": why}],
    }


def test_of_several_names_no_one_makes_a_workload_of_another_trust_domain(mesh: RunningMesh, callers: Callers) -> None:
    """The authority of one trust domain does not vouch for those of another, whatever else it vouches for."""
    friend, stranger, web = (name.encode() for name in (FRIEND, FRIEND + "2", WEB))
    assert callers.ask(web) is None
    assert callers.ask(web, friend) is None

    reply = callers.ask(stranger, web)

    assert reply is not None
    assert reply.status == 403
    assert decided(mesh, reply) == {
        "decision": "deny",
        "principal": f'Workload::"{FRIEND}2"',
        "decided_by": None,
        "errors": None,
    }
    asked = {one.get("principal") for one in mesh.records() if one["kind"] == "decision"}
    assert asked <= {None, f'Workload::"{FRIEND}"', f'Workload::"{FRIEND}2"'}
