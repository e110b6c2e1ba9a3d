"""The author's commands: check, fmt and test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from policyd.cli.exits import Exit
from tests.cli.conftest import Said
from tests.golden import check_json, check_text

ODD = """// what an author may get wrong
@id("typo")
permit (principal is Workload, action in Action::"read", resource == Service::"detials.default");

@id("both-paths")
permit (principal in Group::"ratings-readers", action == Action::"GET", resource == Service::"details.default")
when { context.request.path == "/a" && context.request.path == "/b" };

@id("anyone")
permit (principal, action, resource);
"""


@pytest.fixture
def bookinfo(root: Path, tmp_path: Path) -> Path:
    """The declared files of the sample."""
    target = tmp_path / "bookinfo"
    shutil.copytree(root / "examples" / "bookinfo", target, ignore=shutil.ignore_patterns(".policyd", "bookinfo"))
    return target


def test_the_sample_is_clean(policyd: Callable[..., Said], bookinfo: Path) -> None:
    assert policyd("policy", "check", bookinfo, "--strict") == Said(
        Exit.OK, "5 policies: ok; --notes shows 2 notes\n", ""
    )


def test_findings_are_shown_at_their_lines(
    policyd: Callable[..., Said], bookinfo: Path, pytestconfig: pytest.Config
) -> None:
    (bookinfo / "policies" / "odd.cedar").write_text(ODD)
    said = policyd("policy", "check", bookinfo, "--notes")
    update = pytestconfig.getoption("--update-golden")

    assert (said.code, said.err) == (Exit.OK, "")
    check_text("policy/check.txt", said.out, update=update)
    assert policyd("policy", "check", bookinfo, "--strict").code == Exit.DENIED

    log = policyd("policy", "check", bookinfo, "--format", "sarif").value
    check_json("policy/results.sarif.json", log["runs"][0]["results"], update=update)
    rules = log["runs"][0]["tool"]["driver"]["rules"]
    assert all(rules[one["ruleIndex"]]["id"] == one["ruleId"] for one in log["runs"][0]["results"])

    value = policyd("policy", "check", bookinfo, "--json").value
    warnings = [one["code"] for one in value["findings"] if one["severity"] == "warning"]
    assert (value["policies"], warnings) == (8, ["PD0101", "PD0202", "PD0302"])


def test_what_does_not_load_is_an_error_in_every_form(policyd: Callable[..., Said], bookinfo: Path) -> None:
    (bookinfo / "policies" / "odd.cedar").write_text("permit (principal, action resource);\n")
    text = policyd("policy", "check", bookinfo)
    log = policyd("policy", "check", bookinfo, "--format", "sarif")

    assert (text.code, log.code) == (Exit.INVALID, Exit.INVALID)
    assert text.out.startswith("error[PD0002]: unexpected token `resource`")
    assert " --> policies/odd.cedar:1:27\n  |\n1 | permit (principal, action resource);\n  |" in text.out
    (result,) = log.value["runs"][0]["results"]
    assert (result["level"], result["locations"][0]["physicalLocation"]["region"]["startColumn"]) == ("error", 27)


def test_ten_thousand_errors_are_a_summary(policyd: Callable[..., Said], bookinfo: Path) -> None:
    (bookinfo / "policies" / "many.cedar").write_text("permit (principal, action, resource);\n" * 10_000)
    said = policyd("policy", "check", bookinfo)

    assert said.code == Exit.INVALID
    assert said.out.count("\n") < 500
    assert said.out.endswith(
        "error[PD0004]: 9,950 more: a policy lacks its id, or shares it with another one\n10,000 errors\n"
    )


def test_files_are_formatted_once(policyd: Callable[..., Said], bookinfo: Path) -> None:
    file = bookinfo / "policies" / "odd.cedar"
    file.write_text('@id("x")permit(principal,action,resource); // why\n')
    file.chmod(0o640)

    assert policyd("policy", "fmt", "--check", bookinfo) == Said(Exit.DENIED, f"{file}: is not formatted\n", "")
    value = policyd("policy", "fmt", "--check", file, "--json").value
    assert value == {"written": False, "files": [{"file": str(file), "formatted": False}]}
    shown = policyd("policy", "fmt", "--diff", file)
    assert shown.code == Exit.OK
    assert "+permit (principal, action, resource); // why\n" in shown.out
    assert policyd("policy", "fmt", bookinfo) == Said(Exit.OK, f"{file}: formatted\n", "")
    assert file.read_text() == '@id("x")\npermit (principal, action, resource); // why\n'
    assert file.stat().st_mode & 0o777 == 0o640
    assert policyd("policy", "fmt", "--check", bookinfo) == Said(Exit.OK, "", "")
    assert {one.suffix for one in file.parent.iterdir()} == {".cedar"}


def test_with_one_bad_file_none_is_written(policyd: Callable[..., Said], tmp_path: Path) -> None:
    good, bad, odd = tmp_path / "a.cedar", tmp_path / "b.cedar", tmp_path / "c.cedar"
    good.write_text("permit(principal,action,resource);")
    bad.write_text("permit(principal,action,resource)")
    odd.write_bytes(b"// \xff\n")
    said = policyd("policy", "fmt", tmp_path)

    assert (said.code, said.out) == (Exit.INVALID, "")
    assert f"{bad}:1: unexpected end of input" in said.err
    assert f"{odd}:1: the byte 0xff is no UTF-8; save the file as UTF-8" in said.err
    assert good.read_text() == "permit(principal,action,resource);"
    assert policyd("policy", "fmt", tmp_path / "none").code == Exit.USAGE


def test_coverage_is_shown_and_enforced(policyd: Callable[..., Said], bookinfo: Path, tmp_path: Path) -> None:
    covered = "22 cases, all passed\ncoverage 100 %: 13 of 13; 5 of 5 policies decided a case\n"
    assert policyd("policy", "test", bookinfo, "--min-coverage", 100) == Said(Exit.OK, covered, "")

    (bookinfo / "cases" / "paths.yaml").unlink()
    page, results = tmp_path / "page.html", tmp_path / "results.xml"
    said = policyd("policy", "test", bookinfo, "--min-coverage", 90, "--html", page, "--junit", results)

    assert said.code == Exit.DENIED
    assert said.out.endswith(
        'policies/ratings.cedar:8: `context.request.path like "/ratings/*"` never kept its policy from applying\n'
        'policies/reviews.cedar:8: `context.request.path like "/reviews/*"` never kept its policy from applying\n'
        "coverage 38.4 %: 5 of 13; 3 of 5 policies decided a case\ncoverage is below 90 %\n"
    )
    assert "38.4 %" in page.read_text()
    assert 'tests="13" failures="0"' in results.read_text()
    value = json.loads(policyd("policy", "test", bookinfo, "--coverage", "--json").out)
    assert value["coverage"]["percent"] == 38.4
    assert policyd("policy", "test", bookinfo, "--html", tmp_path / "no" / "page.html").code == Exit.ERROR


def test_a_folder_that_one_is_in_needs_no_name(
    policyd: Callable[..., Said], bookinfo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bookinfo / "policies")
    assert policyd("policy", "check").code == Exit.OK
    assert policyd("policy", "test").code == Exit.OK
    assert policyd("policy", "fmt", "--check").code == Exit.OK
    assert policyd("check").code == Exit.OK

    monkeypatch.chdir(tmp_path)
    said = policyd("policy", "check")
    assert (said.code, said.out) == (Exit.USAGE, "")
    assert said.err.endswith("  name it, or run the command inside it\n")


def test_a_folder_without_policies_is_said_to_deny(policyd: Callable[..., Said], bookinfo: Path) -> None:
    shutil.rmtree(bookinfo / "policies")
    (bookinfo / "groups.yaml").unlink()
    assert policyd("policy", "check", bookinfo) == Said(Exit.OK, "there are no policies: every request is denied\n", "")


def test_names_that_are_short_for_others_are_told_whole(policyd: Callable[..., Said], bookinfo: Path) -> None:
    (bookinfo / "policies" / "odd.cedar").write_text(
        '@id("a") permit (principal == Workload::"bookinfo-reviews", action == Action::"GET", '
        'resource == Service::"details");\n'
        '@id("b") permit (principal == Workload::"ratings", action == Action::"PUT", resource);\n'
    )
    found = policyd("policy", "check", bookinfo, "--json").value["findings"]
    assert [one["remedy"] for one in found if one["severity"] == "warning"] == [
        "did you mean `spiffe://cluster.local/ns/default/sa/bookinfo-reviews`?",
        "did you mean `details.default`?",
        "did you mean `spiffe://cluster.local/ns/default/sa/bookinfo-ratings`?",
    ]
