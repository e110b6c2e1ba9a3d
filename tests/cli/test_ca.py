"""Tokens and certificates by hand: who they are for, what is written, and that keys stay here."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from policyd._pb import admin_pb2 as pb
from policyd._pb import authority_pb2 as ca
from policyd.cli.exits import Exit
from policyd.cli.values import seconds, workload_id
from policyd.errors import NotFound, UsageError
from policyd.svid.bundle import Bundle, JwtKey, read, write
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
    with pytest.raises(UsageError if text.startswith("spiffe:") else NotFound) as caught:
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


def test_a_token_for_an_audience_is_printed_alone(policyd: Callable[..., Said], folder: Path, mesh: FakeAdmin) -> None:
    said = policyd("ca", "issue", "web", "--audience", "shop", "--audience", "bank", "--ttl", "1m", "--dir", folder)

    assert (said.code, said.out) == (0, "e30.e30.e30\n")
    assert said.err == f"`{WEB}`, until 2026-11-23 12:00:00 UTC, on record as 0a\n"
    asked = ca.IssueJwtRequest(spiffe_id=WEB, audiences=["shop", "bank"], ttl_seconds=60)
    assert mesh.requests[-1] == ("IssueJwt", asked)
    assert policyd("ca", "issue", "web", "--audience", "shop", "--dir", folder, "--json").value == {
        "token": "e30.e30.e30", "spiffe_id": WEB, "audiences": ["shop"], "expires_at": 1795435200, "jti": "0a",
    }  # fmt: skip


@pytest.mark.parametrize("words", [(), ("--out", "x", "--audience", "shop")])
def test_a_certificate_or_a_token_and_not_both(
    policyd: Callable[..., Said], folder: Path, mesh: FakeAdmin, words: tuple[str, ...]
) -> None:
    said = policyd("ca", "issue", "web", *words, "--dir", folder)
    assert said.code == Exit.USAGE
    assert said.err == "error: either a certificate or a token\n  give --out FOLDER, or --audience NAME\n"
    assert mesh.requests == []


ENTRY = ca.Entry(id="0a1b", spiffe_id=WEB, selectors=["unix:gid:5", "unix:uid:4"], hint="main")


def test_entries_of_processes_are_made_listed_and_deleted(
    policyd: Callable[..., Said], folder: Path, mesh: FakeAdmin
) -> None:
    mesh.replies |= {
        "CreateEntry": ENTRY, "DeleteEntry": ENTRY, "ListEntries": ca.ListEntriesReply(entries=[ENTRY]),
    }  # fmt: skip
    words = ("--selector", "unix:uid:4", "--selector", "unix:gid:5", "--hint", "main", "--dir", folder)
    assert policyd("ca", "entry", "create", "web", *words).out == (
        f"entry `0a1b`: processes with unix:gid:5 and unix:uid:4 are `{WEB}`\n"
    )
    asked = ca.CreateEntryRequest(spiffe_id=WEB, selectors=["unix:uid:4", "unix:gid:5"], hint="main")
    assert mesh.requests[-1] == ("CreateEntry", asked)
    shown = policyd("ca", "entry", "list", "--dir", folder).out.split()
    assert shown == ["entry", "spiffe", "id", "selectors", "hint", "0a1b", WEB, "unix:gid:5", "unix:uid:4", "main"]
    as_json = {"id": "0a1b", "spiffe_id": WEB, "selectors": ["unix:gid:5", "unix:uid:4"], "hint": "main"}
    assert policyd("ca", "entry", "list", "--dir", folder, "--json").value == [as_json]
    assert policyd("ca", "entry", "delete", "0a1b", "--dir", folder, "--json").value == as_json
    assert mesh.requests[-1] == ("DeleteEntry", ca.DeleteEntryRequest(id="0a1b"))


@pytest.fixture
def published(mesh: FakeAdmin) -> Bundle:
    """A bundle that the server shows."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    made = Bundle("cluster.local", (ToyCa().root.der,), (JwtKey("k1", key),), 7, 300)
    mesh.replies["ShowBundle"] = ca.ShowBundleReply(trust_domain="cluster.local", document=write(made))
    return made


def test_the_bundle_is_shown_as_people_programs_and_openssl_want_it(
    policyd: Callable[..., Said], folder: Path, published: Bundle
) -> None:
    people = policyd("ca", "bundle", "show", "--dir", folder).out
    for text in ("trust domain  cluster.local", "sequence      7", "x509-svid", "CN=cluster.local root", "k1"):
        assert text in people
    assert read(policyd("ca", "bundle", "show", "--dir", folder, "--json").out.encode(), "cluster.local") == published
    pem = policyd("ca", "bundle", "show", "--dir", folder, "--pem").out
    assert x509.load_pem_x509_certificate(pem.encode()) == published.authorities[0]


def test_the_bundle_is_exported_whole_and_for_everybody_to_read(
    policyd: Callable[..., Said], folder: Path, published: Bundle, tmp_path: Path
) -> None:
    file = tmp_path / "bundle.json"
    said = policyd("ca", "bundle", "export", file, "--dir", folder)
    assert said.out == "wrote the bundle of `cluster.local`: roots 1, keys of tokens 1\n"
    assert (read(file.read_bytes(), "cluster.local"), stat.S_IMODE(file.stat().st_mode)) == (published, 0o644)
    policyd("ca", "bundle", "export", file, "--pem", "--dir", folder)
    assert x509.load_pem_x509_certificate(file.read_bytes()) == published.authorities[0]
    said = policyd("ca", "bundle", "export", file, "--jwt", "--dir", folder)
    assert said.out == "wrote the bundle of `cluster.local`: roots 0, keys of tokens 1\n"
    only = read(file.read_bytes(), "cluster.local")
    assert (only.roots, only.jwt_keys) == ((), published.jwt_keys)
    assert policyd("ca", "bundle", "export", file, "--pem", "--jwt", "--dir", folder).code == Exit.USAGE
    refused = policyd("ca", "bundle", "export", tmp_path / "no" / "where", "--dir", folder)
    assert (refused.code, "cannot be written" in refused.err) == (Exit.ERROR, True)


