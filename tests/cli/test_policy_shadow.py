"""`policyd policy shadow-report`, and what the author's other commands say of policies that are only tried."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from policyd.audit.journal import Journal
from policyd.audit.record import Fault, Shadow
from policyd.cli.exits import Exit
from tests.audit.samples import NOON, WRITER, an_entry
from tests.cli.conftest import Said
from tests.fakes.clock import FakeClock
from tests.golden import check_text

Command = Callable[..., Said]

ACCOUNTS = "spiffe://cluster.local/ns/default/sa/bookinfo-"
TRIED = """\
@id("no-jason")
@shadow
forbid (principal, action in Action::"http", resource == Service::"reviews.default")
when { context.request.headers.hasTag("end-user") && context.request.headers.getTag("end-user") == "jason" };

@id("details-reads-ratings")
@shadow("ratings-from-readers")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/bookinfo-details", action == Action::"GET",
    resource == Service::"ratings.default");
"""


@pytest.fixture
def bookinfo(root: Path, tmp_path: Path) -> Path:
    """The declared files of the sample, and two policies to try."""
    target = tmp_path / "bookinfo"
    shutil.copytree(root / "examples" / "bookinfo", target, ignore=shutil.ignore_patterns(".policyd", "bookinfo"))
    (target / "policies" / "tried.cedar").write_text(TRIED)
    return target


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    opened = Journal(folder / ".policyd" / "journal", WRITER, FakeClock(NOON))
    yield opened
    opened.close()


def trial(journal: Journal, *shadows: Shadow | None, **changes: Any) -> None:
    """A decision a second with what the shadow said; the last one at noon."""
    for number, shadow in enumerate(shadows):
        time = NOON - timedelta(seconds=len(shadows) - 1 - number)
        journal.append(an_entry(**{"time": time, "decision_id": f"{number:032}", "shadow": shadow, **changes}))


AGREES = Shadow(decision="allow", reasons=("reviews-from-productpage",), revision="aa" * 32)
DENIES = Shadow(decision="deny", reasons=("no-jason",), revision="aa" * 32)
LACKS = Shadow(decision="deny", revision="bb" * 32)
ALLOWS = Shadow(decision="allow", reasons=("new-a", "new-b", "new-c", "new-d", "new-e"), revision="bb" * 32)
LATE = Shadow(decision="error", errors=(Fault("shadow_skipped", "no time"),), revision="bb" * 32)
FAILS = Shadow(decision="error", errors=(Fault("decision", "no\x1b[31m decision"),), revision="bb" * 32)
DENIED = {"decision": "deny", "reasons": ("freeze",), "status": 403, "resource": 'Service::"ratings.shop"'}


def test_a_trial_is_a_page(policyd: Command, folder: Path, journal: Journal, pytestconfig: pytest.Config) -> None:
    trial(journal, *[AGREES] * 5, DENIES, DENIES, None)
    trial(journal, ALLOWS, ALLOWS, **DENIED)
    trial(journal, LACKS, LATE, FAILS, AGREES)
    said = policyd("policy", "shadow-report", "--dir", folder)

    assert (said.code, said.err) == (Exit.DENIED, "")
    check_text("cli/shadow_report.txt", said.out, update=pytestconfig.getoption("--update-golden"))


def test_a_trial_for_programs(policyd: Command, folder: Path, journal: Journal) -> None:
    trial(journal, AGREES, DENIES, DENIES, None, LATE)
    said = policyd("policy", "shadow-report", "--dir", folder, "--json")

    assert said.code == Exit.DENIED
    assert said.value == {
        "since": None, "compared": 3, "agree": 1, "would_deny": 2, "would_allow": 0, "skipped": 1, "error": 0,
        "not_asked": 1,
        "revisions": [
            {"revision": "aa" * 32, "count": 3, "first": "2026-11-23T11:59:56.000000Z",
             "last": "2026-11-23T11:59:58.000000Z"},
            {"revision": "bb" * 32, "count": 1, "first": "2026-11-23T12:00:00.000000Z",
             "last": "2026-11-23T12:00:00.000000Z"},
        ],
        "changes": [
            {
                "change": "would_deny",
                "principal": 'Workload::"spiffe://cluster.local/ns/default/sa/productpage"',
                "action": 'Action::"GET"', "resource": 'Service::"reviews.default"', "count": 2,
                "first": "2026-11-23T11:59:57.000000Z", "last": "2026-11-23T11:59:58.000000Z",
                "shadow": ["no-jason"], "active": ["reviews-from-productpage"],
                "example": {"decision_id": f"{2:032}", "method": "GET", "path": "/reviews/0"},
            }
        ],
        "failing": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("shadows", "options", "code", "starts"),
    [
        ([AGREES, AGREES], [], Exit.OK, "0 of 2 decisions would change, 2026-11-23 11:59:59Z to 2026-11-23 12:00:00Z"),
        ([AGREES, DENIES], [], Exit.DENIED, "1 of 2 decisions would change"),
        ([AGREES, LATE], [], Exit.OK, "0 of 1 decisions would change"),
        ([AGREES, FAILS], [], Exit.DENIED, "0 of 1 decisions would change"),
        ([], [], Exit.ERROR, "no decision has both answers\n"),
        ([None, None], [], Exit.ERROR, "no decision has both answers, of 2 the shadow was not asked"),
        ([LATE], [], Exit.ERROR, "no decision has both answers"),
        ([DENIES, AGREES], ["--since", "2026-11-23T12:00:00Z"], Exit.OK, "0 of 1 decisions would change"),
        ([DENIES, AGREES], ["--since", "2026-11-23T12:00:01Z"], Exit.ERROR, "no decision has both answers"),
        ([LACKS, AGREES], ["--revision", "latest"], Exit.OK, "0 of 1 decisions would change"),
        ([LACKS, AGREES], ["--revision", "bbbb"], Exit.DENIED, "1 of 1 decisions would change"),
        ([LACKS, AGREES], ["--revision", "cc"], Exit.ERROR, "no decision has both answers"),
    ],
)
def test_a_pipeline_goes_by_the_exit_code(
    policyd: Command, folder: Path, journal: Journal, shadows: list[Shadow | None], options: list[str], code: int,
    starts: str,
) -> None:  # fmt: skip
    trial(journal, *shadows)
    said = policyd("policy", "shadow-report", "--dir", folder, *options)

    assert (said.code, said.err, said.out.startswith(starts)) == (code, "", True), said
    assert policyd("policy", "shadow-report", "--dir", folder, "--json", *options).code == code


def test_since_is_a_length_of_time_too(policyd: Command, folder: Path, journal: Journal) -> None:
    journal.append(an_entry(time=datetime.now(UTC), shadow=AGREES))
    journal.append(an_entry(time=datetime.now(UTC) - timedelta(hours=2), shadow=DENIES))

    assert policyd("policy", "shadow-report", "--dir", folder, "--since", "1h").code == Exit.OK
    assert policyd("policy", "shadow-report", "--dir", folder, "--since", "3h").code == Exit.DENIED
    assert policyd("policy", "shadow-report", "--dir", folder, "--since", "soon").code == Exit.USAGE


def test_without_a_journal_it_is_an_error(policyd: Command, folder: Path) -> None:
    assert policyd("policy", "shadow-report", "--dir", folder).code == Exit.ERROR


def test_a_line_that_is_no_record_is_said_and_passed_over(policyd: Command, folder: Path, journal: Journal) -> None:
    trial(journal, AGREES)
    [segment] = journal.directory.glob("*.jsonl")
    segment.write_bytes(b"nonsense\n" + segment.read_bytes())
    said = policyd("policy", "shadow-report", "--dir", folder)

    assert (said.code, "no record" in said.err) == (Exit.OK, True)


# ---- the other commands


def test_tried_policies_are_checked_and_said_not_to_be_active(policyd: Command, bookinfo: Path) -> None:
    assert policyd("check", bookinfo).out.endswith("7 instances, 5 policies, 6 shadow policies\n")
    assert policyd("check", bookinfo, "--json").value["shadow_policies"] == 6
    said = policyd("policy", "check", bookinfo, "--notes")

    assert "note[PD0402]: `no-jason` is tried beside the active policies, and enforces nothing\n" in said.out
    assert said.out.endswith("5 policies, 6 in the shadow set: 4 notes\n")
    assert policyd("policy", "check", bookinfo, "--json").value["shadow_policies"] == 6


def test_a_tried_policy_that_never_matches_is_found_and_shadows_no_active_one(policyd: Command, bookinfo: Path) -> None:
    blanket = 'forbid (principal, action in Action::"http", resource);'
    permit = '@id("typo") @shadow permit (principal, action == Action::"GET", resource == Service::"detials.default");'
    (bookinfo / "policies" / "tried.cedar").write_text(f'@id("none") @shadow {blanket}\n{permit}\n')
    findings = policyd("policy", "check", bookinfo, "--json").value["findings"]

    assert {one["policy"] for one in findings if one["severity"] == "warning"} == {"typo"}


def test_a_mark_that_means_nothing_is_an_error_with_its_line(policyd: Command, bookinfo: Path) -> None:
    (bookinfo / "policies" / "tried.cedar").write_text(TRIED.replace("@shadow\n", "@shadwo\n"))
    said = policyd("policy", "check", bookinfo)

    assert said.code == Exit.INVALID
    assert "error[PD0008]: `no-jason` has an annotation `@shadwo`\n --> policies/tried.cedar:1\n" in said.out


@pytest.mark.parametrize("command", [("authorize",), ("policy", "explain")])
def test_one_request_is_answered_by_both_and_the_active_answer_is_the_exit_code(
    policyd: Command, bookinfo: Path, command: tuple[str, ...]
) -> None:
    asked = ("productpage", "GET", "http://reviews/reviews/0", "-H", "end-user=jason", "--dir", bookinfo)
    said = policyd(*command, *asked)

    assert said.code == Exit.OK
    assert said.out.startswith("allow: permitted by `reviews-from-productpage` (policies/reviews.cedar:2)\n")
    assert "\nthe shadow policies:\n  deny: forbidden by `no-jason` (policies/tried.cedar:1)\n" in said.out
    value = policyd(*command, *asked, "--json").value
    assert (value["decision"], value["shadow"]["decision"]) == ("allow", "deny")


def test_where_both_say_the_same_the_shadow_is_a_line(policyd: Command, bookinfo: Path) -> None:
    said = policyd("authorize", "productpage", "GET", "http://reviews/reviews/0", "--dir", bookinfo)

    assert said.out.endswith(
        "\nthe shadow policies: allow: permitted by `reviews-from-productpage` (policies/reviews.cedar:2)\n"
    )


def test_a_recorded_decision_is_explained_under_both(policyd: Command, bookinfo: Path) -> None:
    (bookinfo / ".policyd").mkdir(mode=0o700)
    journal = Journal(bookinfo / ".policyd" / "journal", WRITER, FakeClock())
    asked = {"method": "GET", "path": "/reviews/0", "headers": {"end-user": "jason"}}
    journal.append(
        an_entry(
            decision_id="d-1", principal=f'Workload::"{ACCOUNTS}productpage"', context={"request": asked},
            proxy="reviews-v1",
            shadow=DENIES,
        )
    )  # fmt: skip
    journal.close()
    said = policyd("policy", "explain", "--decision", "d-1", "--dir", bookinfo)

    assert said.code == Exit.OK
    active, _, shadow = said.out.partition("\nthe shadow policies:\n")
    assert "note: decided under revision 5f2e; explained under" in active
    assert shadow.startswith("  deny: forbidden by `no-jason` (policies/tried.cedar:1)\n")
    assert "note: decided under revision aaaaaaaaaaaa; explained under" in shadow


def test_cases_that_would_fail_are_shown_and_fail_nothing(policyd: Command, bookinfo: Path) -> None:
    said = policyd("policy", "test", bookinfo)

    assert said.code == Exit.OK
    assert said.out.startswith("22 cases, all passed\nunder the shadow policies ")
    assert "expected allow by `ratings-from-readers`, got deny\n" in said.out
    value = policyd("policy", "test", bookinfo, "--json").value
    assert [len(value["cases"]), len(value["shadow_cases"])] == [22, 22]
    assert all(one["passed"] for one in value["cases"])


def test_a_folder_is_tried_by_every_command_that_takes_one(policyd: Command, bookinfo: Path, tmp_path: Path) -> None:
    (bookinfo / "policies" / "tried.cedar").unlink()
    shadow = tmp_path / "next"
    shutil.copytree(bookinfo / "policies", shadow)
    (shadow / "reviews.cedar").unlink()
    asked = ("productpage", "GET", "http://reviews/reviews/0", "--dir", bookinfo)

    for command in (("authorize", *asked), ("policy", "explain", *asked)):
        said = policyd(*command, "--shadow", shadow)
        assert (said.code, "the shadow policies:\n  deny: no policy permits" in said.out) == (Exit.OK, True)
    assert policyd("check", bookinfo, "--shadow", shadow).out.endswith("5 policies, 4 shadow policies\n")
    assert policyd("policy", "check", bookinfo, "--shadow", shadow).out.startswith(
        "5 policies, 4 in the shadow set: ok"
    )
    assert "under the shadow policies" in policyd("policy", "test", bookinfo, "--shadow", shadow).out


def test_a_shadow_folder_that_is_wrong_is_named(policyd: Command, bookinfo: Path, tmp_path: Path) -> None:
    (bookinfo / "policies" / "tried.cedar").unlink()
    (bookinfo / "policyd.yaml").write_text("shadow: {policies: next}\n")
    said = policyd("check", bookinfo)
    assert (said.code, said.err.splitlines()[0]) == (
        Exit.INVALID,
        "next: the shadow folder is not there; name a folder of `.cedar` files, or none",
    )

    (bookinfo / "next").mkdir()
    (bookinfo / "next" / "a.cedar").write_text('@id("a")\npermit (principal, action, resource)\nwhen { 1 + };\n')
    assert policyd("check", bookinfo).err.startswith("next/a.cedar:3: unexpected token `}`")
    assert policyd("policy", "check", bookinfo).out.startswith("error[PD0002]: unexpected token `}`")


def test_the_shadow_can_be_compared_before_any_traffic(policyd: Command, bookinfo: Path) -> None:
    said = policyd("policy", "diff", bookinfo, "shadow")

    assert (said.code, said.err) == (Exit.DENIED, "")
    assert said.out.startswith("NEW is the shadow of `bookinfo`, revision ")
    for line in (
        "added `no-jason` (policies/tried.cedar:1)",
        "removed `ratings-from-readers` (policies/ratings.cedar:2)",
    ):
        assert line in said.out
    assert "newly denied:" in said.out

    (bookinfo / "policies" / "tried.cedar").unlink()
    said = policyd("policy", "diff", bookinfo, "shadow")
    assert (said.code, "has no shadow policies" in said.err) == (Exit.INVALID, True)
