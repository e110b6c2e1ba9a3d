"""`policyd policy import istio` as one types it, and the word of a folder that has an AuthorizationPolicy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from policyd.cli.exits import Exit
from tests.cli.conftest import Said, policyd

__all__ = ["policyd"]

POLICIES = Path(__file__).parent / "policies"


@pytest.fixture
def bookinfo(root: Path, tmp_path: Path) -> Path:
    """The declared files of the sample, without policies."""
    target = tmp_path / "bookinfo"
    skip = shutil.ignore_patterns(".policyd", "bookinfo", "__pycache__", "policies", "cases")
    shutil.copytree(root / "examples" / "bookinfo", target, ignore=skip)
    return target


def test_files_are_written_and_decide(policyd: Callable[..., Said], bookinfo: Path) -> None:
    out = bookinfo / "policies"

    said = policyd("policy", "import", "istio", POLICIES / "bookinfo.yaml", "--mesh", bookinfo, "--out", out)

    assert (said.code, said.err) == (Exit.OK, "")
    assert sorted(path.name for path in out.iterdir()) == [
        "all_of_default.cedar", "details.cedar", "ingress.cedar", "productpage.cedar", "ratings.cedar", "reviews.cedar",
    ]  # fmt: skip
    assert policyd("check", bookinfo).code == Exit.OK
    asked = ("reviews GET http://ratings/ratings/0", "reviews GET http://details/details/0")
    codes = [policyd("authorize", *one.split(), "--dir", bookinfo).code for one in asked]
    assert codes == [Exit.OK, Exit.DENIED]


def test_without_out_they_are_printed(policyd: Callable[..., Said], bookinfo: Path) -> None:
    said = policyd("policy", "import", "istio", POLICIES / "deny.yaml", "--mesh", bookinfo)

    assert said.code == Exit.OK
    assert "// ---- reviews.cedar\n" in said.out
    assert '@id("admin[0]")\n' in said.out
    assert said.err.count("note: ") == 2


def test_nothing_is_written_over_and_nothing_if_one_file_is_there(policyd: Callable[..., Said], bookinfo: Path) -> None:
    out = bookinfo / "policies"
    out.mkdir()
    (out / "reviews.cedar").write_text("// mine\n")

    said = policyd("policy", "import", "istio", POLICIES / "bookinfo.yaml", "--mesh", bookinfo, "--out", out)

    assert said.code == Exit.INVALID
    assert "reviews.cedar: is there already; move it away, or write to another folder" in said.err
    assert [path.name for path in out.iterdir()] == ["reviews.cedar"]


def test_a_refusal_writes_nothing(policyd: Callable[..., Said], bookinfo: Path, tmp_path: Path) -> None:
    file = tmp_path / "custom.yaml"
    file.write_text((POLICIES / "bookinfo.yaml").read_text().replace("action: ALLOW", "action: CUSTOM"))

    said = policyd("policy", "import", "istio", file, "--mesh", bookinfo, "--out", bookinfo / "policies", "--json")

    assert said.code == Exit.INVALID
    assert not (bookinfo / "policies").exists()


def test_a_folder_with_a_policy_of_istio_names_the_command_which_then_works(
    policyd: Callable[..., Said], bookinfo: Path
) -> None:
    file = bookinfo / "mesh" / "authz.yaml"
    shutil.copy(POLICIES / "bookinfo.yaml", file)

    said = policyd("check", bookinfo)

    assert said.code == Exit.INVALID
    assert (
        "mesh/authz.yaml:3: the kind `AuthorizationPolicy` is not supported; turn it into Cedar with "
        "`policyd policy import istio mesh/authz.yaml`, then take it out" in said.err
    )
    assert policyd("policy", "import", "istio", file, "--mesh", bookinfo, "--json").value["notes"] == []


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"a: \xff\n", "the byte at 3 is no UTF-8; save the file as UTF-8"),
        (b"#" * (1 << 20) + b"\n", "1,048,577 bytes, at most 1,048,576 are allowed; split the file"),
        (b"a: 1\na: 2\n", "the key `a` is there twice"),
        (b"[" * 100, "nested more than 64 levels deep"),
    ],
)
def test_bad_files_are_named(
    content: bytes, what: str, policyd: Callable[..., Said], bookinfo: Path, tmp_path: Path
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)

    said = policyd("policy", "import", "istio", file, "--mesh", bookinfo)

    assert said.code == Exit.INVALID
    assert str(file) in said.err
    assert what in said.err


def test_a_missing_file_and_a_bad_alias_are_told(policyd: Callable[..., Said], bookinfo: Path) -> None:
    missing = policyd("policy", "import", "istio", "nowhere.yaml", "--mesh", bookinfo)
    alias = policyd("policy", "import", "istio", POLICIES / "deny.yaml", "--mesh", bookinfo, "--alias", "Old")

    assert (missing.code, "`nowhere.yaml` cannot be read: no such file" in missing.err) == (Exit.USAGE, True)
    assert (alias.code, "`Old` is no trust domain name" in alias.err) == (Exit.USAGE, True)


DRY_RUN = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: default, annotations: {istio.io/dry-run: "true"}}
spec: {action: DENY, selector: {matchLabels: {app: reviews}}, rules: [{to: [{operation: {methods: [GET]}}]}]}
"""


def test_dry_runs_become_a_shadow_folder(policyd: Callable[..., Said], bookinfo: Path, tmp_path: Path) -> None:
    (tmp_path / "dry.yaml").write_text(DRY_RUN)
    files = (POLICIES / "bookinfo.yaml", tmp_path / "dry.yaml", "--mesh", bookinfo)
    out = ("--out", bookinfo / "policies", "--dry-runs", bookinfo / "next")
    said = policyd("policy", "import", "istio", *files, *out)

    assert (said.code, "is not enforced, so no policy is made; `--dry-runs` writes it to try it" in said.err) == (
        0,
        True,
    )
    (bookinfo / "policyd.yaml").write_text("shadow: {policies: next}\n")
    said = policyd("authorize", "productpage", "GET", "http://reviews/reviews/0", "--dir", bookinfo)
    assert said.code == Exit.OK
    assert "the shadow policies:\n  deny: forbidden by `closed`" in said.out


def test_a_file_in_either_folder_keeps_both_from_being_written(policyd: Callable[..., Said], bookinfo: Path) -> None:
    (bookinfo / "next").mkdir()
    (bookinfo / "next" / "reviews.cedar").write_text("// mine\n")
    out = ("--mesh", bookinfo, "--out", bookinfo / "policies", "--dry-runs", bookinfo / "next")
    said = policyd("policy", "import", "istio", POLICIES / "bookinfo.yaml", *out)

    assert (said.code, (bookinfo / "policies").exists()) == (Exit.INVALID, False)
