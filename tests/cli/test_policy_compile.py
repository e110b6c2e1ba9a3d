"""`policyd policy compile`: what an author reads of what proxies could decide."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from policyd.cli.exits import Exit
from tests.cli.conftest import Said
from tests.golden import check_text

NOT_COMPILED = """
@id("freeze")
forbid (principal, action in Action::"write", resource == Service::"details.default")
when { context.time >= datetime("2026-12-24T00:00:00Z") };

@id("no-deletes")
forbid (principal, action == Action::"DELETE", resource is Service)
unless { context.client_ip.isInRange(ip("10.0.0.0/8")) };
"""


@pytest.fixture
def bookinfo(root: Path, tmp_path: Path) -> Path:
    """The sample with two more policies."""
    skip = shutil.ignore_patterns(".policyd", "bookinfo", "__pycache__")
    target = shutil.copytree(root / "examples" / "bookinfo", tmp_path / "bookinfo", ignore=skip)
    (target / "policies" / "more.cedar").write_text(NOT_COMPILED)
    return target


def test_each_service_is_told_policy_by_policy(
    policyd: Callable[..., Said], bookinfo: Path, pytestconfig: pytest.Config
) -> None:
    asked = [policyd("policy", "compile", "--service", name, "--dir", bookinfo) for name in ("reviews", "details")]
    asked.append(policyd("policy", "compile", "--service", "ingress.default", "--dir", bookinfo))
    asked.append(policyd("policy", "compile", "--dir", bookinfo))
    assert [(one.code, one.err) for one in asked] == [(Exit.OK, "")] * 4
    text = "\n".join(one.out for one in asked)
    check_text("cli/policy_compile.txt", text, update=pytestconfig.getoption("--update-golden"))


def test_programs_get_the_filter_too(policyd: Callable[..., Said], bookinfo: Path) -> None:
    (found,) = policyd("policy", "compile", "--service", "details", "--dir", bookinfo, "--json").value["services"]
    (details,) = found["listeners"]
    assert (found["service"], details["exact"], "filter" in details) == ("details.default", False, False)
    assert {one["policy"]: one.get("why", "") for one in details["policies"]} == {
        "details-from-productpage": "",
        "freeze": '`context.time` in `context.time >= datetime("2026-12-24T00:00:00Z")` (policies/more.cedar:4)',
        "no-deletes": "",
    }
    services = policyd("policy", "compile", "--dir", bookinfo, "--json").value["services"]
    (reviews,) = next(one["listeners"] for one in services if one["service"] == "reviews.default")
    assert (reviews["exact"], reviews["listeners"]) == (True, [f"reviews-v{number}/inbound" for number in (1, 2, 3)])
    assert reviews["bytes"] > 1000
    assert reviews["filter"]["@type"].endswith(".rbac.v3.RBAC")


@pytest.mark.parametrize(("service", "code"), [("reviews", Exit.OK), ("details", Exit.DENIED), ("", Exit.DENIED)])
def test_pipelines_can_ask_for_all_of_it(
    policyd: Callable[..., Said], bookinfo: Path, service: str, code: Exit
) -> None:
    of = ("--service", service) if service else ()
    asked = [policyd("policy", "compile", *of, *how, "--dir", bookinfo).code for how in (("--strict",), ())]
    assert asked == [code, Exit.OK]


def test_a_service_that_is_not_there_is_named(policyd: Callable[..., Said], bookinfo: Path) -> None:
    said = policyd("policy", "compile", "--service", "detials", "--dir", bookinfo)
    assert said == Said(Exit.INVALID, "", "error: the mesh has no service `detials`\n  did you mean `details`?\n")