def test_a_dash_prints_the_bundle_and_no_remark_in_it(
    policyd: Callable[..., Said], folder: Path, published: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = policyd("ca", "bundle", "export", "-", "--dir", folder)
    assert read(said.out.encode(), "cluster.local") == published
    assert (said.err, Path("-").exists()) == ("wrote the bundle of `cluster.local`: roots 1, keys of tokens 1\n", False)
    assert policyd("ca", "bundle", "export", "-", "--json", "--dir", folder).code == Exit.USAGE


def test_the_status_is_one_screen(policyd: Callable[..., Said], folder: Path, mesh: FakeAdmin) -> None:
    now = int(time.time())
    elements = [
        ca.Element(name="root", id="ab" * 32, state="trusted", begins=now, ends=now + 86_400 * 400 + 60),
        ca.Element(name="intermediate", id="0c", state="signs", begins=now, ends=now + 86_400 * 30 + 60),
        ca.Element(name="token key", id="k2", state="published", begins=now + 86_400, ends=now + 86_400 * 7 + 60),
    ]
    mesh.replies["CaStatus"] = ca.CaStatusReply(
        trust_domain="cluster.local", elements=elements, sequence=7, issued=3, entries=1, warnings=["it ends soon"]
    )
    said = policyd("ca", "status", "--dir", folder)
    assert said.code == 0
    for text in ("cluster.local", "root", "abababababab", "trusted", "in 400 d", "signs", "in 30 d", "published", "3"):
        assert text in said.out
    assert said.err == "warning: it ends soon\n"
    assert policyd("ca", "status", "--dir", folder, "--json").value["elements"][0]["id"] == "ab" * 32


def test_the_socket_of_the_workload_api_is_printed_where_it_is(
    policyd: Callable[..., Said], folder: Path, mesh: FakeAdmin
) -> None:
    missing = policyd("ca", "status", "--socket", "--dir", folder)
    assert (missing.code, "no agent of this folder serves the Workload API" in missing.err) == (Exit.ERROR, True)


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("web", "--reason", "lost"), ("Revoke", ca.RevokeRequest(spiffe_id=WEB, reason="lost"))),
        ((WEB,), ("Revoke", ca.RevokeRequest(spiffe_id=WEB))),
        (("web", "--undo"), ("Unrevoke", ca.RevokeRequest(spiffe_id=WEB))),
        (("agent/vm-1",), ("Revoke", ca.RevokeRequest(spiffe_id="spiffe://cluster.local/agent/vm-1"))),
    ],
)
def test_an_identity_is_revoked_by_its_name(
    policyd: Callable[..., Said], folder: Path, mesh: FakeAdmin, words: tuple[str, ...], asked: object
) -> None:
    said = policyd("ca", "revoke", *words, "--dir", folder)
    assert (said.code, said.err, mesh.requests[-1]) == (0, "", asked)
    assert said.out.endswith("is no longer revoked\n" if "--undo" in words else "is revoked\n")


def test_a_revocation_that_decisions_do_not_know_yet_is_no_silent_one(
    policyd: Callable[..., Said], folder: Path, mesh: FakeAdmin
) -> None:
    mesh.replies["Revoke"] = ca.RevokeReply(pending="policies/a.cedar:1: broken")
    said = policyd("ca", "revoke", "web", "--dir", folder)
    assert said.err == "warning: decisions do not know it yet, policies/a.cedar:1: broken\n"


def test_what_is_revoked_is_listed(policyd: Callable[..., Said], folder: Path, mesh: FakeAdmin) -> None:
    found = ca.Revoked(spiffe_id=WEB, since=1795435200, reason="lost")
    mesh.replies["ListRevoked"] = ca.ListRevokedReply(revoked=[found])
    assert f"{WEB}  2026-11-23 12:00:00 UTC  lost" in policyd("ca", "revoked", "--dir", folder).out
    assert policyd("ca", "revoked", "--dir", folder, "--json").value == [
        {"spiffe_id": WEB, "since": 1795435200, "reason": "lost"}
    ]


def test_join_tokens_are_listed_with_their_state_and_made_worthless(
    policyd: Callable[..., Said], folder: Path, mesh: FakeAdmin
) -> None:
    now = int(time.time())
    mesh.replies["ListTokens"] = ca.ListTokensReply(
        tokens=[
            ca.Token(id="0a", agent="vm-1", expires_at=now + 600),
            ca.Token(id="0b", agent="vm-2", workloads=[WEB], expires_at=now + 600, used_at=now - 120),
            ca.Token(id="0c", agent="vm-3", expires_at=now - 1),
        ]
    )
    lines = policyd("ca", "token", "list", "--dir", folder).out.splitlines()[1:]
    assert [(line.split()[0], line.split()[2]) for line in lines] == [("0a", "all"), ("0b", WEB), ("0c", "all")]
    assert [line.split("UTC")[1].strip() for line in lines] == ["unused", "used 2 min ago", "over"]
    assert policyd("ca", "token", "list", "--dir", folder, "--json").value[0]["agent"] == "vm-1"
    said = policyd("ca", "token", "revoke", "0a", "--dir", folder)
    assert said.out == "the token `0a` for the agent `vm-1` is worthless\n"
    assert mesh.requests[-1] == ("RevokeToken", ca.RevokeTokenRequest(id="0a"))
