"""`policyd policy suggest`: a draft that is checked by replay, and never put in force."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from policyd.authz.ruling import Ruling
from policyd.cli.exits import Exit
from policyd.policy.fmt import formatted
from tests.cli import recorded
from tests.cli.conftest import Said
from tests.policy import traffic

Command = Callable[..., Said]


@pytest.fixture(scope="module")
def bookinfo(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ruling]:
    """Bookinfo, asked 600 times."""
    folder = tmp_path_factory.mktemp("suggested") / "bookinfo"
    return folder, recorded.served(root, folder, 600)


def test_the_draft_is_a_policy_file_that_allows_all_that_was_observed(
    policyd: Command, bookinfo: tuple[Path, Ruling]
) -> None:
    folder, _ = bookinfo
    said = policyd("policy", "suggest", "--dir", folder)
    assert said.code == Exit.OK
    assert formatted(said.out, "draft.cedar") == said.out
    assert '@id("reviews-from-bookinfo-productpage")' in said.out
    assert "checked by replay: the draft allows all " in said.err
    assert "none is in force" in said.err


def test_what_is_granted_and_nobody_used_is_listed(policyd: Command, bookinfo: tuple[Path, Ruling]) -> None:
    folder, _ = bookinfo
    value = policyd("policy", "suggest", "--dir", folder, "--json").value
    allowed = policyd("log", "query", "--decision", "allow", "--by", "policy", "--json", "--dir", folder).value
    used = {one["policy"] for one in allowed}
    listed = {one.split("`")[1] for one in value["unused"] if one.startswith("policy ")}
    assert listed == {"details-from-productpage"} - used
    assert "bookinfo-productpage on details: GET" in value["unused"]
    assert value["observed"] == sum(one["count"] for one in value["policies"]) == sum(one["count"] for one in allowed)
    assert value["check"]["changed"] == value["check"]["undecidable"] == []


def test_a_new_folder_is_written_and_can_be_tried(
    policyd: Command, bookinfo: tuple[Path, Ruling], tmp_path: Path
) -> None:
    folder, _ = bookinfo
    before = sorted((folder / "policies").iterdir())
    out = tmp_path / "draft"
    said = policyd("policy", "suggest", "--dir", folder, "--out", out)
    assert (said.code, said.out) == (Exit.OK, "")
    assert f"policies in `{out}`, from" in said.err
    assert sorted((folder / "policies").iterdir()) == before
    replayed = policyd("policy", "replay", "--candidate", out, "--dir", folder, "--json").value
    assert replayed["changed"] == replayed["undecidable"] == []
    again = policyd("policy", "suggest", "--dir", folder, "--out", out)
    assert (again.code, "is there already" in again.err) == (Exit.USAGE, True)


def test_todays_forbids_stay_and_what_they_forbid_is_told(policyd: Command, root: Path, tmp_path: Path) -> None:
    """What was allowed before a forbid came is not allowed by the draft, and that is said."""
    folder = recorded.bookinfo(root, tmp_path / "bookinfo")
    traffic.write(folder, traffic.entries(recorded.in_force(folder), 200))
    (folder / "policies" / "no.cedar").write_text('@id("no")\nforbid (principal, action == Action::"GET", resource);\n')
    said = policyd("policy", "suggest", "--dir", folder, "--out", tmp_path / "draft")
    assert said.code == Exit.DENIED
    assert "forbid (" in (tmp_path / "draft" / "policies" / "forbids.cedar").read_text()
    assert " no " in said.err


def test_of_no_traffic_nothing_is_suggested(policyd: Command, bookinfo: tuple[Path, Ruling]) -> None:
    said = policyd("policy", "suggest", "--dir", bookinfo[0], "--since", "2026-11-27T00:00:00Z")
    assert (said.code, said.out) == (
        Exit.OK,
        "// nothing was allowed in this time, so there is nothing to suggest\n",
    )
