"""Tokens and certificates by hand: who they are for, what is written, and that keys stay here."""

from __future__ import annotations

import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from policyd._pb import admin_pb2 as pb
from policyd.cli.exits import Exit
from policyd.cli.values import seconds, workload_id
from policyd.errors import UsageError
from tests.cli.conftest import Said
from tests.fakes.admin import FakeAdmin
from tests.fakes.toy_ca import ToyCa

WEB = "spiffe://cluster.local/ns/default/sa/web"
PLACES = [
    pb.InstancePlace(name="web-v1", spiffe_id=WEB),
    pb.InstancePlace(name="web-v2", spiffe_id=WEB),
    pb.InstancePlace(name="db-1", spiffe_id="spiffe://cluster.local/ns/default/sa/db"),
    pb.InstancePlace(name="db-2", spiffe_id="spiffe://cluster.local/ns/shop/sa/db"),
]


@pytest.fixture
def mesh(fake: FakeAdmin) -> FakeAdmin:
    """A server with workloads."""
    fake.replies["Instances"] = pb.InstancesReply(instances=PLACES)
    return fake


def signing(authority: ToyCa, **changes: Any) -> Callable[[pb.IssueRequest], pb.IssueReply]:
    """Sign what is asked for, or something else."""

    def issue(request: pb.IssueRequest) -> pb.IssueReply:
        asked = {"public_key": x509.load_der_x509_csr(request.csr).public_key(), "uris": [request.spiffe_id]}
        return pb.IssueReply(chain=authority.sign(**(asked | changes)), roots=[authority.root.der])

    return issue


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("web-v1", WEB),
        ("web", WEB),
        ("web.default", WEB),
        ("db.shop", "spiffe://cluster.local/ns/shop/sa/db"),
        ("db-1", "spiffe://cluster.local/ns/default/sa/db"),
        ("spiffe://cluster.local/ns/x/sa/y", "spiffe://cluster.local/ns/x/sa/y"),
    ],
)
def test_a_workload_has_short_names(text: str, meant: str) -> None:
    assert str(workload_id(text, "cluster.local", PLACES)) == meant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("webb", "`webb` is no workload of this mesh; did you mean `web`?"),
        ("", "`` is no workload of this mesh; name an instance, or write `spiffe://cluster.local/...`"),
        ("db", "`db` may be one of several workloads; name an instance of it"),
        ("spiffe://", "`` is no trust domain name; use lower-case letters, digits, dots, dashes and underscores"),
    ],
)
def test_what_names_no_workload_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        workload_id(text, "cluster.local", PLACES)
    assert str(caught.value) == message


def test_a_length_of_time_is_written_with_its_unit() -> None:
    assert [seconds(text) for text in ("", "10m", "1h", "90s")] == [0, 600, 3600, 90]
    for wrong in ("10", "ten", "-1s", "0s", "1ms"):
        with pytest.raises(UsageError):
            seconds(wrong)


def test_a_token_is_printed_alone_so_that_it_can_be_piped(
    policyd: Callable[..., Said], folder: Path, mesh: FakeAdmin
) -> None:
    said = policyd("ca", "token", "create", "--agent", "vm-1", "--workload", "web", "--ttl", "1h", "--dir", folder)

    assert said.out == "policyd1.e30\n"
    assert said.err == "for agent `vm-1`, works once, until 2026-11-23 12:00:00 UTC\n"
    assert mesh.requests[-1] == ("CreateToken", pb.CreateTokenRequest(agent="vm-1", workloads=[WEB], ttl_seconds=3600))


def test_a_token_for_programs(policyd: Callable[..., Said], folder: Path, mesh: FakeAdmin) -> None:
    assert policyd("ca", "token", "create", "--dir", folder, "--json").value == {
        "token": "policyd1.e30", "agent": "agent", "workloads": [], "expires_at": 1795435200,
    }  # fmt: skip


def test_a_certificate_is_issued_for_a_key_that_stays_here(
    policyd: Callable[..., Said], folder: Path, mesh: FakeAdmin, tmp_path: Path
) -> None:
    mesh.replies["Issue"] = signing(ToyCa())
    out = tmp_path / "identity"

    said = policyd("ca", "issue", "web", "--out", out, "--ttl", "30m", "--dir", folder, "--json")

    assert (said.code, said.value["spiffe_id"]) == (0, WEB)
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in out.iterdir()} == {
        "key.pem": 0o600, "certificate.pem": 0o600, "roots.pem": 0o600,
    }  # fmt: skip
    key = serialization.load_pem_private_key((out / "key.pem").read_bytes(), None)
    [leaf, _intermediate] = x509.load_pem_x509_certificates((out / "certificate.pem").read_bytes())
    assert leaf.public_key() == key.public_key()
    [(_, asked)] = [request for request in mesh.requests if request[0] == "Issue"]
    assert asked.ttl_seconds == 1800
    assert "PRIVATE" not in said.out + said.err
    assert b"PRIVATE" not in asked.csr


def test_files_that_are_there_are_not_replaced_unasked(
    policyd: Callable[..., Said], folder: Path, mesh: FakeAdmin, tmp_path: Path
) -> None:
    mesh.replies["Issue"] = signing(ToyCa())
    (tmp_path / "key.pem").write_text("mine")

    refused = policyd("ca", "issue", "web", "--out", tmp_path, "--dir", folder)
    assert (refused.code, (tmp_path / "key.pem").read_text()) == (Exit.ERROR, "mine")
    assert "replace it with `--force`" in refused.err
    assert [name for name, _ in mesh.requests] == []

    assert policyd("ca", "issue", "web", "--out", tmp_path, "--dir", folder, "--force").code == 0
    assert (tmp_path / "key.pem").read_text().startswith("-----BEGIN PRIVATE KEY-----")


@pytest.mark.parametrize(
    "changes",
    [
        {"uris": ["spiffe://cluster.local/ns/default/sa/db"]},
        {"life": timedelta(seconds=-10)},
        {"public_key": ToyCa().root.key.public_key()},
        {"ca": True},
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_not_written(
    policyd: Callable[..., Said], folder: Path, mesh: FakeAdmin, tmp_path: Path, changes: dict[str, Any]
) -> None:
    mesh.replies["Issue"] = signing(ToyCa(), **changes)

    said = policyd("ca", "issue", "web", "--out", tmp_path / "identity", "--dir", folder)

    assert said.code == Exit.ERROR
    assert said.err.startswith("error: ")
    assert not (tmp_path / "identity").exists()
