"""What the cases try of the policies, and how it is told."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from policyd.cedar.schema import Schema
from policyd.mesh.model import Mesh
from policyd.policy.cases import parse_cases, run_cases
from policyd.policy.coverage import Coverage, coverage
from policyd.policy.coverage_text import coverage_lines, coverage_value
from policyd.policy.junit import junit
from policyd.policy.report_html import report_html
from policyd.sources.files import Folder
from tests.authz.checks import ruling_of
from tests.golden import check_text

POLICIES = """@id("read")
permit (principal is Workload, action in Action::"read", resource == Service::"reviews.default")
when { context.request.path like "/reviews/*" && context.request.segments == 2 }
unless { context.request.headers.hasTag("x-robot") || context.request.path == "/reviews/13" };
@id("never") forbid (principal, action in Action::"http", resource == Service::"ratings.default");
@id("over") forbid (principal is Workload, action == Action::"HEAD", resource);
"""
CASES = {
    "read": "{name: a, request: productpage GET http://reviews/reviews/0, expect: allow}",
    "path": "{name: b, request: productpage GET http://reviews/other, expect: deny}",
    "deep": "{name: c, request: productpage GET http://reviews/reviews/0/1, expect: deny}",
    "robot": "{name: d, request: productpage GET http://reviews/reviews/0, expect: deny, headers: {x-robot: y}}",
    "unlucky": "{name: e, request: productpage GET http://reviews/reviews/13, expect: deny}",
    "head": "{name: f, request: productpage HEAD http://reviews/reviews/0, expect: deny, by: over}",
    "other": "{name: g, request: anonymous GET http://details/, expect: deny}",
    "wrong": "{name: '<b>h</b>', request: productpage GET http://reviews/reviews/0, expect: deny, by: read}",
}


def covered(mesh: Mesh, schema: Schema, names: str) -> Coverage:
    ruling = ruling_of(mesh, schema, {"p.cedar": POLICIES})
    text = "\n".join(f"- {CASES[name]}" for name in names.split())
    return coverage(run_cases(parse_cases({"c.yaml": text}, mesh), ruling), ruling.policy_set, schema)


@pytest.mark.parametrize(
    ("names", "asked", "decided", "conditions", "percent"),
    [
        # of each condition: reached, held, failed
        ("", 0, 0, [(0, 0, 0)] * 4, 0.0),
        ("other", 0, 0, [(0, 0, 0)] * 4, 0.0),
        ("read", 1, 1, [(1, 1, 0)] * 4, 45.4),
        ("path", 1, 0, [(1, 0, 1), (0, 0, 0), (0, 0, 0), (0, 0, 0)], 9.0),
        ("deep", 1, 0, [(1, 0, 0), (1, 0, 1), (0, 0, 0), (0, 0, 0)], 9.0),
        ("robot", 1, 0, [(1, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 0)], 9.0),
        ("unlucky", 1, 0, [(1, 0, 0), (1, 0, 0), (1, 0, 0), (1, 0, 1)], 9.0),
        ("head", 1, 0, [(1, 1, 0)] * 4, 45.4),
        ("read path deep robot unlucky", 5, 1, [(5, 1, 1), (4, 1, 1), (3, 1, 1), (2, 1, 1)], 81.8),
    ],
)
def test_conditions_are_counted_in_cedars_order(
    mesh: Mesh,
    schema: Schema,
    names: str,
    asked: int,
    decided: int,
    conditions: list[tuple[int, int, int]],
    percent: float,
) -> None:
    found = covered(mesh, schema, names)
    read = found.policies[0]
    assert (read.asked, read.decided) == (asked, decided)
    assert [(one.reached, one.held, one.failed) for one in read.parts] == conditions
    assert found.percent == percent


def test_what_no_case_shows_is_told_at_its_place(mesh: Mesh, schema: Schema) -> None:
    assert list(coverage_lines(covered(mesh, schema, "head deep"))) == [
        "p.cedar:1: `read` applied, but never decided",
        'p.cedar:3: `context.request.path like "/reviews/*"` never kept its policy from applying',
        'p.cedar:4: `context.request.headers.hasTag("x-robot")` never kept its policy from applying',
        'p.cedar:4: `context.request.path == "/reviews/13"` never kept its policy from applying',
        "p.cedar:5: `never` was never asked: no case is in its scope",
        "coverage 54.5 %: 6 of 11; 1 of 3 policies decided a case",
    ]


def test_coverage_for_programs(mesh: Mesh, schema: Schema) -> None:
    value = coverage_value(covered(mesh, schema, "head"))
    assert value["percent"] == 45.4
    assert value["policies"][2] == {
        "id": "over", "file": "p.cedar", "line": 6, "asked": 1, "applied": 1, "decided": 1, "conditions": [],
    }  # fmt: skip
    assert value["policies"][0]["conditions"][1] == {
        "kind": "when", "text": "context.request.segments == 2", "line": 3, "reached": 1, "held": 1, "failed": 0,
    }  # fmt: skip


def test_without_policies_there_is_nothing_to_cover(mesh: Mesh, schema: Schema) -> None:
    ruling = ruling_of(mesh, schema, {})
    assert coverage((), ruling.policy_set, schema).percent == 100.0


def test_the_samples_cases_cover_all_of_it(folder: Folder, mesh: Mesh, schema: Schema) -> None:
    ruling = ruling_of(mesh, schema, folder.below("policies"))
    results = run_cases(parse_cases(folder.below("cases"), mesh), ruling)
    assert list(coverage_lines(coverage(results, ruling.policy_set, schema))) == [
        "coverage 100 %: 13 of 13; 5 of 5 policies decided a case"
    ]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_reports(mesh: Mesh, schema: Schema, pytestconfig: pytest.Config) -> None:
    ruling = ruling_of(mesh, schema, {"p.cedar": POLICIES})
    text = "\n".join(f"- {CASES[name]}" for name in ("read", "deep", "wrong"))
    results = run_cases(parse_cases({"cases/c.yaml": text}, mesh), ruling)
    page = report_html("a <mesh>", results, coverage(results, ruling.policy_set, schema))
    update = pytestconfig.getoption("--update-golden")
    check_text("policy/tests.html", page, update=update)
    check_text("policy/tests.xml", junit(results), update=update)

    tags = _Tags()
    tags.feed(page)
    assert (tags.open, tags.addresses) == ([], [])
    assert not tags.seen & {"script", "b", "img", "link", "iframe"}
    assert ET.fromstring(junit(results)).attrib["failures"] == "1"


def test_a_name_that_xml_cannot_say_is_said_otherwise(mesh: Mesh, schema: Schema) -> None:
    ruling = ruling_of(mesh, schema, {"p.cedar": POLICIES})
    (result,) = run_cases(parse_cases({"c.yaml": f"- {CASES['read']}"}, mesh), ruling)
    odd = replace(result, case=replace(result.case, name="a\x00\x1b<\ud800&"))
    assert ET.fromstring(junit([odd])).find("testsuite/testcase").attrib["name"] == "a\ufffd\ufffd<\ufffd&"  # type: ignore[union-attr]
