"""Where the parts of a policy stand."""

from __future__ import annotations

import cedarpy
import pytest

from policyd.policy.outline import outline_of, parts_of


def parts(text: str) -> list[str]:
    (tree,) = cedarpy.policies_to_pst(text).static_policies.values()
    return [f"{part.kind} {text[part.span.start : part.span.end]}" for part in parts_of(tree, outline_of(text))]


def test_the_scope_is_found_behind_annotations_and_comments() -> None:
    text = """@id("a(,)") @permit // permit (
forbid ( // who, what
  principal in Group::"a,b" , action in [Action::"GET", Action::"POST"], resource);"""
    outline = outline_of(text)
    spans = (outline.effect, outline.principal, outline.action, outline.resource)
    assert [text[span.start : span.end] for span in spans] == [
        "forbid",
        'principal in Group::"a,b"',
        'action in [Action::"GET", Action::"POST"]',
        "resource",
    ]
    assert outline.clauses == ()


@pytest.mark.parametrize(
    ("clauses", "found"),
    [
        ("when { 1 == 2 }", ["when 1 == 2"]),
        ("when { 1 && 2 } unless { 3 || 4 }", ["when 1", "when 2", "unless 3", "unless 4"]),
        ("when { (1 && (2)) && ((3) && 4) }", ["when 1", "when (2)", "when (3)", "when 4"]),
        ("when { (1 && 2) }", ["when 1", "when 2"]),
        ("when { 1 || 2 && 3 }", ["when 1 || 2 && 3"]),
        ("when { 1 && (2 || 3) }", ["when 1", "when (2 || 3)"]),
        ("unless { 1 && 2 || 3 }", ["unless 1 && 2", "unless 3"]),
        ("when { if 1 then 2 else 3 && 4 }", ["when if 1 then 2 else 3 && 4"]),
        ('when { ["}&&"].contains({"x": 1 && 2}.x) && 3 }', ['when ["}&&"].contains({"x": 1 && 2}.x)', "when 3"]),
        ("when { !(1 && 2) }", ["when !(1 && 2)"]),
        ("when { 1 // && no\n && 2 } when { 3 }", ["when 1", "when 2", "when 3"]),
    ],
)
def test_each_condition_has_its_place(clauses: str, found: list[str]) -> None:
    assert parts(f"permit (principal, action, resource) {clauses};") == found
