"""One request decided offline, and why."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from policyd.authz.ruling import Ruling
from policyd.cedar.schema import Schema
from policyd.errors import InvalidInput, UnacceptablePath
from policyd.mesh.model import Mesh
from policyd.policy.authorize import authorize
from tests.authz.checks import ruling_of

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def told(text: str, ruling: Ruling) -> tuple[str, str, list[str]]:
    answer = authorize(text, ruling, NOW)
    return answer.decision.word, answer.why, [str(near) for near in answer.near]


def test_a_permission_names_its_policy_and_place(ruling: Ruling) -> None:
    answer = authorize("productpage GET http://reviews/reviews/0", ruling, NOW)
    assert answer.why == "permitted by `reviews-from-productpage` (policies/reviews.cedar:2)"
    assert [policy.id for policy in answer.reasons] == ["reviews-from-productpage"]
    assert answer.near == ()


DETAILS = "`details-from-productpage` (policies/details.cedar:2)"
PAGE = 'Workload::"spiffe://cluster.local/ns/default/sa/bookinfo-productpage"'
REVIEWS = 'Workload::"spiffe://cluster.local/ns/default/sa/bookinfo-reviews"'


@pytest.mark.parametrize(
    ("text", "why", "near"),
    [
        (
            "reviews GET http://details/details/0",
            f'no policy permits {REVIEWS} Action::"GET" on Service::"details.default"',
            [f"{DETAILS} is for another caller"],
        ),
        (
            "productpage GET http://details/other",
            f'no policy permits {PAGE} Action::"GET" on Service::"details.default"',
            [f"{DETAILS} covers this caller, method and service, but its condition is not met"],
        ),
        (
            "productpage DELETE http://details/details/0",
            f'no policy permits {PAGE} Action::"DELETE" on Service::"details.default"',
            [f"{DETAILS} is for another method"],
        ),
        (
            "anonymous DELETE http://details/details/0",
            'no policy permits Unauthenticated::"anonymous" Action::"DELETE" on Service::"details.default"',
            [f"{DETAILS} is for another caller and another method"],
        ),
    ],
)
def test_a_denial_says_what_would_have_allowed_it(ruling: Ruling, text: str, why: str, near: list[str]) -> None:
    assert told(text, ruling) == ("deny", why, near)


def test_a_forbid_is_named(mesh: Mesh, schema: Schema) -> None:
    text = '@id("all") permit (principal, action, resource);\n@id("none") forbid (principal, action, resource);'
    ruling = ruling_of(mesh, schema, {"p.cedar": text})
    assert told("anonymous GET http://reviews/", ruling) == ("deny", "forbidden by `none` (p.cedar:2)", [])


def test_a_forbid_that_failed_is_named(mesh: Mesh, schema: Schema) -> None:
    text = """@id("all") permit (principal, action, resource);
        @id("odd") forbid (principal, action in Action::"http", resource)
        when { context.request.segments * 9223372036854775807 > 0 };"""
    ruling = ruling_of(mesh, schema, {"p.cedar": text})
    word, why, _ = told("anonymous GET http://reviews/a/b", ruling)
    assert (word, why) == ("deny", "`odd` (p.cedar:2) failed, and a forbid that fails denies")


def test_without_policies_that_is_why(mesh: Mesh, schema: Schema) -> None:
    ruling = ruling_of(mesh, schema, {})
    why = "there are no policies, and what nothing permits is denied"
    assert told("anonymous GET http://reviews/", ruling) == ("deny", why, [])


def test_what_cannot_be_asked_is_an_error(ruling: Ruling) -> None:
    with pytest.raises(InvalidInput):
        authorize("nobody GET http://reviews/", ruling, NOW)
    with pytest.raises(UnacceptablePath):
        authorize("productpage GET http://reviews/a/../b", ruling, NOW)
