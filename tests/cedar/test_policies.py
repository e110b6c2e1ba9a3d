"""Policy files: what is refused, where, and that all of it is found at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.cedar.policies import Checked, load_policies
from policyd.cedar.schema import Schema, parse_schema
from policyd.errors import InvalidInput, Problem

HTTP = 'permit (principal, action in Action::"http", resource)'
TOP = "is not valid: "


def problems_of(text: str, schema: Schema) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        load_policies({"p.cedar": text}, schema)
    return [f"{one.line}:{one.column} {one.code}: {one.message}" for one in caught.value.problems]


def test_a_policy_carries_its_text_annotations_and_place(schema: Schema) -> None:
    text = f'// why\n\n@id("a;b")\n@why("x")\n{HTTP}; // after\n@id("c") {HTTP};'
    one, two = load_policies({"f.cedar": text}, schema).policies
    assert (one.id, one.effect, one.annotations, one.file, one.line) == (
        "a;b",
        "permit",
        {"id": "a;b", "why": "x"},
        "f.cedar",
        3,
    )
    assert one.text == f'@id("a;b")\n@why("x")\n{HTTP};'
    assert (two.id, two.line) == ("c", 6)


def test_the_contracts_fifteen_policies_load(schema: Schema) -> None:
    text = (Path(__file__).parent / "data/traffic.cedar").read_text()
    policies = load_policies({"traffic.cedar": text}, schema).policies
    assert len(policies) == 15
    assert [policy.id for policy in policies][:2] == ["reviews-from-productpage", "default-namespace-talks"]
    assert policies[14].line == text[: text.index('@id("v2-only")')].count("\n") + 1


def test_every_shipped_policy_is_valid_in_its_own_set(root: Path) -> None:
    for name, count in (("issuance", 1), ("operators", 0)):
        own = parse_schema((root / f"policies/{name}.cedarschema").read_text())
        text = (root / f"policies/{name}.cedar").read_text()
        assert len(load_policies({f"{name}.cedar": text}, own).policies) == count


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("permit (", "1:8 policy_syntax: unexpected end of input"),
        (f'@id("a") {HTTP}', "1:63 policy_syntax: unexpected end of input"),
        (f'@id("a")\n{HTTP}\nwhen {{ 1 + }};', "3:12 policy_syntax: unexpected token `}` at `};`"),
        (f'@id("a") {HTTP} permit;', "1:71 policy_syntax: unexpected token `;` at `;`"),
        ('@id("a', '1:5 policy_syntax: invalid token at `"a`'),
        (f'@id("a") {HTTP} when {{ 1 / 2 == 0 }};', "1:1 policy_syntax: division is not supported"),
        ('@id("a") allow (principal, action, resource);', "1:10 policy_syntax: invalid policy effect: allow"),
        (f'@id("a") @id("b") {HTTP};', "1:1 policy_syntax: duplicate annotation: @id"),
        (f'@id("a") {HTTP};;', "1:65 policy_syntax: unexpected token `;` at `;`"),
        (f"{HTTP};", "1:0 policy_id: a policy has no `@id`"),
        (f'@id("") {HTTP};', "1:0 policy_id: a policy has no `@id`"),
        (f'@id(" a") {HTTP};', "1:0 policy_id: `' a'` is no policy id"),
        (f'@id("a\\nb") {HTTP};', r"1:0 policy_id: `'a\nb'` is no policy id"),
        (f'@id("{"a" * 129}") {HTTP};', f"1:0 policy_id: `'{'a' * 128}'` is no policy id"),
        (f'@id("a") {HTTP};\n@id("a") {HTTP};', "2:0 policy_id: two policies have the id `a`"),
        (
            '@id("a") permit (principal == ?principal, action, resource);',
            "1:1 policy_template: templates are not supported",
        ),
        (f'@id("a")\0 {HTTP};', "1:9 policy_syntax: the character U+0000 does not belong in a policy"),
        (f'@id("a") {HTTP}; // \x1b[0m', "1:69 policy_syntax: the character U+001B does not belong in a policy"),
        (f'@id("a") {HTTP}; // \u202e', "1:69 policy_syntax: the character U+202E does not belong in a policy"),
        (
            f'@id("a") {HTTP} when {{ context.request.path like "/adm\u200bin/*" }};',
            "1:103 policy_syntax: the character U+200B does not belong in a policy",
        ),
        (f'@id("a") {HTTP}; // \u061c', "1:69 policy_syntax: the character U+061C does not belong in a policy"),
        (f'\ufeff@id("a") {HTTP};', "1:1 policy_syntax: the character U+FEFF does not belong in a policy"),
        (
            f'@id("a") {HTTP} when {{ {"(" * 100}true{")" * 100} }};',
            "1:1 policy_bounds: brackets are nested over 100 deep",
        ),
        (
            f'@id("a") {HTTP} when {{ {"true && " * 200}true }};',
            "1:1 policy_syntax: expression nesting exceeds the supported limit of 100 levels",
        ),
        (
            f'@id("a") {HTTP} when {{ {"true && " * 100_000}true }};',
            "1:1 policy_bounds: a policy has over 65536 characters",
        ),
        (
            f'@id("a") {HTTP} when {{ {"true && " * 5_000}true }};',
            "1:1 policy_bounds: a policy has over 500 operators",
        ),
        (
            '@id("a") permit (principal is Person, action, resource);',
            f"1:31 policy_invalid: `a` {TOP}unrecognized entity type `Person`",
        ),
        (
            f'@id("a") {HTTP} when {{ context.request.pth == "/" }};',
            f'1:88 policy_invalid: `a` {TOP}attribute `request.pth` not found in the context of Action::"http"',
        ),
        (
            '@id("a") permit (principal, action == Action::"GET", resource) when { context.user.issuer == "" };',
            f"1:79 policy_invalid: `a` {TOP}unable to guarantee safety of access to optional attribute `user` "
            'in the context of Action::"GET"',
        ),
    ],
)
def test_a_bad_policy_is_refused_with_its_place(schema: Schema, text: str, problem: str) -> None:
    assert problem in problems_of(text, schema)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        *(
            (
                f'context.request.headers.hasTag("{name}")',
                f"`a` reads the header `{name}`, which proxies never send here",
            )
            for name in ("authorization", "proxy-authorization", "cookie", "Cookie", "x-policyd-peer")
        ),
        (
            'context.request.headers.hasTag("x") && context.request.headers.getTag("x") == "" && '
            'context.request.headers.hasTag("cookie")',
            "`a` reads the header `cookie`, which proxies never send here",
        ),
        (
            '(if true then context.request.headers else context.request.headers).hasTag("cookie")',
            "`a` reads the header `cookie`, which proxies never send here",
        ),
        (
            '{labels: context.request.headers}.labels.hasTag("cookie")',
            "`a` reads the header `cookie`, which proxies never send here",
        ),
        ('Headers::"request".hasTag("cookie")', "`a` reads the header `cookie`, which proxies never send here"),
        ("context.request.headers.hasTag(context.request.path)", "`a` computes the name of a header"),
        ('context.request.headers.hasTag("End-User")', "`a` reads the header `End-User`"),
    ],
)
def test_a_header_that_is_not_sent_is_refused(schema: Schema, condition: str, message: str) -> None:
    text = f'@id("a") forbid (principal, action in Action::"http", resource) when {{ {condition} }};'
    assert [line.partition(": ")[2] for line in problems_of(text, schema)] == [message]


def test_tags_of_others_may_be_computed(schema: Schema) -> None:
    text = f'@id("a") {HTTP} when {{ principal.hasTag(context.request.host) && principal.hasTag("cookie") }};'
    assert load_policies({"f": text}, schema).reads.tags is None


def test_no_problem_hides_another(schema: Schema) -> None:
    files = {
        "b.cedar": f'{HTTP} when {{ }};\n@id("x") {HTTP};\n'
        '@id("y") permit (principal, action == Action::"P", resource);',
        "a.cedar": f'@id("x") {HTTP};\n@id("z") forbid (principal, action in Action::"http", resource)\n'
        'when { context.request.headers.hasTag("cookie") };',
        "c.cedar": "\0",
    }
    with pytest.raises(InvalidInput) as caught:
        load_policies(files, schema)
    assert list(dict.fromkeys((one.file, one.line, one.code) for one in caught.value.problems)) == [
        ("a.cedar", 2, "policy_header"),
        ("b.cedar", 1, "policy_syntax"),
        ("b.cedar", 2, "policy_id"),
        ("b.cedar", 3, "policy_invalid"),
        ("c.cedar", 1, "policy_syntax"),
    ]


def test_a_file_is_bounded(schema: Schema) -> None:
    assert problems_of("/" * 2_000_000, schema) == ["0:0 policy_bounds: a policy file has at most 1048576 bytes"]


def test_a_schema_that_does_not_parse_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_schema("entity;", "x.cedarschema")
    (problem,) = caught.value.problems
    assert (problem.code, problem.file) == ("schema", "x.cedarschema")
    assert isinstance(problem, Problem)


def test_the_place_of_an_invalid_policy_is_right_however_many_stand_before_it(schema: Schema) -> None:
    lines = [f'@id("p{number}") {HTTP};' for number in range(1_100)]
    for at in (0, 499, 500, 1_050):
        lines[at] = lines[at].replace("(principal,", "(principal is Person,")
    told = [line for line in problems_of("\n".join(lines), schema) if "Person" in line]
    assert told == [
        f"{at + 1}:{31 + len(str(at))} policy_invalid: `p{at}` {TOP}unrecognized entity type `Person`"
        for at in (0, 499, 500, 1_050)
    ]


# ---- what was looked at before


ONE, TWO = '@id("one") permit (principal, action, resource);\n', '@id("two") forbid (principal, action, resource);\n'


def test_files_that_did_not_change_are_not_read_again_and_the_set_is_the_same(schema: Schema) -> None:
    checked = Checked()
    before = load_policies({"a.cedar": ONE, "c.cedar": TWO}, schema, checked)
    files = {"a.cedar": ONE, "b.cedar": ONE.replace("one", "three"), "c.cedar": TWO + TWO.replace("two", "four")}

    after = load_policies(files, schema, checked)

    fresh = load_policies(files, schema)
    assert [(one.id, one.text, one.file, one.line) for one in after.policies] == [
        (one.id, one.text, one.file, one.line) for one in fresh.policies
    ]
    assert after.reads == fresh.reads
    assert after.policies[0] is before.policies[0]
    assert load_policies({"a.cedar": ONE}, schema, checked).policies == (before.policies[0],)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b.cedar": ONE}, "b.cedar:1: two policies have the id `one`; the other one is a.cedar:1"),
        (
            {"a.cedar": ONE.replace("one", "two")},
            "c.cedar:1: two policies have the id `two`; the other one is a.cedar:1",
        ),
        ({"b.cedar": "permit (principal"}, "b.cedar:1"),
        ({"c.cedar": TWO.replace(";", "when { context.nope };")}, "c.cedar:1"),
    ],
)
def test_what_is_wrong_with_new_files_is_found_and_the_good_ones_stay_known(
    schema: Schema, change: dict[str, str], message: str
) -> None:
    good, checked = {"a.cedar": ONE, "c.cedar": TWO}, Checked()
    before = load_policies(good, schema, checked)

    with pytest.raises(InvalidInput) as refused:
        load_policies(good | change, schema, checked)

    assert str(refused.value.problems[0]).startswith(message)
    assert refused.value.problems == failure(good | change, schema)
    assert load_policies(good, schema, checked).policies[0] is before.policies[0]


def failure(files: dict[str, str], schema: Schema) -> object:
    with pytest.raises(InvalidInput) as refused:
        load_policies(files, schema)
    return refused.value.problems
