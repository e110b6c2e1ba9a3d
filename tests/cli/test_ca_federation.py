"""The commands about other trust domains: what they ask, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from policyd._pb import authority_pb2 as ca
from policyd.cli.exits import Exit
from policyd.svid import bundle
from policyd.svid.bundle import MAX_BYTES
from tests.cli.conftest import Said
from tests.fakes.admin import FakeAdmin
from tests.fakes.toy_ca import ToyCa

PARTNER = ca.Federated(
    trust_domain="partner.org", bundle_endpoint="https://p/", profile="https_spiffe",
    endpoint_id="spiffe://partner.org/policyd/server", known=True, sequence=7, roots=2, jwt_keys=1,
)  # fmt: skip
OTHER = ca.Federated(trust_domain="other.org")
KNOWN = "the workloads of `partner.org` are known: sequence 7, roots 2, keys of tokens 1\n"


def test_other_trust_domains_are_listed_with_what_lacks(
    policyd: Callable[..., Said], folder: Path, fake: FakeAdmin
) -> None:
    fake.replies["ListFederation"] = ca.ListFederationReply(federated=[PARTNER, OTHER])
    rows = policyd("ca", "federation", "list", "--dir", folder).out.splitlines()
    assert [row.split("  ")[0] for row in rows[1:]] == ["partner.org", "other.org"]
    assert "https://p/ (https_spiffe)" in rows[1]
    assert rows[2].endswith("no bundle is at hand")
    assert policyd("ca", "federation", "list", "--dir", folder, "--json").value == [
        {
            "trust_domain": "partner.org", "bundle_endpoint": "https://p/", "profile": "https_spiffe",
            "endpoint_id": "spiffe://partner.org/policyd/server", "known": True, "sequence": 7, "roots": 2,
            "jwt_keys": 1, "problem": None, "created": False,
        },
        {
            "trust_domain": "other.org", "bundle_endpoint": None, "profile": None, "endpoint_id": None,
            "known": False, "sequence": None, "roots": 0, "jwt_keys": 0, "problem": None, "created": False,
        },
    ]  # fmt: skip


def test_a_bundle_is_asked_for_and_what_came_of_it_is_said(
    policyd: Callable[..., Said], folder: Path, fake: FakeAdmin
) -> None:
    fake.replies["RefreshFederation"] = PARTNER
    assert policyd("ca", "federation", "refresh", "partner.org", "--dir", folder).out == KNOWN
    assert fake.requests[-1][1] == ca.RefreshFederationRequest(trust_domain="partner.org")
    fake.replies["RefreshFederation"] = ca.Federated(trust_domain="partner.org", problem="the answer is 500")
    said = policyd("ca", "federation", "refresh", "partner.org", "--dir", folder)
    assert said.code == Exit.ERROR
    assert "cannot be fetched: the answer is 500" in said.err
    assert "its workloads are strangers until it can" in said.err


def test_a_bundle_is_brought_by_hand(
    policyd: Callable[..., Said], folder: Path, fake: FakeAdmin, tmp_path: Path
) -> None:
    fake.replies["ImportBundle"] = PARTNER
    file = tmp_path / "partner.json"
    file.write_bytes(b'{"keys": []}')
    words = ("ca", "bundle", "import", file, "--trust-domain", "partner.org", "--dir", folder)
    assert policyd(*words).out == KNOWN
    assert fake.requests[-1][1] == ca.ImportBundleRequest(trust_domain="partner.org", document=b'{"keys": []}')
    assert policyd(*words, "--json").value == {"trust_domain": "partner.org", "sequence": 7, "roots": 2}


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_file_that_is_none_is_a_usage_error(
    policyd: Callable[..., Said], folder: Path, tmp_path: Path, name: str
) -> None:
    said = policyd("ca", "bundle", "import", tmp_path / name, "--trust-domain", "partner.org", "--dir", folder)
    assert (said.code, "cannot be read" in said.err) == (Exit.USAGE, True)


def test_no_more_of_a_file_is_read_than_a_bundle_has(
    policyd: Callable[..., Said], folder: Path, fake: FakeAdmin, tmp_path: Path
) -> None:
    fake.replies["ImportBundle"] = PARTNER
    (tmp_path / "huge.json").write_bytes(b" " * (MAX_BYTES + 100))
    policyd("ca", "bundle", "import", tmp_path / "huge.json", "--trust-domain", "partner.org", "--dir", folder)
    assert len(fake.requests[-1][1].document) == MAX_BYTES + 1  # which is refused for its length


def test_a_trust_domain_is_named_by_a_command_with_its_first_bundle(
    policyd: Callable[..., Said], folder: Path, fake: FakeAdmin, tmp_path: Path
) -> None:
    fake.replies["CreateFederation"] = PARTNER
    (tmp_path / "first.json").write_bytes(b"{}")
    words = ["--bundle-endpoint", "https://p/", "--endpoint-id", "spiffe://partner.org/policyd/server"]
    said = policyd(
        "ca", "federation", "create", "partner.org", *words, "--bundle", tmp_path / "first.json", "--dir", folder
    )
    assert said.out == KNOWN
    assert fake.requests[-1][1] == ca.CreateFederationRequest(
        trust_domain="partner.org", bundle_endpoint="https://p/", profile="https_spiffe",
        endpoint_id="spiffe://partner.org/policyd/server", document=b"{}",
    )  # fmt: skip
    fake.replies["CreateFederation"] = OTHER
    said = policyd("ca", "federation", "create", "other.org", "--dir", folder)
    assert said.out == "the workloads of `other.org` are strangers until its bundle is at hand\n"


def test_a_trust_domain_is_let_go_by_a_command(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    fake.replies["DeleteFederation"] = PARTNER
    said = policyd("ca", "federation", "delete", "partner.org", "--dir", folder)
    assert said.out == "the workloads of `partner.org` are strangers\n"
    assert fake.requests[-1][1] == ca.DeleteFederationRequest(trust_domain="partner.org")


def test_one_is_shown_with_the_keys_of_its_bundle(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    document = bundle.write(bundle.Bundle("partner.org", (ToyCa("partner.org").root.der,), sequence=7))
    known = ca.Federated(created=True, document=document)
    known.MergeFrom(PARTNER)
    fake.replies["ListFederation"] = ca.ListFederationReply(federated=[known, OTHER])
    rows = policyd("ca", "federation", "show", "partner.org", "--dir", folder).out.splitlines()
    assert [row.split()[-1] for row in rows[:6]] == [
        "partner.org", "command", "https://p/", "spiffe://partner.org/policyd/server", "-", "7",
    ]  # fmt: skip
    assert "x509-svid" in rows[-1]
    told = policyd("ca", "federation", "show", "partner.org", "--dir", folder, "--json").value
    assert (told["created"], told["bundle"]["spiffe_sequence"]) == (True, 7)
    assert "no bundle is at hand" in policyd("ca", "federation", "show", "other.org", "--dir", folder).out
    said = policyd("ca", "federation", "show", "nobody.org", "--dir", folder)
    assert (said.code, "`nobody.org` is not known here" in said.err) == (Exit.INVALID, True)
