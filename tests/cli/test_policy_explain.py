"""`policyd policy explain`, `who-can`, `what-can` and `diff`: what an author reads."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from policyd.audit.journal import Journal
from policyd.cli.exits import Exit
from tests.audit.samples import WRITER, an_entry
from tests.cli.conftest import Said
from tests.fakes.clock import FakeClock
from tests.golden import check_text

ACCOUNT = 'Workload::"spiffe://cluster.local/ns/default/sa/bookinfo-'


def copied(root: Path, target: Path) -> Path:
    """The declared files of the sample."""
    skip = shutil.ignore_patterns(".policyd", "bookinfo", "__pycache__")
    shutil.copytree(root / "examples" / "bookinfo", target, ignore=skip)
    return target


@pytest.fixture
def bookinfo(root: Path, tmp_path: Path) -> Path:
    return copied(root, tmp_path / "bookinfo")


@pytest.fixture
def changed(root: Path, tmp_path: Path) -> Path:
    """The sample with another condition, another group and a policy less."""
    folder = copied(root, tmp_path / "changed")
    details, groups = folder / "policies" / "details.cedar", folder / "groups.yaml"
    details.write_text(details.read_text().replace('"/details/*"', '"/details/v2/*"'))
    groups.write_text(groups.read_text().replace("bookinfo-reviews, ", "bookinfo-reviews, bookinfo-details, "))
    (folder / "policies" / "productpage.cedar").unlink()
    return folder


@pytest.mark.parametrize(
    ("name", "request_", "code"),
    [
        ("caller", "reviews GET http://details/details/0", Exit.DENIED),
        ("condition", "ingress POST http://productpage/reviews", Exit.DENIED),
        ("group", "details GET http://ratings/ratings/0", Exit.DENIED),
        ("allowed", "productpage GET http://reviews/reviews/0", Exit.OK),
        ("anonymous", "reviews GET http://ingress/", Exit.OK),
    ],
)
def test_an_explanation_is_read_from_its_first_lines(
    policyd: Callable[..., Said], bookinfo: Path, name: str, request_: str, code: int, pytestconfig: pytest.Config
) -> None:
    said = policyd("policy", "explain", *request_.split(), "--dir", bookinfo)

    assert (said.code, said.err) == (code, "")
    check_text(f"cli/explain_{name}.txt", said.out, update=pytestconfig.getoption("--update-golden"))
    assert policyd("authorize", *request_.split(), "--dir", bookinfo).out == said.out


def test_an_explanation_for_programs(policyd: Callable[..., Said], bookinfo: Path) -> None:
    value = policyd(
        "policy",
        "explain",
        "ingress",
        "POST",
        "http://productpage/x",
        "-H",
        "end-user=jason",
        "--dir",
        bookinfo,
        "--json",
    ).value

    assert (value["decision"], value["principal"]) == ("deny", f'{ACCOUNT}ingress"')
    assert value["near"] == [
        {
            "id": "productpage-from-ingress", "file": "policies/productpage.cedar", "line": 2,
            "missing": [], "scope": [],
            "failed": [
                {
                    "kind": "when", "line": 8, "got": "false",
                    "text": 'action == Action::"GET" || context.request.path == "/login"',
                    "seen": {"action": "POST", "context.request.path": '"/x"'},
                }
            ],
        }
    ]  # fmt: skip
    assert value["remedies"][0] == {
        "words": "`GET` instead of `POST`", "changes": [{"kind": "method", "value": "GET", "name": ""}],
        "by": ["productpage-from-ingress"], "without": [],
    }  # fmt: skip


def test_a_recorded_decision_is_explained(policyd: Callable[..., Said], bookinfo: Path) -> None:
    (bookinfo / ".policyd").mkdir(mode=0o700)
    journal = Journal(bookinfo / ".policyd" / "journal", WRITER, FakeClock())
    context = {"request": {"method": "DELETE", "path": "/reviews/0"}}
    for number in range(3):
        journal.append(
            an_entry(
                decision_id=f"d-{number}", decision="deny", status=403, principal=f'{ACCOUNT}productpage"',
                action='Action::"DELETE"', resource='Service::"reviews.default"', reasons=(), context=context,
                revision="77" * 32, proxy="reviews-v1",
            )
        )  # fmt: skip
    journal.close()

    said = policyd("policy", "explain", "--decision", "d-1", "--dir", bookinfo)

    assert said.code == Exit.DENIED
    assert said.out.startswith(
        "deny: no policy permits `bookinfo-productpage` DELETE /reviews/0 on `reviews`\n"
        "would be allowed with `GET` instead of `DELETE` (by `reviews-from-productpage`)\n"
        "note: decided under revision 777777777777; explained under "
    )
    assert f"\nnote: no revision `{'77' * 32}` is kept; one is kept when the folder is served\n" in said.out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--decision", "d-9"], Exit.ERROR, "has no journal"),
        ([], Exit.USAGE, "explain takes a request or the id of a decision"),
        (
            ["reviews", "GET", "http://details/", "--decision", "d"],
            Exit.USAGE,
            "explain takes a request or the id of a decision",
        ),
        (["--decision", "d", "-H", "a=b"], Exit.USAGE, "explain takes a request or the id of a decision"),
        (["reviews", "GET", "http://details/", "-H", "nonsense"], Exit.USAGE, "`nonsense` is no header"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    policyd: Callable[..., Said], bookinfo: Path, words: list[str], code: Exit, says: str
) -> None:
    said = policyd("policy", "explain", *words, "--dir", bookinfo)
    assert (said.code, said.out, says in said.err) == (code, "", True), said


def test_who_can_and_what_can_are_tables(
    policyd: Callable[..., Said], bookinfo: Path, pytestconfig: pytest.Config
) -> None:
    extra = (
        '@id("canary")\n'
        'permit (principal is Workload, action == Action::"GET", resource == Service::"reviews.default")\n'
        'when { context.request.headers.hasTag("canary") };\n'
    )
    (bookinfo / "policies" / "canary.cedar").write_text(extra)
    who = policyd("policy", "who-can", "GET", "http://reviews/reviews/0", "--dir", bookinfo)
    what = policyd("policy", "what-can", "productpage", "--dir", bookinfo)

    assert (who.code, what.code) == (Exit.OK, Exit.OK)
    check_text("cli/who_can.txt", who.out, update=pytestconfig.getoption("--update-golden"))
    check_text("cli/what_can.txt", what.out, update=pytestconfig.getoption("--update-golden"))
    value = policyd("policy", "who-can", "GET", "http://reviews/reviews/0", "--dir", bookinfo, "--json").value
    by_caller = {one["caller"]: one["verdict"] for one in value["callers"]}
    assert by_caller[f'{ACCOUNT}productpage"'] == "allow"
    assert by_caller[f'{ACCOUNT}ratings"'] == "conditional"
    assert by_caller['Unauthenticated::"anonymous"'] == "deny"
    value = policyd("policy", "what-can", "anonymous", "--dir", bookinfo, "--json").value
    assert value["services"]["ingress.default"]["GET"] == {
        "verdict": "allow", "by": ["world-to-ingress"], "conditions": []
    }  # fmt: skip


def test_a_difference_is_a_table_and_an_exit_code(
    policyd: Callable[..., Said], bookinfo: Path, changed: Path, pytestconfig: pytest.Config
) -> None:
    said = policyd("policy", "diff", bookinfo, changed)

    assert (said.code, said.err) == (Exit.DENIED, "")
    check_text("cli/policy_diff.txt", said.out, update=pytestconfig.getoption("--update-golden"))
    value = policyd("policy", "diff", bookinfo, changed, "--json").value
    assert (value["different"], value["compared"]["combinations"]) == (True, 200)
    assert {one["change"] for one in value["combinations"]} == {"newly allowed", "newly denied", "condition changed"}


def test_the_same_folder_is_the_same(policyd: Callable[..., Said], bookinfo: Path) -> None:
    said = policyd("policy", "diff", bookinfo, bookinfo)
    assert said.out == (
        "compared 6 callers (anonymous is one), 8 methods, 5 services: 200 combinations\n"
        "  200 meet the same policies over the same facts, so their answers are the same\n"
        "the same\n"
    )
    assert said.code == Exit.OK


def test_policies_that_differ_in_words_only_are_a_difference_if_asked_for(
    policyd: Callable[..., Said], bookinfo: Path, root: Path, tmp_path: Path
) -> None:
    other = copied(root, tmp_path / "other")
    reviews = other / "policies" / "reviews.cedar"
    reviews.write_text(reviews.read_text().replace('like "/reviews/*"', 'like "/reviews/*" && 1 == 1'))

    said = policyd("policy", "diff", bookinfo, other)

    assert said.code == Exit.OK
    assert "combinations, though policies differ: `reviews-from-productpage`" in said.out
    assert policyd("policy", "diff", bookinfo, other, "--strict").code == Exit.DENIED


def test_a_folder_with_problems_is_named(policyd: Callable[..., Said], bookinfo: Path, changed: Path) -> None:
    (changed / "policies" / "bad.cedar").write_text("permit (")
    said = policyd("policy", "diff", bookinfo, changed)
    assert (said.code, "policies/bad.cedar:1" in said.err) == (Exit.INVALID, True)
