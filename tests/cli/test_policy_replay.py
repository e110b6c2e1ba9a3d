"""`policyd policy replay`: a candidate tried on what was recorded, and an exit code for pipelines."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from policyd.authz.ruling import Ruling
from policyd.cli.exits import Exit
from policyd.cli.policy_replay import candidate_of
from policyd.offline.replaying import BATCH, deciders, replay
from policyd.policy.replay import Projector
from policyd.state_paths import state_paths
from tests.cli import recorded
from tests.cli.conftest import Said
from tests.policy import traffic

Command = Callable[..., Said]


@pytest.fixture(scope="module")
def bookinfo(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ruling]:
    """Bookinfo, asked 300 times."""
    folder = tmp_path_factory.mktemp("replayed") / "bookinfo"
    return folder, recorded.served(root, folder, 300)


@pytest.fixture
def candidate(bookinfo: tuple[Path, Ruling], tmp_path: Path) -> Path:
    """The folder again, to be changed."""
    made = tmp_path / "candidate"
    shutil.copytree(bookinfo[0], made, ignore=shutil.ignore_patterns(".policyd"))
    return made


def test_the_folder_itself_changes_nothing(policyd: Command, bookinfo: tuple[Path, Ruling]) -> None:
    folder, ruling = bookinfo
    said = policyd("policy", "replay", "--candidate", folder, "--dir", folder, "--json")
    value = said.value
    assert (said.code, said.err) == (Exit.OK, "")
    assert (value["candidate"], value["changed"], value["undecidable"]) == (ruling.revision, [], [])
    assert value["records"] == value["agreeing"] == 300
    assert value["distinct"] < value["records"]
    text = policyd("policy", "replay", "--candidate", folder, "--dir", folder)
    assert text.out.endswith("no decision changes\n")


def test_what_changes_is_told_by_caller_method_and_service(
    policyd: Command, bookinfo: tuple[Path, Ruling], candidate: Path
) -> None:
    folder, _ = bookinfo
    (candidate / "policies" / "no-page.cedar").write_text(
        '@id("no-page")\nforbid (principal, action, resource == Service::"productpage.default");\n'
    )
    said = policyd("policy", "replay", "--candidate", candidate, "--dir", folder, "--json")
    changed = said.value["changed"]
    assert said.code == Exit.DENIED
    assert {(one["resource"], one["was"], one["now"], *one["by"]) for one in changed} == {
        ('Service::"productpage.default"', "allow", "deny", "no-page")
    }
    for one in changed:
        assert one["first"] <= one["last"]
        shown = policyd("log", "show", one["example"], "--dir", folder, "--json").value["record"]
        assert [shown[name] for name in ("principal", "action", "resource")] == [
            one[name] for name in ("principal", "action", "resource")
        ]
        assert shown["decision"] == "allow"
    table = policyd("policy", "replay", "--candidate", candidate, "--dir", folder).out
    assert f"{sum(one['count'] for one in changed)} change:" in table
    assert "bookinfo-ingress  GET" in table


def test_what_the_records_lack_is_told_and_nothing_is_guessed(
    policyd: Command, bookinfo: tuple[Path, Ruling], candidate: Path
) -> None:
    folder, _ = bookinfo
    (candidate / "policies" / "office.cedar").write_text(
        '@id("office")\nforbid (principal, action == Action::"PUT", resource) when '
        '{ context.client_ip.isInRange(ip("10.0.0.0/8")) };\n'
    )
    arguments = ("policy", "replay", "--candidate", candidate, "--dir", folder)
    said = policyd(*arguments, "--json")
    assert (said.code, said.value["changed"]) == (Exit.OK, [])
    assert {(one["action"], *one["lacking"]) for one in said.value["undecidable"]} == {
        ('Action::"PUT"', "context.client_ip")
    }
    assert policyd(*arguments, "--strict").code == Exit.DENIED
    assert "cannot be decided" in policyd(*arguments).out


def test_policies_alone_are_tried_in_the_mesh_as_it_is(
    policyd: Command, bookinfo: tuple[Path, Ruling], tmp_path: Path
) -> None:
    folder, _ = bookinfo
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "all.cedar").write_text('@id("all")\npermit (principal, action, resource);\n')
    said = policyd("policy", "replay", "--candidate", tmp_path, "--dir", folder, "--json")
    assert said.code == Exit.DENIED
    assert {(one["was"], one["now"]) for one in said.value["changed"]} == {("deny", "allow")}
    assert said.value["agreeing"] + sum(one["count"] for one in said.value["changed"]) == 300


def test_a_time_range_narrows_it(policyd: Command, bookinfo: tuple[Path, Ruling]) -> None:
    folder, _ = bookinfo
    arguments = ("policy", "replay", "--candidate", folder, "--dir", folder, "--json")
    assert (
        policyd(*arguments, "--since", "2026-11-20T12:04:00Z", "--until", "2026-11-20T12:04:30Z").value["records"] == 30
    )
    assert policyd(*arguments, "--since", "2026-11-21T00:00:00Z").value["records"] == 0


def test_records_of_an_older_revision_are_read_as_that_revision_read_them(
    policyd: Command, root: Path, tmp_path: Path
) -> None:
    """The revision is kept, so a header that it read and the record lacks was not sent."""
    folder = recorded.bookinfo(root, tmp_path / "bookinfo")
    policies = folder / "policies" / "ratings.cedar"
    before = policies.read_text()
    policies.write_text(
        '@id("jason")\npermit (principal, action == Action::"GET", resource) when '
        '{ context.request.headers.hasTag("end-user") };\n'
    )
    ruling = recorded.in_force(folder)
    traffic.write(folder, traffic.entries(ruling, 100))
    shutil.copytree(folder, tmp_path / "same", ignore=shutil.ignore_patterns(".policyd"))
    policies.write_text(before)

    arguments = ("policy", "replay", "--candidate", tmp_path / "same", "--dir", folder, "--json")
    assert (policyd(*arguments).value["undecidable"], policyd(*arguments).code) == ([], Exit.OK)
    shutil.rmtree(state_paths(folder).revisions)
    assert policyd(*arguments).value["undecidable"] != []


def test_many_questions_go_to_all_cores(root: Path, tmp_path: Path) -> None:
    folder = recorded.bookinfo(root, tmp_path / "bookinfo")
    loaded, ruling = candidate_of(folder, folder)
    entries = list(traffic.records(ruling, 300))
    with deciders(loaded, ruling, few=-1) as ask:
        found = replay(entries * 2, Projector(ruling, lambda *_: ruling), ask)
    assert (found.records, found.agreeing, found.undecided) == (600, 600, 0)
    assert found.asked < 300 < BATCH


@pytest.mark.parametrize(
    ("files", "code", "message"),
    [
        ({"policies/x.cedar": "permit ("}, Exit.INVALID, "policies/x.cedar:1: "),
        (
            {"policies/x.cedar": '@id("x") permit (principal, action, resource) when { context.nothing };'},
            Exit.INVALID,
            "x.cedar:1",
        ),
        ({"workloads.yaml": "services: 7"}, Exit.INVALID, "workloads.yaml"),
        (None, Exit.USAGE, "is no folder"),
    ],
)
def test_a_candidate_that_is_not_valid_is_refused(
    policyd: Command,
    bookinfo: tuple[Path, Ruling],
    tmp_path: Path,
    files: dict[str, str] | None,
    code: int,
    message: str,
) -> None:
    made = tmp_path / "made"
    for name, text in (files or {}).items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    said = policyd("policy", "replay", "--candidate", made, "--dir", bookinfo[0])
    assert (said.code, said.out) == (code, "")
    assert message in said.err


def test_without_a_journal_there_is_nothing_to_decide(policyd: Command, folder: Path) -> None:
    said = policyd("policy", "replay", "--candidate", folder, "--dir", folder)
    assert said.code == Exit.ERROR
    assert "has no journal" in said.err
