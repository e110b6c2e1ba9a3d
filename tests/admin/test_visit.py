"""Visitors: the owner looks unless a policy forbids it, others only if one permits it, and refusals are on record."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policyd._pb import admin_pb2 as pb
from policyd.admin.visit import visited
from policyd.audit.record import Entry
from policyd.errors import InvalidInput
from policyd.offline.loaded import load_folder
from policyd.reload.live import Live
from policyd.reload.parsed import OPERATORS_FILE
from tests.cli.recorded import bookinfo

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
OWNER = f"unix:{os.getuid()}"
LOOK = '@id("a") permit (principal == Operator::"token:console", action in Action::"look", resource);\n'
NO_EXPLAIN = '@id("b") forbid (principal, action == Action::"explain", resource);\n'
NOBODY = '@id("c") forbid (principal, action, resource);\n'


def live(root: Path, tmp_path: Path, operators: str) -> Live:
    folder = bookinfo(root, tmp_path / "bookinfo")
    (folder / OPERATORS_FILE).write_text(operators)
    return load_folder(folder, cases=False).live


@pytest.mark.parametrize(
    ("operators", "who", "act", "allowed", "reasons"),
    [
        ("", OWNER, "view", True, ["owner"]),
        (LOOK, OWNER, "view", True, ["owner"]),
        (NOBODY, OWNER, "view", False, ["c"]),
        (NO_EXPLAIN, OWNER, "explain", False, ["b"]),
        ("", "token:console", "view", False, []),
        (LOOK, "token:console", "view", True, ["a"]),
        (LOOK, "token:other", "view", False, []),
        (LOOK, "unix:99999", "view", False, []),
        (LOOK + NO_EXPLAIN, "token:console", "explain", False, ["b"]),
        (LOOK + NO_EXPLAIN, "token:console", "view", True, ["a"]),
    ],
)
def test_policies_decide_who_looks(
    root: Path, tmp_path: Path, operators: str, who: str, act: str, allowed: bool, reasons: list[str]
) -> None:
    records: list[Entry] = []
    found = visited(pb.VisitRequest(who=who, act=act), live(root, tmp_path, operators), NOW, records.append)

    assert (found.allowed, list(found.reasons)) == (allowed, reasons)
    assert [(one.principal, one.decision) for one in records] == ([] if allowed else [(f'Operator::"{who}"', "deny")])


def test_what_is_named_is_recorded(root: Path, tmp_path: Path) -> None:
    records: list[Entry] = []
    asked = pb.VisitRequest(who=OWNER, act="view", operation="console.open")
    visited(asked, live(root, tmp_path, ""), NOW, records.append)

    [one] = records
    assert (one.kind, one.decision, one.reasons, one.detail) == (
        "operation", "allow", ("owner",), {"operation": "console.open"}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("who", "act", "operation"),
    [("", "view", ""), (OWNER, "apply", ""), (OWNER, "", ""), ("root", "view", ""), (OWNER, "view", "Rm -rf"),
     ('token:a"b\n', "view", ""), ("token:" + "a" * 300, "view", "")],
)  # fmt: skip
def test_what_is_no_visit_is_refused(root: Path, tmp_path: Path, who: str, act: str, operation: str) -> None:
    records: list[Entry] = []
    with pytest.raises(InvalidInput, match="no visit"):
        visited(pb.VisitRequest(who=who, act=act, operation=operation), live(root, tmp_path, ""), NOW, records.append)
    assert records == []
