"""What an author is told of a policy that is not valid: the word that is wrong, and what was probably meant."""

from __future__ import annotations

import pytest

from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema
from policyd.errors import InvalidInput

HTTP = 'principal, action in Action::"http", resource'
WORKLOAD = 'principal is Workload, action in Action::"http", resource'


def told(text: str, schema: Schema) -> list[tuple[str, str]]:
    """For each problem the words at its place, and its remedy."""
    with pytest.raises(InvalidInput) as caught:
        load_policies({"p.cedar": text}, schema)
    lines = text.splitlines()
    return [(lines[one.line - 1][one.column - 1 :] if one.column else "", one.remedy) for one in caught.value.problems]


@pytest.mark.parametrize(
    ("scope", "condition", "at", "remedy"),
    [
        (HTTP, 'context.path == "/"', 'path == "/" };', "did you mean `context.request.path`?"),
        (HTTP, 'context.request.pth == "/"', 'pth == "/" };', "did you mean `context.request.path`?"),
        (HTTP, 'context["request"]["pth"] == "/"', '"pth"] == "/" };', "did you mean `context.request.path`?"),
        (HTTP, 'context.host == "a"', 'host == "a" };', "did you mean `context.request.host`?"),
        (
            HTTP,
            'context.zzz == "a"',
            'zzz == "a" };',
            'name the actions that have it, `action in Action::"http"` for example',
        ),
        (
            HTTP,
            'context.request.headers.x == "a"',
            'x == "a" };',
            'they are tags: `hasTag("x") && ….getTag("x") == "…"`',
        ),
        (
            HTTP,
            'context.request.headers.getTag("x") == "a"',
            '"x") == "a" };',
            'ask for it first: `….hasTag("x") && …`',
        ),
        (HTTP, 'context.user.issuer == "a"', 'user.issuer == "a" };', "ask for it first: `context has user && …`"),
        (
            HTTP,
            "context.path == context.request.path",
            "path == context.request.path };",
            "did you mean `context.request.path`?",
        ),
        (
            WORKLOAD,
            'principal.namespace == "a"',
            'namespace == "a" };',
            "ask for it first: `principal has namespace && …`",
        ),
        (
            HTTP,
            'principal is Unauthenticated && principal.namespace == "a"',
            'namespace == "a" };',
            "ask for a kind that has it first: `principal is Workload && …`",
        ),
        (
            'principal, action in Action::"http", resource is Host',
            'resource.namespace == "a"',
            'namespace == "a" };',
            "ask for a kind that has it first: `resource is Service && …`",
        ),
        (
            WORKLOAD,
            'principal.account == "a"',
            'account == "a" };',
            'did you mean `service_account`? a label or claim is a tag: `hasTag("account")`',
        ),
        (
            'principal is Worklod, action in Action::"http", resource',
            "true",
            "Worklod, action in",
            "did you mean `Workload`?",
        ),
        (
            'principal, action == Action::"get", resource',
            "true",
            '"get", resource',
            'did you mean `Action::"GET"`? the schema lists the actions; any other method is `Action::"other"`',
        ),
        (
            'principal, action == Action::"PROPFIND", resource',
            "true",
            '"PROPFIND", resource',
            'the schema lists the actions; any other method is `Action::"other"`',
        ),
        (
            HTTP,
            'context.client_ip == ip("1.2.3")',
            '"1.2.3") };',
            'write an address or a range, as in `ip("10.0.0.0/8")`',
        ),
        (
            HTTP,
            'context.time > datetime("2026-13-01")',
            '"2026-13-01") };',
            'write a day or a time, as in `datetime("2026-12-24")` or `datetime("2026-12-24T08:00:00Z")`',
        ),
        (
            HTTP,
            'context.time.toTime() > duration("8 h")',
            '"8 h") };',
            'write it as in `duration("1h30m")`',
        ),
        (HTTP, 'context.request.segments == "2"', '"2" };', "numbers stand without quotes"),
        (HTTP, 'context.request.segments < "2"', '"2" };', "numbers stand without quotes"),
        (
            HTTP,
            'context.request.method == "GET" && context.source.port == "80"',
            '"80" };',
            "numbers stand without quotes",
        ),
        (
            HTTP,
            '"a" == context.request.path && "2" == context.request.segments',
            "",
            "numbers stand without quotes, texts in double quotes",
        ),
        (
            HTTP,
            "context.request.segments > 1 && 2 == context.request.path && 3 == context.request.host",
            "",
            "numbers stand without quotes, texts in double quotes",
        ),
        (WORKLOAD, "principal.hasTag(5)", "", "texts stand in double quotes"),
        (
            HTTP,
            "context.request.path > 5",
            "5 };",
            "texts have no order: compare them with `==` or `like`",
        ),
        (HTTP, 'context.request.path > "5"', "", "texts have no order: compare them with `==` or `like`"),
        (HTTP, "context.request.path == true", "", ""),
        (
            'principal is Unauthenticated, action in Action::"http", resource',
            'principal.hasTag("a") == "true"',
            '"true" };',
            "`true` and `false` stand without quotes",
        ),
        (WORKLOAD, '(context.request.path == "/") == "true"', '"true" };', "`true` and `false` stand without quotes"),
        (
            HTTP,
            'context.request.path == "x" && context.client_ip.isInRange("10.0.0.0/8")',
            "",
            'write `ip("…")`; of a range ask `.isInRange(ip("…"))`',
        ),
        (
            HTTP,
            '["a"].contains(context.request.segments) && context.request.path == "x"',
            "",
            "numbers stand without quotes, texts in double quotes",
        ),
        (HTTP, "context.request.path == 2", "2 };", "texts stand in double quotes"),
        (
            HTTP,
            'context has user && context.user.hasTag("r") && context.user.getTag("r") == "admin"',
            '"admin" };',
            'it is a set of texts: ask `.contains("…")`',
        ),
        (
            HTTP,
            'context.client_ip == "10.0.0.1"',
            '"10.0.0.1" };',
            'write `ip("…")`; of a range ask `.isInRange(ip("…"))`',
        ),
        (
            HTTP,
            'context.client_ip.isInRange("10.0.0.0/8")',
            "",
            'write `ip("…")`; of a range ask `.isInRange(ip("…"))`',
        ),
        (HTTP, 'context.time > "2026"', '"2026" };', 'write it as in `datetime("2026-12-24T08:00:00Z")`'),
        (HTTP, 'context.time.toTime() > "22h"', '"22h" };', 'write it as in `duration("1h30m")`'),
        (HTTP, 'context.request.path.contains("x")', "", 'only sets contain; of a text ask `like "*…*"`'),
        (HTTP, "context.request.path", "", "a condition is true or false: compare it with something"),
        (WORKLOAD, 'principal == "x"', '"x" };', 'write the type too, as in `Workload::"…"`'),
        (
            HTTP,
            'context.request.headers["x-a"] == "1"',
            '"x-a"] == "1" };',
            'they are tags: `hasTag("x-a") && ….getTag("x-a") == "…"`',
        ),
        (HTTP, 'context.request.path = "/"', '= "/" };', "write `==` to compare"),
        (
            'principal, action == "GET", resource',
            "true",
            '"GET", resource',
            'write the type too, as in `Action::"GET"` or `Service::"reviews.default"`',
        ),
    ],
)
def test_the_wrong_word_is_shown_and_what_to_write(
    schema: Schema, scope: str, condition: str, at: str, remedy: str
) -> None:
    ((words, said),) = told(f'@id("a")\npermit ({scope})\nwhen {{ {condition} }};', schema)
    assert (words[: len(at)], said) == (at, remedy)


