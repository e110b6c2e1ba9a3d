"""Which policies are active and which are tried: exactly, and refused where nobody could say."""

from __future__ import annotations

import pytest

from policyd.cedar.policies import PolicySet, load_policies
from policyd.cedar.schema import Schema
from policyd.cedar.shadow import beside, check_unmarked, is_shadow, split
from policyd.errors import InvalidInput

ALONE = "write `@shadow` alone to add the policy"
HTTP = '(principal, action in Action::"http", resource)'


def policies(schema: Schema, *statements: str) -> PolicySet:
    return load_policies({"p.cedar": "".join(f"{one};\n" for one in statements)}, schema)


def ids(found: PolicySet | None) -> list[str] | None:
    return None if found is None else [policy.id for policy in found.policies]


A, B = (f'@id("{name}") permit {HTTP}' for name in "ab")


@pytest.mark.parametrize(
    ("statements", "active", "shadow"),
    [
        ([], [], None),
        ([A, B], ["a", "b"], None),
        ([A, f'@id("n") @shadow permit {HTTP}'], ["a"], ["a", "n"]),
        ([A, f'@id("n") @shadow forbid {HTTP}'], ["a"], ["a", "n"]),
        ([f'@shadow @id("n") forbid {HTTP}'], [], ["n"]),
        ([A, B, f'@id("n") @shadow("a") permit {HTTP}'], ["a", "b"], ["b", "n"]),
        ([A, f'@id("n") @shadow("a") permit {HTTP}', f'@id("m") @shadow("a") permit {HTTP}'], ["a"], ["n", "m"]),
        ([A, f'@id("n") @shadow("") permit {HTTP}'], ["a"], ["a", "n"]),
        ([A, f'@id("n") @note("shadow") permit {HTTP}'], ["a", "n"], None),
    ],
)
def test_the_shadow_set_is_all_but_what_is_replaced(
    schema: Schema, statements: list[str], active: list[str], shadow: list[str] | None
) -> None:
    sets = split(policies(schema, *statements))

    assert (ids(sets.active), ids(sets.shadow)) == (active, shadow)
    assert not any(map(is_shadow, sets.active.policies))


def test_what_only_a_marked_policy_reads_the_active_set_does_not(schema: Schema) -> None:
    reading = f'@id("n") @shadow permit {HTTP} when {{ context.request.headers.hasTag("x-team") }}'
    sets = split(policies(schema, A, reading))

    assert sets.active.reads.headers == frozenset()
    assert sets.shadow is not None
    assert sets.shadow.reads.headers == {"x-team"}


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ('@shadow("b")', "`n` is to stand in for `b`, which is no active policy; " + ALONE),
        ('@shadow("n")', "`n` is to stand in for `n`, which is no active policy; " + ALONE),
        ('@shadow("all")', "`n` is to stand in for `all`, which is no active policy; did you mean `allow`?"),
        ("@Shadow", "`n` has an annotation `@Shadow`; did you mean `@shadow`?"),
        ("@shadwo", "`n` has an annotation `@shadwo`; did you mean `@shadow`?"),
        ("@shadow @shadows", "`n` has an annotation `@shadows`; did you mean `@shadow`?"),
    ],
)  # fmt: skip
def test_a_mark_that_means_nothing_is_refused_with_its_line(schema: Schema, statement: str, problem: str) -> None:
    found = policies(schema, f'@id("allow") permit {HTTP}', f'@id("n") {statement} permit {HTTP}')

    with pytest.raises(InvalidInput) as refused:
        split(found)

    assert [str(one) for one in refused.value.problems] == [f"p.cedar:2: {problem}"]


def test_all_of_a_shadow_folder_is_tried(schema: Schema) -> None:
    folder, other = policies(schema, A), policies(schema, B)
    sets = beside(folder, other, "next")

    assert (sets.active, sets.shadow) == (folder, other)


@pytest.mark.parametrize(
    ("folder", "other", "problem"),
    [
        ("@shadow", "", "there is a shadow folder, `next`, too; move the policy there, or remove `@shadow`"),
        ("", "@shadow", "all policies of a shadow folder are; remove `@shadow`"),
    ],
)
def test_there_is_one_shadow_set(schema: Schema, folder: str, other: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        beside(policies(schema, f"{folder} {A}"), policies(schema, f"{other} {A}"), "next")

    assert [str(one) for one in refused.value.problems] == [f"p.cedar:1: `a` is marked `@shadow`, but {problem}"]


def test_where_nothing_can_be_tried_a_mark_is_refused_and_a_misspelt_one_too(schema: Schema) -> None:
    check_unmarked(policies(schema, A), "it cannot be tried", "remove it")
    for mark, message in (("shadow", "`a` is marked `@shadow`, but it cannot be tried; remove it"),
                          ("shadowed", "`a` has an annotation `@shadowed`; did you mean `@shadow`?")):  # fmt: skip
        with pytest.raises(InvalidInput) as refused:
            check_unmarked(policies(schema, f"@{mark} {A}"), "it cannot be tried", "remove it")
        assert [str(one) for one in refused.value.problems] == [f"p.cedar:1: {message}"]
