"""`policyd schema`: what editors are given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from policyd.cli.exits import Exit
from policyd.policy.json_schema import schemas
from policyd.sources.shipped import shipped_schema
from tests.cli.conftest import Said


def test_one_is_printed_by_the_name_of_its_file(policyd: Callable[..., Said]) -> None:
    said = policyd("schema", "workloads")
    assert (said.code, said.err) == (Exit.OK, "")
    assert said.value == schemas()["workloads.schema.json"]
    assert policyd("schema", "workloads.yaml").out == said.out
    assert policyd("schema", "Gateway").value["$ref"] == "#/$defs/Gateway"


def test_what_each_is_of_is_listed_in_english(policyd: Callable[..., Said]) -> None:
    assert "an Enforcement of mesh/" in policyd("schema").out
    assert "a Gateway of mesh/" in policyd("schema").out


def test_what_has_none_is_not_found(policyd: Callable[..., Said]) -> None:
    said = policyd("schema", "gatway")
    assert (said.code, said.out) == (Exit.INVALID, "")
    assert said.err == "error: `gatway` has no schema\n  did you mean `Gateway`?\n"


def test_all_are_written_with_what_an_editor_needs_to_find_them(policyd: Callable[..., Said], tmp_path: Path) -> None:
    folder = tmp_path / ".vscode" / "policyd"
    value = policyd("schema", "--write", folder, "--json").value

    assert sorted(path.name for path in folder.iterdir()) == value["files"]
    assert json.loads((folder / "mesh.schema.json").read_text()) == schemas()["mesh.schema.json"]
    assert (folder / "mesh.cedarschema").read_text() == shipped_schema("mesh")
    urls = {*value["settings"]["yaml.schemas"], *(one["url"] for one in value["settings"]["json.schemas"])}
    assert urls == {str(folder / name) for name in schemas()}
    assert all(Path(url).is_file() for url in urls)

    said = policyd("schema", "--write", folder)
    assert (said.code, said.err) == (Exit.OK, "")
    assert said.out.startswith(f"wrote 10 schemas to `{folder}`\n")


def test_where_none_can_be_written_that_is_said(policyd: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = policyd("schema", "--write", tmp_path / "file")
    assert (said.code, said.out) == (Exit.ERROR, "")
    assert said.err.startswith(f"error: schemas cannot be written to `{tmp_path / 'file'}`: file exists\n")
    assert policyd("schema", "mesh", "--write", tmp_path).code == Exit.USAGE
