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
DETAILS = "`details-from-productpage` (policies/details.cedar:2)"
CONDITION = '`context.request.path like "/details/*"` is false (context.request.path is "/other")'


def told(text: str, ruling: Ruling) -> tuple[str, str, str]:
    explanation = authorize(text, ruling, NOW).explanation
    return explanation.decision.word, explanation.why, explanation.would


def test_a_permission_names_its_policy_and_place(ruling: Ruling) -> None:
    explanation = authorize("productpage GET http://reviews/reviews/0", ruling, NOW).explanation
    assert explanation.why == "permitted by `reviews-from-productpage` (policies/reviews.cedar:2)"
    assert [reason.policy.id for reason in explanation.reasons] == ["reviews-from-productpage"]
    assert [str(part) for part in explanation.reasons[0].met] == [
        '`context.request.path like "/reviews/*"` is true (context.request.path is "/reviews/0")'
    ]
    assert (explanation.near, explanation.remedies, explanation.proposal) == ((), (), "")


@pytest.mark.parametrize(
    ("text", "why", "would"),
    [
        (
            "reviews GET http://details/details/0",
            "no policy permits `bookinfo-reviews` GET /details/0 on `details`",
            "the caller `bookinfo-productpage` (by `details-from-productpage`)",
        ),
        (
            "productpage GET http://details/other",
            f"{DETAILS} covers this caller, method and service, but {CONDITION}",
            "the path `/details/0` (of `/details/*`) (by `details-from-productpage`)",
        ),
        (
            "productpage DELETE http://details/details/0",
            "no policy permits `bookinfo-productpage` DELETE /details/0 on `details`",
            "`GET` instead of `DELETE` (by `details-from-productpage`)",
        ),
        (
            "anonymous DELETE http://details/details/0",
            "no policy permits `anonymous` DELETE /details/0 on `details`",
            "`GET` instead of `DELETE` and the caller `bookinfo-productpage` (by `details-from-productpage`)",
        ),
        (
            "details GET http://ratings/ratings/0",
            "no policy permits `bookinfo-details` GET /ratings/0 on `ratings`",
            "`bookinfo-details` in Group `ratings-readers` (by `ratings-from-readers`); "
            "or the caller `bookinfo-productpage` (by `ratings-from-readers`)",
        ),
        (
            "ingress POST http://productpage/x",
            "`productpage-from-ingress` (policies/productpage.cedar:2) covers this caller, method and service, but "
            '`action == Action::"GET" || context.request.path == "/login"` is false '
            '(action is POST, context.request.path is "/x")',
            "`GET` instead of `POST` (by `productpage-from-ingress`); "
            "or the path `/login` (by `productpage-from-ingress`)",
        ),
    ],
)
def test_a_denial_says_what_would_have_allowed_it(ruling: Ruling, text: str, why: str, would: str) -> None:
    assert told(text, ruling) == ("deny", why, would)


def test_a_forbid_is_named_and_what_lifts_it(mesh: Mesh, schema: Schema) -> None:
    text = '@id("all") permit (principal, action, resource);\n@id("none") forbid (principal, action, resource);'
    ruling = ruling_of(mesh, schema, {"p.cedar": text})
    would = "`none` taken out (by `all`)"
    assert told("anonymous GET http://reviews/", ruling) == ("deny", "forbidden by `none` (p.cedar:2)", would)


def test_a_forbid_that_failed_is_named(mesh: Mesh, schema: Schema) -> None:
    text = """@id("all") permit (principal, action, resource);
        @id("odd") forbid (principal, action in Action::"http", resource)
        when { context.request.segments * 9223372036854775807 > 0 };"""
    ruling = ruling_of(mesh, schema, {"p.cedar": text})
    word, why, would = told("anonymous GET http://reviews/a/b", ruling)
    assert (word, why) == ("deny", "`odd` (p.cedar:2) failed, and a forbid that fails denies")
    assert would == "`odd` taken out (by `all`)"


def test_without_policies_that_is_why(mesh: Mesh, schema: Schema) -> None:
    ruling = ruling_of(mesh, schema, {})
    why = "there are no policies, and what nothing permits is denied"
    assert told("anonymous GET http://reviews/", ruling) == ("deny", why, "")


def test_a_policy_is_proposed_that_allows_just_this(mesh: Mesh, schema: Schema, ruling: Ruling) -> None:
    proposal = authorize("reviews GET http://details/details/0", ruling, NOW).explanation.proposal
    alone = ruling_of(mesh, schema, {"p.cedar": proposal})

    assert proposal.startswith('@id("details-from-bookinfo-reviews")\npermit (\n')
    assert told("reviews GET http://details/details/0", alone)[0] == "allow"
    for other in ("reviews GET http://details/details/1", "reviews POST http://details/details/0"):
        assert told(other, alone)[0] == "deny"


def test_who_is_not_asked_who_they_are_is_told(ruling: Ruling) -> None:
    note = "`ingress` verifies no callers, so everybody is anonymous to it"
    assert authorize("reviews GET http://ingress/x", ruling, NOW).notes == (note,)
    assert authorize("anonymous GET http://ingress/x", ruling, NOW).notes == ()


def test_what_cannot_be_asked_is_an_error(ruling: Ruling) -> None:
    with pytest.raises(InvalidInput):
        authorize("nobody GET http://reviews/", ruling, NOW)
    with pytest.raises(UnacceptablePath):
        authorize("productpage GET http://reviews/a/../b", ruling, NOW)
