"""Statements are cut where Cedar cuts them, and read the same together as one by one."""

from __future__ import annotations

from dataclasses import replace

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.cedar.lexer import statements_of
from policyd.cedar.parsing import read_all, sources_of
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema
from policyd.errors import InvalidInput, Problem

GOOD = '@id("p{}") permit (principal == Workload::"w{}", action, resource);'

PIECES = (
    "permit (principal, action, resource);",
    'forbid (principal, action, resource) when { "a;b" == "//" };',
    '@id("x\\";") permit (principal, action, resource);',
    "// a; b",
    "// permit (principal, action, resource);",
    "\n",
    "\r",
    "\r\n",
    "\t",
    "\u00a0",
    '"',
    ";",
    "/",
    "permit (principal, action, resource) // ;\r;",
)


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_statements_are_cut_where_cedar_cuts_them(text: str) -> None:
    try:
        count = len(cedarpy.policies_to_pst(text).static_policies)
    except ValueError:
        return
    assert len(statements_of(text)) == count


def test_a_lone_carriage_return_ends_a_comment(schema: Schema) -> None:
    """As in Cedar: else a policy behind it would be lost in silence."""
    text = '// old Macs\r@id("a") forbid (principal, action, resource);\r// and more\r'
    assert [policy.id for policy in load_policies({"p": text}, schema).policies] == ["a"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("permit (principal, action);", "missing the `resource` variable"),
        ("permit (principal, action, resource)", "unexpected end of input"),
        ("permit (principal == ?principal, action, resource);", "templates are not supported"),
        (";", "unexpected token `;`"),
        (f"permit (principal, action, resource) when {{ {'(' * 200}true{')' * 200} }};", "nested over 100 deep"),
    ],
)
@pytest.mark.parametrize("at", [0, 63, 64, 130])
def test_one_bad_statement_among_many_is_the_only_one(bad: str, message: str, at: int) -> None:
    lines = [GOOD.format(number, number) for number in range(130)]
    lines.insert(at, bad)
    sources = [source for number, line in enumerate(lines) for source in sources_of(f"{number}.cedar", line)]
    read = list(read_all(sources))
    (problem,) = [one for one in read if isinstance(one, Problem)]
    assert (problem.file, problem.line) == (f"{at}.cedar", 1)
    assert message in problem.message
    trees = [one for one in read if not isinstance(one, Problem)]
    assert [tree.annotations["id"] for tree in trees] == [f"p{number}" for number in range(130)]


def test_an_unfinished_file_does_not_run_into_the_next(schema: Schema) -> None:
    files = {"a.cedar": '@why("x")', "b.cedar": '@id("b") permit (principal, action, resource);'}
    with pytest.raises(InvalidInput) as caught:
        load_policies(files, schema)
    assert [(one.file, one.code) for one in caught.value.problems] == [("a.cedar", "policy_syntax")]


def test_each_policy_of_many_has_its_own_tree_and_place(schema: Schema) -> None:
    text = "\n".join(GOOD.format(number, number) for number in range(200))
    for number, policy in enumerate(load_policies({"p.cedar": text}, schema).policies):
        assert (policy.id, policy.line) == (f"p{number}", number + 1)
        assert replace(policy.tree, id="policy0") == cedarpy.policies_to_pst(policy.text).static_policies["policy0"]


@pytest.mark.timeout(10)  # with the square of the length it takes minutes
@pytest.mark.parametrize("hostile", ['\\"', '"\\', "/ ", '";', ";//\r", "\\"])
def test_a_cut_takes_as_long_as_the_text(hostile: str) -> None:
    assert statements_of(hostile * (400_000 // len(hostile)))
