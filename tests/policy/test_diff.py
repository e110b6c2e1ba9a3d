"""What two rulings decide differently, and that nothing is passed over."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.authz.ruling import Ruling
from policyd.cedar.schema import Schema
from policyd.mesh.model import Mesh
from policyd.policy.authorize import authorize
from policyd.policy.diff import compare
from policyd.policy.diff_model import Difference, Side
from policyd.policy.request_form import parse_form
from policyd.policy.resolving import resolve_form
from tests.authz.checks import RATINGS, ruling_of
from tests.policy.authored import POLICIES, files_of, text_of

NOW = datetime(2026, 12, 25, 12, tzinfo=UTC)
GET_RATINGS = 'permit (principal, action == Action::"GET", resource == Service::"ratings.default")'


def with_policy(text: str, mesh: Mesh, schema: Schema) -> Ruling:
    return ruling_of(mesh, schema, {"p.cedar": f'@id("p") {text};'})


def changes(found: Difference) -> set[tuple[str, str, str, str]]:
    """Change, account, method, service of every combination."""
    return {
        (one.change, one.caller.rpartition("bookinfo-")[2].rstrip('"'), one.method, one.service)
        for one in found.combinations
    }


def test_the_same_is_the_same_whatever_it_is_called(mesh: Mesh, schema: Schema, ruling: Ruling) -> None:
    renamed = {"all.cedar": "\n".join(p.text.replace("-from-", "-for-") for p in ruling.policy_set.policies)}
    found = compare(ruling, ruling_of(mesh, schema, renamed))
    assert (found.combinations, found.requests, found.untried, found.differs) == ((), 0, 0, False)
    assert found.total == (4 * 6 + 1) * 8  # at the ingress all are anonymous


@pytest.mark.parametrize(
    ("old", "new", "change", "tried"),
    [
        (
            f'{GET_RATINGS} when {{ context.request.path like "/a/*" }}', GET_RATINGS, "condition changed",
            [("/", "deny", "allow"), ("/a/0", "allow", "allow")],
        ),
        (
            f'{GET_RATINGS} when {{ context.request.path like "/a/*" }}',
            f'{GET_RATINGS} when {{ context.request.path like "/b/*" }}', "condition changed",
            [("/", "deny", "deny"), ("/a/0", "allow", "deny"), ("/b/0", "deny", "allow")],
        ),
        (
            f'{GET_RATINGS} when {{ context.request.headers.hasTag("x") }}', GET_RATINGS, "condition changed",
            [("/", "deny", "allow"), ("/, header x: 0", "allow", "allow"), ("/, no header x", "deny", "allow")],
        ),
        (
            f'{GET_RATINGS} when {{ context.request.path == "/a" }}',
            f'{GET_RATINGS} when {{ ["/a"].contains(context.request.path) }}', "no difference found",
            [("/", "deny", "deny"), ("/a", "allow", "allow")],
        ),
    ],
)  # fmt: skip
def test_conditions_are_compared_by_the_requests_they_ask_for(
    mesh: Mesh, schema: Schema, old: str, new: str, change: str, tried: list[tuple[str, str, str]]
) -> None:
    found = compare(with_policy(old, mesh, schema), with_policy(new, mesh, schema))
    assert {(kind, method, service) for kind, _, method, service in changes(found)} == {
        (change, "GET", "ratings.default")
    }
    assert len(found.combinations) == 6
    assert [(one.request, one.old.word, one.new.word) for one in found.combinations[0].tried] == tried
    assert found.differs is (change != "no difference found")


def test_a_permit_more_and_a_permit_less(mesh: Mesh, schema: Schema, ruling: Ruling) -> None:
    without = [one.text for one in ruling.policy_set.policies if one.id != "reviews-from-productpage"]
    less = ruling_of(mesh, schema, {"p.cedar": "\n".join(without)})

    assert changes(compare(ruling, less)) == {("newly denied", "productpage", "GET", "reviews.default")}
    assert changes(compare(less, ruling)) == {("newly allowed", "productpage", "GET", "reviews.default")}
    (combination,) = compare(less, ruling).combinations
    assert [(one.request, one.old, one.new) for one in combination.tried if one.differs] == [
        ("/reviews/0", Side("deny"), Side("allow", ("reviews-from-productpage",)))
    ]


def test_a_group_that_grows_is_a_difference(mesh: Mesh, schema: Schema, ruling: Ruling) -> None:
    readers = mesh.groups["ratings-readers"]
    grown = replace(
        mesh, groups={**mesh.groups, readers.name: replace(readers, workloads=readers.workloads | {RATINGS})}
    )
    found = compare(ruling, ruling_of(grown, schema, {p.file: p.text for p in ruling.policy_set.policies}))

    assert changes(found) == {("newly allowed", "ratings", "GET", "ratings.default")}
    assert found.policies == ()


def test_a_service_that_is_gone_answers_nobody(mesh: Mesh, schema: Schema, ruling: Ruling) -> None:
    left = {id_: one for id_, one in mesh.services.items() if id_ != "reviews.default"}
    instances = {name: one for name, one in mesh.instances.items() if one.service != "reviews.default"}
    listeners = {name: one for name, one in mesh.listeners.items() if one.service != "reviews.default"}
    smaller = replace(mesh, services=left, instances=instances, listeners=listeners)
    found = compare(ruling, ruling_of(smaller, schema, {p.file: p.text for p in ruling.policy_set.policies}))

    assert found.only_old == ("reviews.default",)
    assert ("newly denied", "productpage", "GET", "reviews.default") in changes(found)
    assert all(one.new.word == "none" for two in found.combinations for one in two.tried)


def test_cases_are_tried_too(mesh: Mesh, schema: Schema) -> None:
    old = with_policy(f'{GET_RATINGS} when {{ context.request.path like "/a*z" }}', mesh, schema)
    new = with_policy(f'{GET_RATINGS} when {{ context.request.path like "/a*" }}', mesh, schema)
    case = resolve_form(parse_form("reviews GET http://ratings/abc"), mesh, NOW)
    found = compare(old, new, [case])
    tried = {one.caller: [two.request for two in one.tried] for one in found.combinations}

    assert f"/abc, time {NOW.isoformat()}" in tried[f'Workload::"{case.principal}"']
    assert tried['Unauthenticated::"anonymous"'] == ["/", "/a0z", "/a0"]


def test_policies_that_differ_are_listed(mesh: Mesh, schema: Schema) -> None:
    old = ruling_of(mesh, schema, files_of("readers", "canary", "freeze"))
    new = ruling_of(
        mesh, schema, {"all.cedar": text_of("readers"), "b.cedar": text_of("canary").replace("jason", "eve")}
    )
    found = [(one.old and one.old.id, one.new and one.new.id) for one in compare(old, new).policies]
    assert found == [("canary", "canary"), ("freeze", None)]


NAMES = st.frozensets(st.sampled_from(sorted(POLICIES)))


@settings(max_examples=60, deadline=None)
@given(
    old=NAMES,
    new=NAMES,
    method=st.sampled_from(("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")),
    url=st.sampled_from(("http://reviews/health", "http://ratings/ratings/0", "http://details/", "http://ingress/a")),
    headers=st.dictionaries(st.sampled_from(("end-user", "x-debug")), st.sampled_from(("jason", "1"))),
)
def test_what_is_not_listed_is_answered_alike(
    mesh: Mesh, schema: Schema, old: frozenset[str], new: frozenset[str], method: str, url: str, headers: dict[str, str]
) -> None:
    first = ruling_of(mesh, schema, files_of(*old) if old else {})
    second = ruling_of(mesh, schema, files_of(*new) if new else {})
    listed = {(one.caller, one.method, one.service) for one in compare(first, second).combinations}
    for caller in ("anonymous", "productpage", "reviews", "ingress"):
        before = authorize(f"{caller} {method} {url}", first, NOW, headers)
        asked = (str(before.request.principal), before.request.action.id, before.request.resource.id)
        if asked not in listed:
            assert second.decide(before.request).allowed is before.decision.allowed