def test_an_effect_that_is_none_is_shown(schema: Schema) -> None:
    assert told('@id("a") allow (principal, action, resource);', schema) == [
        ("allow (principal, action, resource);", "a policy starts with `permit` or `forbid`")
    ]


def test_a_word_that_stands_twice_is_told_where_it_is_read(schema: Schema) -> None:
    text = f'@id("path") permit ({HTTP}) when {{ "path" == context.request.path && context.path like "*" }};'
    assert told(text, schema) == [('path like "*" };', "did you mean `context.request.path`?")]


SCOPE = "a scope is `principal, action, resource`, in this order, with commas"


@pytest.mark.parametrize(
    ("text", "at", "remedy"),
    [
        (
            '@id("a") permit (principal, action, resource) @id("b") permit (principal, action, resource);',
            '@id("b")',
            "annotations stand before `permit` or `forbid`, behind the `;` of the policy before",
        ),
        (
            '@id("a") permit (principal, action == Action::GET, resource);',
            "GET, resource",
            'put the name in quotes, as in `Action::"GET"`',
        ),
        (
            '@id("a") permit (principal, action, resource == "x");',
            '"x");',
            'write the type too, as in `Action::"GET"` or `Service::"reviews.default"`',
        ),
        ('# why\n@id("a") permit (principal, action, resource);', "# why", "a comment starts with `//`"),
        ("@id('a') permit (principal, action, resource);", "'a')", "texts stand in double quotes"),
        ('@id("a") permit (principal action, resource);', "action, resource", SCOPE),
        ('@id("a") permit (resource, action, principal);', "resource, action", SCOPE),
        ('@id("a") permit (principal, action);', '@id("a")', SCOPE),
        ('@id("a") permit (principal, action, resource) where { true };', "where {", "write `when` or `unless`"),
        ('@id("a") permit (principal, action, resource) when { true and false };', "and false", "write `&&`"),
        (
            '@id("a") permit (principal, action, resource) when { "a".startsWith("b") };',
            'startsWith("b")',
            'compare texts with `==` or `like "/a/*"`, in which `*` stands for any text',
        ),
        (
            f'@id("a") permit ({HTTP}) when {{ context.request.path in ["/a", "/b"] }};',
            "",
            'of several texts write `["a", "b"].contains(…)`; `in` is for entities',
        ),
        (f'@id("a") permit ({HTTP}) when {{ context.request.segments > "3" }};', "", "numbers stand without quotes"),
        (
            '@id("a") permit (principal == User::"x", action in Action::"http", resource);',
            "",
            "who asks is `Workload` or `Unauthenticated`, what is asked for is `Service` or `Host`",
        ),
    ],
)
def test_what_other_languages_have_is_told_in_cedar_s_words(schema: Schema, text: str, at: str, remedy: str) -> None:
    words, said = told(text, schema)[0]
    assert (words[: len(at)], said) == (at, remedy)


def test_no_message_has_names_that_only_cedar_knows(schema: Schema) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_policies({"p": f'@id("a") permit ({HTTP}) when {{ context.request.path in ["/a"] }};'}, schema)
    assert "internal" not in str(caught.value)
    assert "expected Set<an entity>, or an entity but saw Set<String>" in str(caught.value)
