"""Policy cases: the sample's hold, and a case that fails says clearly how."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policyd.authz.ruling import Ruling
from policyd.cedar.schema import Schema
from policyd.errors import InvalidInput
from policyd.mesh.model import Mesh
from policyd.policy.cases import failures, parse_cases, run_cases
from policyd.sources.files import Folder
from tests.authz.checks import PAGE, ruling_of


def told(text: str, ruling: Ruling, name: str = "cases/c.yaml") -> list[str]:
    return [str(problem) for problem in failures(parse_cases({name: text}, ruling.mesh), ruling)]


def refused(text: str, mesh: Mesh, name: str = "cases/c.yaml") -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        parse_cases({name: text}, mesh)
    return [str(problem) for problem in caught.value.problems]


def test_the_samples_cases_hold(folder: Folder, ruling: Ruling) -> None:
    results = run_cases(parse_cases(folder.below("cases"), ruling.mesh), ruling)
    assert [result.different for result in results] == [()] * len(results)
    assert len(results) >= 5 + 8


def test_a_table_expects_a_denial_of_all_that_it_does_not_allow(ruling: Ruling) -> None:
    text = """
- name: ratings
  table: {who: [productpage, reviews], may: [GET, PUT], url: http://ratings/ratings/0}
  allow: [productpage GET, reviews PUT]
"""
    cases = parse_cases({"c.yaml": text}, ruling.mesh)
    assert [(case.name, case.expect, case.asked, case.line) for case in cases] == [
        ("ratings: productpage GET", "allow", "productpage GET http://ratings/ratings/0", 2),
        ("ratings: productpage PUT", "deny", "productpage PUT http://ratings/ratings/0", 2),
        ("ratings: reviews GET", "deny", "reviews GET http://ratings/ratings/0", 2),
        ("ratings: reviews PUT", "allow", "reviews PUT http://ratings/ratings/0", 2),
    ]
    assert [result.different for result in run_cases(cases, ruling)] == [
        (),
        (),
        ("expected deny, got allow by `ratings-from-readers`",),
        ("expected allow, got deny",),
    ]


def test_a_failed_case_says_where_and_how(ruling: Ruling) -> None:
    text = "\n- {name: a, request: productpage GET http://reviews/reviews/0, expect: allow, by: other}"
    assert told(text, ruling) == [
        "cases/c.yaml:2: the case `a` fails: expected allow by `other`, got allow by `reviews-from-productpage`; "
        "`productpage GET http://reviews/reviews/0`: correct the policies, or the case"
    ]
    text = "- {name: a, request: productpage GET http://reviews/a//b, expect: deny}"
    assert told(text, ruling) == [
        "cases/c.yaml:1: the case `a` fails: there is no decision: `/a//b` has an empty segment; "
        "`productpage GET http://reviews/a//b`: correct the policies, or the case"
    ]


def test_headers_and_time_are_part_of_a_case(mesh: Mesh, schema: Schema) -> None:
    text = """@id("canary") permit (principal, action in Action::"http", resource)
        when { context.request.headers.hasTag("end-user") && context.time >= datetime("2026-12-24T00:00:00Z") };"""
    ruling = ruling_of(mesh, schema, {"p.cedar": text})
    case = "- {name: %s, request: anonymous GET http://reviews/, expect: %s, headers: {End-User: j}, time: %s}"
    when = "'2026-12-24T01:00:00+01:00'"
    assert told(case % ("a", "allow", when) + "\n" + case % ("b", "deny", "'2026-12-23T00:00:00Z'"), ruling) == []


def test_a_policy_that_fails_fails_the_case(mesh: Mesh, schema: Schema) -> None:
    text = """@id("odd") permit (principal, action in Action::"http", resource)
        when { context.request.segments * 9223372036854775807 > 0 };"""
    ruling = ruling_of(mesh, schema, {"p.cedar": text})
    (problem,) = told("- {name: a, request: anonymous GET http://reviews/a/b, expect: deny}", ruling)
    assert "expected 0 policies to fail, 1 did: `odd` integer overflow" in problem


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a: b", ["cases/c.yaml:1: the file must be a list; start each entry with `- `"]),
        (
            "- {name: a, request: b, expect: maybe}",
            ["cases/c.yaml:1: `expect` must be 'allow' or 'deny', not the text `maybe`"],
        ),
        (
            "- {name: a, request: b c, expect: deny}",
            [
                "cases/c.yaml:1: `b c` is no request; "
                "write FROM METHOD URL, as in `productpage GET http://reviews/reviews/0`"
            ],
        ),
        (
            "- {name: a, request: anonymous GET http://reviews/, expect: deny, when: now}",
            [
                "cases/c.yaml:1: unknown field `when`; known are `by`, `claims`, `expect`, `headers`, `name`, "
                "`request`, `time`, `user`"
            ],
        ),
        (
            "- table: {who: [a], may: [GET], url: http://reviews/}\n  allow: [b GET]",
            [
                "cases/c.yaml:2: `b GET` is no combination of the table; write one of `who`, a space and one of `may`",
                "cases/c.yaml:1: `a` is nobody in the mesh; there are anonymous, details, details-v1, ingress, "
                "productpage, productpage-v1, ratings, ratings-v1, reviews, reviews-v1, reviews-v2, reviews-v3",
            ],
        ),
        (
            "- {name: a, request: anonymous GET http://reviews/, expect: deny, time: '2026-01-01'}",
            ["cases/c.yaml:1: `time`: `2026-01-01` is no time; write it as in `2026-12-24T00:00:00Z`"],
        ),
    ],
)
def test_a_bad_case_is_refused_at_its_place(mesh: Mesh, text: str, problems: list[str]) -> None:
    assert refused(text, mesh) == problems


def in_cedars_form(**changes: Any) -> str:
    case = {
        "name": "the page shows reviews",
        "request": {
            "principal": f'Workload::"{PAGE}"',
            "action": 'Action::"GET"',
            "resource": 'Service::"ratings.default"',
            "context": {"request": {"path": "/ratings/0"}},
        },
        "entities": [
            {"uid": {"type": "Workload", "id": str(PAGE)}, "attrs": {}, "parents": [{"type": "Group", "id": "inner"}]},
            {"uid": {"type": "Group", "id": "inner"}, "parents": [{"type": "Group", "id": "ratings-readers"}]},
        ],
        "decision": "allow",
        "reason": ["ratings-from-readers"],
        "num_errors": 0,
    }
    return json.dumps([case | changes], indent="\t")


def test_cedars_own_form_runs_too(ruling: Ruling) -> None:
    assert told(in_cedars_form(), ruling, "cases/c.json") == []
    assert told(in_cedars_form(entities=[], decision="deny", reason=[]), ruling, "cases/c.json") == []
    (problem,) = told(in_cedars_form(reason=["other"], num_errors=1), ruling, "cases/c.json")
    assert (
        "expected allow by `other`, got allow by `ratings-from-readers`; expected 1 policies to fail, 0 did" in problem
    )


def test_an_escaped_id_is_read(ruling: Ruling) -> None:
    request = {"principal": 'Workload::"a\\"b\\\\"', "action": 'Action::"GET"', "resource": 'Service::"x"'}
    (case,) = parse_cases({"c.json": in_cedars_form(request=request, entities=[])}, ruling.mesh)
    assert case.question.principal.id == 'a"b\\'  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"entities": "entities.json"}, "`entities` must be a list, not the text `entities.json`"),
        ({"decision": "Allow"}, "`decision` must be 'allow' or 'deny', not the text `Allow`"),
        (
            {"request": {"principal": "me", "action": 'Action::"GET"', "resource": 'Service::"x"'}},
            '`me` is no entity; write it as in `Action::"GET"`',
        ),
        ({"entities": [{"uid": {"id": "a"}}]}, 'an entity\'s id has the form {"type": …, "id": …}'),
        ({"num_errors": -1}, "`num_errors` must be at least 0, not the number -1"),
    ],
)
def test_a_bad_case_in_cedars_form_is_refused(mesh: Mesh, changes: dict[str, Any], problem: str) -> None:
    assert any(problem in line for line in refused(in_cedars_form(**changes), mesh, "cases/c.json"))


def test_all_files_problems_are_found_at_once(mesh: Mesh) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_cases({"a.yaml": "- {}", "b.json": "[{}]", "c.yaml": "- {name: [}"}, mesh)
    assert {problem.file for problem in caught.value.problems} == {"a.yaml", "b.json", "c.yaml"}
