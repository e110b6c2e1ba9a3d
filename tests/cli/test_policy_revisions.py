"""`policyd policy revisions`, and `diff` between revisions: what an author sees of what was in force."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policyd.cli.exits import Exit
from policyd.offline.loaded import load_folder
from policyd.reload.live import Live
from policyd.sources.revision_store import RevisionStore
from policyd.sources.revisions import history
from policyd.state_paths import state_paths
from tests.cli.conftest import Said
from tests.fakes.admin import FakeAdmin, pb, serving

FIRST, SECOND, THIRD = (datetime(2026, 11, 28, hour, tzinfo=UTC) for hour in (9, 10, 11))


@dataclass
class Past:
    """A folder that was served: what was in force, by when."""

    directory: Path
    revisions: list[str]

    @property
    def kept(self) -> Path:
        return state_paths(self.directory).revisions


def keep(directory: Path, at: datetime) -> Live:
    live = load_folder(directory).live
    store = RevisionStore(state_paths(directory).revisions, lambda: at, retain=1e9, version="0.1.0")
    store.keep(live.ruling.revision, len(live.ruling.policy_set.policies), live.texts, live.ruling.schema.text)
    return live


@pytest.fixture
def past(root: Path, tmp_path: Path) -> Past:
    """The sample, of which ratings could first be read by nobody, then as it is, then with another comment."""
    folder = tmp_path / "bookinfo"
    skip = shutil.ignore_patterns(".policyd", "bookinfo", "__pycache__")
    shutil.copytree(root / "examples" / "bookinfo", folder, ignore=skip)
    (folder / ".policyd").mkdir(mode=0o700)
    shutil.rmtree(folder / "cases")
    ratings = folder / "policies" / "ratings.cedar"
    text = ratings.read_text()
    ratings.unlink()
    first = keep(folder, FIRST)
    ratings.write_text(text)
    second = keep(folder, SECOND)
    (folder / "groups.yaml").write_text((folder / "groups.yaml").read_text() + "# reviewed\n")
    keep(folder, THIRD)
    return Past(folder, [first.ruling.revision, second.ruling.revision])


@pytest.fixture
def served(past: Past, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeAdmin]:
    """A server that has the last one in force."""
    socket = tmp_path_factory.mktemp("s") / "a.sock"
    (past.directory / ".policyd" / "server.json").write_text(json.dumps({"pid": 1, "admin_socket": str(socket)}))
    with serving(FakeAdmin(Status=pb.StatusReply(revision=past.revisions[1])), socket) as admin:
        yield admin


def test_what_was_in_force_is_listed_with_what_changed(
    policyd: Callable[..., Said], past: Past, served: FakeAdmin
) -> None:
    first, second = (one[:12] for one in past.revisions)
    rows = [line.split(maxsplit=5) for line in policyd("policy", "revisions", "--dir", past.directory).out.splitlines()]

    assert rows[1:] == [
        [second, "(live)", "2026-11-28", "11:00:00Z", "5", "groups.yaml changed; decides alike"],
        [second, "2026-11-28", "10:00:00Z", "5", "policies/ratings.cedar", "added"],
        [first, "2026-11-28", "09:00:00Z", "4", "-"],
    ]
    value = policyd("policy", "revisions", "--dir", past.directory, "--json").value
    assert [(one["revision"], one["in_force"]) for one in value["revisions"]] == [
        (past.revisions[1], True),
        (past.revisions[1], False),
        (past.revisions[0], False),
    ]
    assert value["revisions"][1]["changed"] == [{"file": "policies/ratings.cedar", "change": "added"}]
    assert policyd("policy", "revisions", "--dir", past.directory, "-n", 1).out.endswith(
        "and 2 older; `-n` shows more\n"
    )


def test_nothing_was_in_force_where_nothing_was_served(policyd: Callable[..., Said], folder: Path) -> None:
    assert policyd("policy", "revisions", "--dir", folder) == Said(
        Exit.OK, "none is kept: one is when the folder is served\n", ""
    )


def test_a_revision_is_compared_with_another_and_with_a_folder(policyd: Callable[..., Said], past: Past) -> None:
    first, second = past.revisions
    said = policyd("policy", "diff", f"revision:{first[:8]}", second[:8], "--dir", past.directory)

    assert (said.code, said.err) == (Exit.DENIED, "")
    assert said.out.startswith(
        f"OLD is revision {first[:12]}, in force from 2026-11-28 09:00:00Z\n"
        f"NEW is revision {second[:12]}, in force from 2026-11-28 11:00:00Z\n"
        "compared 6 callers"
    )
    assert "added `" in said.out
    assert "newly allowed:" in said.out

    value = policyd("policy", "diff", first[:8], past.directory, "--json").value  # of the folder's own revisions
    assert (value["different"], value["old"], value["new"]) == (True, first, second)
    assert policyd("policy", "diff", second, past.directory).code == Exit.OK


def test_what_is_in_force_is_compared_with_what_would_be(
    policyd: Callable[..., Said], past: Past, served: FakeAdmin
) -> None:
    assert policyd("policy", "diff", "live", past.directory).code == Exit.OK
    (past.directory / "policies" / "details.cedar").unlink()
    said = policyd("policy", "diff", "live", past.directory)
    assert (said.code, "newly denied:" in said.out) == (Exit.DENIED, True)


def test_without_a_server_nothing_is_live(policyd: Callable[..., Said], past: Past) -> None:
    said = policyd("policy", "diff", "live", past.directory)
    assert (said.code, said.out) == (Exit.ERROR, "")
    assert said.err.startswith("error: ")
    assert str(past.directory) in said.err


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        (
            "nowhere",
            Exit.INVALID,
            "`nowhere` is no folder and no revision\n  name a folder, `revision:<hash>`, `live` or `shadow`;",
        ),
        ("revision:", Exit.USAGE, "`` is no revision\n  write 4 to 64 of its digits"),
        ("revision:xyz", Exit.USAGE, "`xyz` is no revision\n  write 4 to 64 of its digits"),
        ("0000000000", Exit.INVALID, "no revision `0000000000` is kept\n  `policyd policy revisions` lists them\n"),
    ],
)
def test_what_is_neither_is_refused(
    policyd: Callable[..., Said], past: Past, name: str, code: Exit, message: str
) -> None:
    said = policyd("policy", "diff", name, past.directory)
    assert (said.code, said.out) == (code, "")
    assert said.err.startswith(f"error: {message}")


def test_what_is_damaged_is_named_and_the_rest_is_listed(policyd: Callable[..., Said], past: Past) -> None:
    entry = past.kept / history(past.kept).kept[0].name
    entry.write_bytes(b"{")

    said = policyd("policy", "diff", past.revisions[0][:8], past.directory)
    assert (said.code, said.out) == (Exit.ERROR, "")
    assert said.err.startswith(f"error: `{entry}` is damaged: ")

    listed = policyd("policy", "revisions", "--dir", past.directory)
    assert (listed.code, len(listed.out.splitlines()), listed.err) == (Exit.OK, 3, f"damaged: `{entry}`\n")

    for pack in past.kept.glob("*.pack"):
        pack.unlink()
    assert "-" in policyd("policy", "revisions", "--dir", past.directory).out
    said = policyd("policy", "diff", past.revisions[1][:8], past.directory)
    assert (said.code, "is lost" in said.err) == (Exit.ERROR, True)


def test_what_this_version_refuses_is_said_to_be_of_the_revision(policyd: Callable[..., Said], past: Past) -> None:
    directory = past.directory
    store = RevisionStore(state_paths(directory).revisions, lambda: THIRD, retain=1e9, version="0.0.9")
    schema = load_folder(directory).live.ruling.schema.text
    store.keep("e" * 64, 1, {"policies/old.cedar": "permit (principal, action, resource);"}, schema)

    said = policyd("policy", "diff", "eeee", directory)

    assert said.code == Exit.INVALID
    assert said.err.startswith("revision:eeeeeeeeeeee/policies/old.cedar:1: ")


def test_who_could_and_what_one_could_is_told_as_of_a_revision(policyd: Callable[..., Said], past: Past) -> None:
    """An auditor's question: not who may now, but who might then."""
    first, second = past.revisions
    asked = ("policy", "who-can", "GET", "http://ratings/ratings/0", "--dir", past.directory, "--json")

    def may(*words: object) -> list[str]:
        callers = policyd(*asked, *words).value["callers"]
        return [one["caller"].rpartition("/")[2].rstrip('"') for one in callers if one["verdict"] == "allow"]

    assert may("--revision", first) == []
    assert may("--revision", second[:8]) == may() == ["bookinfo-productpage", "bookinfo-reviews"]
    what = ("policy", "what-can", "reviews", "--dir", past.directory, "--json", "--revision")
    assert policyd(*what, first).value["services"]["ratings.default"]["GET"]["verdict"] == "deny"
    assert policyd(*what, second).value["services"]["ratings.default"]["GET"]["verdict"] != "deny"


def test_a_revision_that_is_not_kept_is_no_question(policyd: Callable[..., Said], past: Past) -> None:
    asked = policyd("policy", "who-can", "GET", "http://ratings/", "--dir", past.directory, "--revision", "abcdef12")

    assert asked.code == Exit.INVALID
    assert "no revision `abcdef12` is kept" in asked.err
