"""Whatever a condition names, and however: the answer is that of Cedar asked plainly about all that the mesh has."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest

from policyd.authz.record import read_of
from policyd.authz.ruling import Ruling, make_ruling
from policyd.cedar.http import Endpoint, EndUser, HttpFacts
from policyd.cedar.model import Request
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema
from policyd.mesh.model import Group, Mesh
from policyd.spiffe import SpiffeId
from tests.authz.checks import PAGE, REVIEWS
from tests.cedar.oracle import Oracle

STRANGER: Final = SpiffeId.parse("spiffe://cluster.local/ns/x/sa/y")
ALICE: Final = EndUser("https://a", "alice", {"roles": ("editor",)})
BOB: Final = EndUser("https://a", "bob")

FACTS: Final = HttpFacts(
    principal=PAGE,
    service="reviews.default",
    method="GET",
    target="/a",
    host="reviews",
    time=datetime(2026, 11, 23, 12, tzinfo=UTC),
    source=Endpoint("10.0.0.1", 40000),
    destination=Endpoint("10.0.0.2", 9080),
    instance="reviews-v1",
)
ASKED: Final = (
    FACTS,
    FACTS._replace(principal=None, method="PUT", target="/a/b", headers={"x-a": "1"}, user=ALICE),
    FACTS._replace(principal=REVIEWS, method="FOO", headers={"x-a": "2", "x-b": "9"}, instance="", user=BOB),
    FACTS._replace(principal=STRANGER, service="ratings.default", method="DELETE", user=ALICE),
    FACTS._replace(service="", outside="api.example.com"),
)

CONDITIONS: Final = (
    # what is read by detours
    '(if context.request.segments > 1 then context.request else context.request).path == "/a"',
    '{r: context}.r.request.path == "/a"',
    'context["request"]["path"] == "/a"',
    "[context.source.ip].contains(context.client_ip)",
    "context == context && context.destination == context.destination",
    "context.source.port > 9223372036854775807 - context.source.port",
    'principal is Workload && (if true then principal else principal).hasTag("app")',
    'principal is Workload && principal has service_account && principal["service_account"] like "book*"',
    'principal in (if context.request.segments > 1 then Group::"outer" else Group::"other")',
    '(if context.request.segments > 1 then Action::"GET" else Action::"PUT") in Action::"read"',
    '(if true then context.request.headers else context.request.headers).hasTag("x-a")',
    '{l: context.destination.labels}.l.hasTag("version")',
    'context has user.subject && {u: context.user}.u in Group::"outer"',
    'context has user && context.user.hasTag("roles") && context.user.getTag("roles").contains("editor")',
    'context has user && [context.user].contains(User::"https://a/alice")',
    # what is named
    f'Workload::"{PAGE}" in Group::"outer" && Workload::"{PAGE}" has namespace',
    f'Workload::"{STRANGER}" in Namespace::"x" && Workload::"{STRANGER}".path == "/ns/x/sa/y"',
    'Group::"inner" in Group::"outer"',
    'Group::"other" in Group::"outer"',
    'User::"https://a/alice" in Group::"outer"',
    'User::"https://a/alice".hasTag("roles")',
    'User::"https://a/bob".issuer == "https://a"',
    'Service::"reviews.default" in Group::"outer" && Service::"reviews.default".name == "reviews"',
    'Service::"none.default" in Group::"outer" || Service::"none.default".hasTag("x")',
    'Service::"none.default".name == "none"',
    'Host::"api.example.com" in Group::"outer" && Host::"api.example.com".name like "api*"',
    'Labels::"reviews-v1".hasTag("version")',
    'Headers::"request".hasTag("x-a")',
    'Action::"GET" in Action::"http"',
)  # fmt: skip


def grouped(mesh: Mesh) -> Mesh:
    """With groups that have members of every kind."""
    inner = Group(
        "inner",
        workloads=frozenset({PAGE}),
        users=frozenset({ALICE.id}),
        hosts=frozenset({"api.example.com"}),
        services=frozenset({"reviews.default"}),
    )
    outer = Group("outer", groups=frozenset({"inner"}))
    other = Group("other", workloads=frozenset({REVIEWS}))
    return replace(mesh, groups={one.name: one for one in (inner, outer, other)})


def whole(ruling: Ruling, facts: HttpFacts) -> Request:
    """A request with all that the mesh has."""
    asked = ruling.request(facts)
    entities = {one.uid: one for one in (*ruling.entities.content(), *asked.entities)}
    return replace(asked, entities=tuple(entities.values()))


@pytest.mark.parametrize("effect", ["permit", "forbid"])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_answer_is_cedars(mesh: Mesh, schema: Schema, condition: str, effect: str) -> None:
    text = (
        '@id("all") permit (principal, action, resource);\n'
        f'@id("one") {effect} (principal, action in Action::"http", resource) when {{ {condition} }};'
    )
    policies = load_policies({"p.cedar": text}, schema)
    ruling, plainly = make_ruling(grouped(mesh), policies, schema), Oracle(policies, schema)
    for facts in ASKED:
        decision, expected = ruling.decide(ruling.lean_request(facts)), plainly.decide(whole(ruling, facts))
        failed = [[error.policy for error in one.errors] for one in (decision, expected)]
        assert (decision.allowed, decision.reasons, failed[0]) == (expected.allowed, expected.reasons, failed[1]), facts


def test_the_user_of_a_record_is_the_requests_own_whoever_else_is_named(mesh: Mesh, schema: Schema) -> None:
    condition = 'context has user && User::"https://a/alice" in Group::"outer" && context.user.issuer == "https://a"'
    text = f'@id("one") permit (principal, action in Action::"http", resource) when {{ {condition} }};'
    ruling = make_ruling(grouped(mesh), load_policies({"p.cedar": text}, schema), schema)
    question = ruling.engine.question(ruling.lean_request(FACTS._replace(user=BOB)))
    assert ruling.engine.answer(question).allowed
    user = {"__entity": {"type": "User", "id": BOB.id}, "issuer": BOB.issuer}
    assert read_of(question.request)["user"] == user
