"""`policyd log show`: one decision in full, explained by the policies of its time."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from policyd.audit.journal import Journal
from policyd.authz.ruling import Ruling
from policyd.cli.exits import Exit
from tests.audit.samples import NOON, an_entry
from tests.cli import recorded
from tests.cli.conftest import Said
from tests.policy import traffic

Command = Callable[..., Said]


@pytest.fixture(scope="module")
def bookinfo(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ruling]:
    """Bookinfo, asked 150 times; its policies were taken away since."""
    folder = tmp_path_factory.mktemp("shown") / "bookinfo"
    ruling = recorded.served(root, folder, 150)
    for path in (folder / "policies").iterdir():
        path.unlink()
    journal = Journal(folder / ".policyd" / "journal", "other", lambda: traffic.START)
    journal.append(an_entry(time=NOON, decision_id="aa" * 16, revision="5f2e" * 16, request_id="two-hops"))
    journal.append(an_entry(time=NOON + timedelta(1), decision_id="ab" * 16, revision="", request_id="two-hops"))
    journal.append(an_entry(time=NOON, kind="change", decision_id="ac" * 16, principal="", detail={"files": ["x"]}))
    journal.close()
    return folder, ruling


def test_a_decision_is_explained_as_of_its_revision(policyd: Command, bookinfo: tuple[Path, Ruling]) -> None:
    folder, ruling = bookinfo
    wanted = ("--decision", "allow", "--revision", ruling.revision[:12])
    found = policyd("log", "query", *wanted, "--json", "-n", "1", "--dir", folder).out
    id_ = json.loads(found)["decision_id"]
    shown = policyd("log", "show", id_, "--dir", folder)
    assert (shown.code, shown.err) == (Exit.OK, "")
    assert f"explained under revision {ruling.revision[:12]}, which decided:\nallow: permitted by" in shown.out
    assert "\npolicies/" in shown.out
    value = policyd("log", "show", id_, "--dir", folder, "--json").value
    assert value["record"]["reasons"] == [one["id"] for one in value["explanation"]["reasons"]]
    assert value["record"]["prev"]  # read from the journal, not from the copy


def test_explain_has_the_policies_of_its_time_too(policyd: Command, bookinfo: tuple[Path, Ruling]) -> None:
    folder, ruling = bookinfo
    found = policyd(
        "log", "query", "--decision", "allow", "--json", "-n", "1", "--revision", ruling.revision, "--dir", folder
    )
    said = policyd("policy", "explain", "--decision", json.loads(found.out)["decision_id"], "--dir", folder)
    assert (said.code, said.err) == (Exit.OK, "")
    assert said.out.startswith("allow: permitted by")
    assert "explained under" not in said.out


def test_the_first_digits_of_an_id_do(policyd: Command, bookinfo: tuple[Path, Ruling]) -> None:
    assert policyd("log", "show", "aaaaaa", "--dir", bookinfo[0], "--json").value["record"]["decision_id"] == "aa" * 16


def test_the_hops_of_a_request_are_listed(policyd: Command, bookinfo: tuple[Path, Ruling]) -> None:
    lines = policyd("log", "show", "two-hops", "--dir", bookinfo[0]).out.splitlines()
    assert lines[0] == "2 records have this id; show one by its decision's id:"
    assert [line.split()[0] for line in lines[2:]] == ["aa" * 16, "ab" * 16]
    assert len(policyd("log", "show", "two-hops", "--dir", bookinfo[0], "--json").value) == 2


@pytest.mark.parametrize(
    ("id_", "why"),
    [
        ("aa" * 16, f"no revision `{'5f2e' * 16}` is kept; `policyd policy revisions` lists them"),
        ("ab" * 16, "no revision was in force"),
        ("ac" * 16, ""),
    ],
)
def test_what_cannot_be_explained_is_shown_and_said(
    policyd: Command, bookinfo: tuple[Path, Ruling], id_: str, why: str
) -> None:
    value = policyd("log", "show", id_, "--dir", bookinfo[0], "--json").value
    assert (value["explanation"], value["not_explained"]) == (None, why)
    text = policyd("log", "show", id_, "--dir", bookinfo[0]).out
    assert ("not explained: " in text) == bool(why)


@pytest.mark.parametrize(
    ("id_", "code", "message"),
    [("abc", Exit.USAGE, "is too short for an id"), ("' OR true --", Exit.INVALID, "has no decision or request")],
)
def test_what_is_not_there_is_said(
    policyd: Command, bookinfo: tuple[Path, Ruling], id_: str, code: Exit, message: str
) -> None:
    said = policyd("log", "show", id_, "--dir", bookinfo[0])
    assert (said.code, said.out) == (code, "")
    assert message in said.err
