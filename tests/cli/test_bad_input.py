"""Bad input, tool by tool: each names file and line, and ten thousand errors are a summary."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from policyd.cli.exits import Exit
from tests.cli.conftest import Said

WORKLOADS = """\
workloads: {web-v1: {service: web, port: 80}, api-v1: {service: api, port: 80}}
defaults: {serviceAccount: "{service}"}
"""
POLICY = '@id("reads")\npermit (principal, action in Action::"read", resource == Service::"api.default");\n'
ASKED = ("web", "GET", "http://api/")
TOOLS: dict[str, tuple[str, ...]] = {  # `.` is the folder
    "check": ("check", "."),
    "policy check": ("policy", "check", "."),
    "policy test": ("policy", "test", "."),
    "policy explain": ("policy", "explain", *ASKED, "--dir", "."),
    "policy who-can": ("policy", "who-can", "GET", "http://api/", "--dir", "."),
    "policy what-can": ("policy", "what-can", "web", "--dir", "."),
    "policy diff": ("policy", "diff", ".", "."),
    "authorize": ("authorize", *ASKED, "--dir", "."),
}
FMT = ("policy", "fmt", "--check", ".")
MANY = 10_000


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    """A good folder."""
    folder = tmp_path / "mesh"
    for name, text in {"workloads.yaml": WORKLOADS, "policies/api.cedar": POLICY}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def at(tool: tuple[str, ...], folder: Path) -> list[object]:
    return [folder if word == "." else word for word in tool]


def huge(folder: Path) -> None:
    (folder / "policies" / "x.cedar").write_text("// x" * 300_000)


def nested(folder: Path) -> None:
    deep = f"when {{ {'(' * 200}true{')' * 200} }}"
    (folder / "policies" / "x.cedar").write_text(f'\n@id("x")\npermit (principal, action, resource) {deep};')


def no_text(folder: Path) -> None:
    (folder / "policies" / "x.cedar").write_bytes(b"// fine\n// \xff\n")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "policies" / "x.cedar")


def no_folder(folder: Path) -> None:
    (folder / "policies" / "api.cedar").unlink()
    (folder / "policies").rmdir()
    (folder / "policies").write_text("")


def away(folder: Path) -> None:
    (folder / "policies" / "x.cedar").symlink_to(folder / "nowhere")


def round_about(folder: Path) -> None:
    (folder / "groups.yaml").write_text("groups:\n  a: {groups: [b]}\n  b: {groups: [a]}\n")


def deep_yaml(folder: Path) -> None:
    (folder / "groups.yaml").write_text("groups: " + "[" * 10_000)


POLICIES = {
    "huge": (huge, "policies/x.cedar: 1,200,000 bytes, at most 1,048,576 are allowed"),
    "nested": (nested, "policies/x.cedar:2: brackets are nested over 100 deep"),
    "no UTF-8": (no_text, "policies/x.cedar:2: the byte 0xff is no UTF-8"),
    "a pipe": (pipe, "policies/x.cedar: is no regular file"),
    "a file for a folder": (no_folder, "policies: cannot be read: not a directory"),
    "a link to nothing": (away, "policies/x.cedar: cannot be read: no such file or directory"),
}
OTHERS = {
    "a group in itself": (round_about, "groups.yaml:3: the group `a` contains itself: a > b > a"),
    "deep YAML": (deep_yaml, "groups.yaml:1: nested more than 64 levels deep"),
}


@pytest.mark.parametrize("case", POLICIES | OTHERS)
def test_every_tool_names_what_is_wrong_and_where(policyd: Callable[..., Said], mesh: Path, case: str) -> None:
    spoil, message = (POLICIES | OTHERS)[case]
    spoil(mesh)
    place, _, words = message.partition(": ")
    for name, tool in TOOLS.items():
        said = policyd(*at(tool, mesh))
        assert said.code == Exit.INVALID, (name, said)
        if name == "policy check":
            assert said.out.startswith("error[PD000"), said
            assert place in said.out, said
            assert words in said.out, said
        else:
            shown = f"{mesh}/{message}" if name == "policy diff" else message  # there are two folders
            assert (said.out, said.err.startswith(shown)) == ("", True), (name, said)


@pytest.mark.parametrize("case", POLICIES)
def test_fmt_names_it_too_and_never_waits(policyd: Callable[..., Said], mesh: Path, case: str) -> None:
    spoil, message = POLICIES[case]
    spoil(mesh)
    said = policyd(*at(FMT, mesh))
    assert (said.code, said.out, message in said.err) == (Exit.INVALID, "", True), said


def many_policies(folder: Path) -> None:
    (folder / "policies" / "x.cedar").write_text("permit (principal, action, resource);\n" * MANY)


def many_groups(folder: Path) -> None:
    lines = "".join(f"  g{number}: {{workloads: [nobody{number}]}}\n" for number in range(MANY))
    (folder / "groups.yaml").write_text(f"groups:\n{lines}")


def many_resources(folder: Path) -> None:
    (folder / "mesh").mkdir()
    (folder / "mesh" / "x.yaml").write_text("---\napiVersion: v1\nkind: Gatway\n" * MANY)


@pytest.mark.parametrize("spoil", [many_policies, many_groups, many_resources])
def test_ten_thousand_errors_are_a_summary(
    policyd: Callable[..., Said], mesh: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(mesh)
    said = policyd("check", mesh)

    assert (said.code, said.out) == (Exit.INVALID, "")
    assert said.err.count("\n") == 52
    assert "and 9,950 more: 9,950 `" in said.err
    assert said.err.endswith("error: 10,000 problems found\n")


def test_programs_get_all_of_them(policyd: Callable[..., Said], mesh: Path) -> None:
    many_resources(mesh)
    said = policyd(*at(TOOLS["policy explain"], mesh), "--json")
    assert (said.code, len(json.loads(said.err)["error"]["problems"])) == (Exit.INVALID, MANY)


def test_many_cases_that_fail_are_a_summary(policyd: Callable[..., Said], mesh: Path) -> None:
    (mesh / "cases").mkdir()
    lines = (f"- {{name: c{number}, request: web PUT http://api/{number}, expect: allow}}\n" for number in range(3_000))
    (mesh / "cases" / "x.yaml").write_text("".join(lines))

    said = policyd("policy", "test", mesh)

    assert (said.code, said.err) == (Exit.DENIED, "")
    assert said.out.count("\n") == 52
    assert said.out.endswith("and 2,950 more: 2,950 `case`; `--json` has all\n3,000 cases, 3,000 failed\n")


def test_few_lines_do_not_become_millions_of_cases(policyd: Callable[..., Said], mesh: Path) -> None:
    (mesh / "cases").mkdir()
    table = "{who: &w [" + ", ".join(["web"] * 100) + "], may: &m [" + ", ".join(["GET"] * 20) + "], url: http://api/}"
    again = "{who: *w, may: *m, url: http://api/}"
    (mesh / "cases" / "x.yaml").write_text(f"- {{table: {table}}}\n" + f"- {{table: {again}}}\n" * 1_500)

    said = policyd("policy", "test", mesh)

    assert (said.code, said.out) == (Exit.INVALID, "")
    assert said.err.startswith("cases/x.yaml:12: the file has over 20,000 cases; split it\n")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.yaml", b"- {name: \xff}\n", "cases/x.yaml:1: the byte 0xff is no UTF-8"),
        ("x.yaml", b"- " * 200, "cases/x.yaml:1: nested more than 64 levels deep"),
        ("x.json", b"[" * 5_000, "cases/x.json:1: nested more than 64 levels deep"),
        ("x.json", b'[{"name": "a"}]', "cases/x.json:1: `request` is missing"),
        ("x.yaml", b"a: 1\n", "cases/x.yaml:1: the file must be a list"),
    ],
)
def test_bad_cases_are_named(policyd: Callable[..., Said], mesh: Path, name: str, data: bytes, message: str) -> None:
    (mesh / "cases").mkdir()
    (mesh / "cases" / name).write_bytes(data)
    for tool in (("policy", "test", mesh), ("check", mesh)):
        said = policyd(*tool)
        assert (said.code, said.out, said.err.startswith(message)) == (Exit.INVALID, "", True), said


def test_a_file_that_is_no_text_hides_nothing_of_others(policyd: Callable[..., Said], mesh: Path) -> None:
    no_text(mesh)
    (mesh / "policies" / "y.cedar").write_text("permit (")
    (mesh / "cases").mkdir()
    (mesh / "cases" / "x.yaml").write_text("- {nmae: x}\n")

    said = policyd("check", mesh, "--json")

    assert list(dict.fromkeys(one["file"] for one in said.value["problems"])) == [
        "policies/x.cedar",
        "policies/y.cedar",
        "cases/x.yaml",
    ]


def test_a_file_that_is_no_text_is_shown_at_the_byte(policyd: Callable[..., Said], mesh: Path) -> None:
    no_text(mesh)

    said = policyd("policy", "check", mesh)

    assert (said.code, "2 | // \ufffd\n" in said.out) == (Exit.INVALID, True), said


@pytest.mark.parametrize("form", ["json", "sarif"])
def test_a_folder_that_cannot_be_read_is_a_finding_in_every_form(
    policyd: Callable[..., Said], mesh: Path, form: str
) -> None:
    no_text(mesh)
    said = policyd("policy", "check", mesh, "--format", form)
    assert (said.code, said.err) == (Exit.INVALID, "")
    assert "the byte 0xff is no UTF-8" in json.dumps(said.value)
