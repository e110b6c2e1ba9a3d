"""The permits that come nearest, and what exactly keeps each from applying."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.authz.ruling import Ruling
from policyd.cedar.schema import Schema
from policyd.mesh.model import Mesh
from policyd.policy.authorize import authorize
from policyd.policy.nearest import ClauseMiss, conditions_failed, near_misses
from tests.authz.checks import ruling_of
from tests.policy.authored import POLICIES, files_of

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def misses(ruling: Ruling, text: str, headers: dict[str, str] | None = None) -> list[str]:
    request = authorize(text, ruling, NOW, headers).request
    return [str(miss) for miss in near_misses(ruling.policy_set.policies, request, ruling.schema)]


@pytest.mark.parametrize(
    ("policies", "text", "told"),
    [
        (
            "canary", "productpage GET http://reviews/x",
            ["covers this caller, method and service, but "
             '`context.request.headers.hasTag("end-user")` is false (context.request.headers["end-user"] is absent)'],
        ),
        ("canary", "details GET http://reviews/x",
            ["is for another caller, and "
             '`context.request.headers.hasTag("end-user")` is false (context.request.headers["end-user"] is absent)'],
        ),
        ("canary", "details GET http://ratings/x", []),
        ("office", "anonymous GET http://details/x",
            ["is for another caller and another method, and "
             '`context.client_ip.isInRange(ip("203.0.113.0/24"))` is false (context.client_ip is 127.0.0.1)'],
        ),
        ("accounts", "details PATCH http://details/",
            ["covers this caller, method and service, but "
             '`principal.service_account like "*-reviews"` is false (principal.service_account is "bookinfo-details")'],
        ),
        ("accounts", "anonymous PATCH http://details/",
            ["covers this caller, method and service, but "
             "`principal is Workload` is false (principal is anonymous) and "
             "`principal has service_account` is false (principal.service_account is absent)"],
        ),
        ("world", "anonymous GET http://ingress/admin",
            ["covers this caller, method and service, but "
             'the exception `context.request.path like "/admin*"` is true (context.request.path is "/admin")'],
        ),
        ("overflow", "reviews OPTIONS http://ratings/a/b",
            ["covers this caller, method and service, but "
             "`context.request.segments * 9223372036854775807 > 0` is an error, integer overflow while attempting to "
             "multiply the values `2` and `9223372036854775807` (context.request.segments is 2)"],
        ),
        ("readers freeze", "reviews POST http://ratings/ratings/0", ["is for another method"]),
    ],
)  # fmt: skip
def test_what_is_missing_is_told(mesh: Mesh, schema: Schema, policies: str, text: str, told: list[str]) -> None:
    ruling = ruling_of(mesh, schema, files_of(*policies.split()))
    name = policies.split(maxsplit=1)[0]
    assert misses(ruling, text) == [f"`{name}` ({name}.cedar:1) {one}" for one in told]


def test_what_stands_behind_a_failure_is_not_blamed(mesh: Mesh, schema: Schema) -> None:
    ruling = ruling_of(mesh, schema, files_of("canary"))
    request = authorize("productpage GET http://reviews/x", ruling, NOW).request
    (failed,) = conditions_failed(ruling.policy_set.policies, request, schema)

    assert [(one.line, one.got) for one in failed] == [(5, "false"), (5, "not reached")]


def test_the_scope_says_what_it_wants_and_what_there_is(ruling: Ruling) -> None:
    request = authorize("reviews DELETE http://ratings/ratings/0", ruling, NOW).request
    (miss,) = near_misses(ruling.policy_set.policies, request, ruling.schema)
    assert [(one.part, one.wants, one.has) for one in miss.scope] == [("action", '== Action::"GET"', "DELETE")]

    request = authorize("details GET http://ratings/ratings/0", ruling, NOW).request
    (miss,) = near_misses(ruling.policy_set.policies, request, ruling.schema)
    assert [(one.part, one.wants, one.has) for one in miss.scope] == [
        ("principal", 'in Group::"ratings-readers"', "bookinfo-details")
    ]


@given(
    names=st.frozensets(st.sampled_from(sorted(POLICIES)), min_size=1),
    caller=st.sampled_from(("anonymous", "productpage", "reviews", "details")),
    method=st.sampled_from(("GET", "POST", "PATCH", "DELETE", "OPTIONS")),
    url=st.sampled_from(("http://reviews/health", "http://ratings/ratings/0", "http://details/", "http://ingress/a")),
)
def test_a_permit_comes_near_only_if_it_does_not_apply(
    mesh: Mesh, schema: Schema, names: frozenset[str], caller: str, method: str, url: str
) -> None:
    ruling = ruling_of(mesh, schema, files_of(*names))
    request = authorize(f"{caller} {method} {url}", ruling, NOW).request
    near = {miss.policy.id for miss in near_misses(ruling.policy_set.policies, request, schema)}
    permits = [one for one in ruling.policy_set.policies if one.effect == "permit"]
    for policy in permits:
        alone = ruling_of(mesh, schema, {policy.file: policy.text})
        assert not (alone.decide(request).allowed and policy.id in near)


def test_the_text_of_a_condition_is_its_own(mesh: Mesh, schema: Schema) -> None:
    text = """@id("p") permit (principal, action in Action::"http", resource)
        when {
          context.request.path   == "/a  b" // never
            && (context.request.segments == 1 || context.request.host == "x")
        };"""
    ruling = ruling_of(mesh, schema, {"p.cedar": text})
    request = authorize("reviews GET http://details/y/z", ruling, NOW).request
    (failed,) = conditions_failed(ruling.policy_set.policies, request, schema)

    assert [(one.line, one.text) for one in failed] == [
        (3, 'context.request.path == "/a  b"'),
        (4, '(context.request.segments == 1 || context.request.host == "x")'),
    ]
    assert all(isinstance(one, ClauseMiss) and one.got == "false" for one in failed)
