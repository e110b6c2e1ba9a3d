"""What policies read: leaving out the rest never changes a decision."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.cedar.engine import Engine
from policyd.cedar.model import ANONYMOUS, Request
from policyd.cedar.policies import PolicySet, load_policies
from policyd.cedar.schema import Schema
from tests.cedar.oracle import Oracle
from tests.cedar.requests import PAGE_UID, http_request

HEADERS = ("end-user", "x-a", "x-b")
CONDITIONS = (
    'context.request.path like "/reviews/*"',
    "context.request.segments == 2",
    'context.request.headers.hasTag("end-user")',
    'context.request.headers.hasTag("x-a") && context.request.headers.getTag("x-a") == "1"',
    '(if context.request.method == "GET" then context.request else context.request).headers.hasTag("x-b")',
    '{labels: context.request.headers}.labels.hasTag("x-a")',
    'context.destination.labels.hasTag("version") && context.destination.labels.getTag("version") == "v1"',
    "context.destination.labels.hasTag(context.request.host)",
    "context has user",
    'context has user && context.user.issuer == "x"',
    "context.source.ip.isLoopback()",
    "context.source == context.source",
    "context.client_ip == context.source.ip",
    'context.time > datetime("2020-01-01T00:00:00Z")',
    'principal in Group::"g"',
    'principal in [Group::"g", Group::"i"]',
    "principal in resource",
    'principal is Workload && principal in Namespace::"default"',
    'principal is Workload in TrustDomain::"cluster.local"',
    'principal is Workload && principal has namespace && principal.namespace == "default"',
    'principal is Workload && resource is Service && principal.hasTag("team") && resource.hasTag("team") && '
    'principal.getTag("team") == resource.getTag("team")',
    "principal is Workload && principal.hasTag(context.request.host)",
    'Action::"GET" in Action::"read"',
    'action in [Action::"write"]',
    'resource is Service && resource.name == "reviews"',
)

_tags = st.dictionaries(st.sampled_from(["team", "version", "reviews"]), st.sampled_from(["v1", "b"]))
_requests = st.builds(
    http_request,
    principal=st.sampled_from([PAGE_UID, ANONYMOUS]),
    method=st.sampled_from(["GET", "PUT", "other"]),
    service=st.sampled_from(["reviews", "ratings"]),
    path=st.sampled_from(["/reviews/0", "/x"]),
    headers=st.dictionaries(st.sampled_from(HEADERS), st.sampled_from(["1", "2"])),
    labels=_tags,
    groups=st.sampled_from([(), ("g",), ("h",)]),
    tags=_tags,
)
_policies = st.lists(
    st.tuples(st.sampled_from(["permit", "forbid"]), st.sampled_from(CONDITIONS), st.booleans()), max_size=4
)


def text_of(policies: list[tuple[str, str, bool]]) -> str:
    return "\n".join(
        f'@id("p{number}") {effect} (principal, action in Action::"http", resource) '
        f"{'when' if when else 'unless'} {{ {condition} }};"
        for number, (effect, condition, when) in enumerate(policies)
    )


@given(_policies, _requests)
def test_a_decision_on_what_is_read_is_the_decision_on_all(
    schema: Schema, policies: list[tuple[str, str, bool]], request_: Request
) -> None:
    policy_set = load_policies({"p": text_of(policies)}, schema)
    assert Engine(policy_set, schema).decide(request_) == Oracle(policy_set, schema).decide(request_)


@pytest.mark.parametrize(
    ("condition", "context"),
    [
        ('context.request.path == "/"', {"request": {"path": None}}),
        ("context has user", {"user": None}),
        ("context.source.ip.isLoopback()", {"source": {"ip": None}}),
        ("context.source == context.source", {"source": None}),
        ("context.source == context.source && context.source.port == 1", {"source": None}),
        ("context == context", None),
    ],
)
def test_the_context_is_read_by_paths(schema: Schema, condition: str, context: object) -> None:
    text = f'@id("p") permit (principal, action in Action::"http", resource) when {{ {condition} }};'
    assert load_policies({"p": text}, schema).reads.context == context


def test_a_tag_without_a_name_is_a_tag(schema: Schema) -> None:
    text = '@id("p") permit (principal is Workload, action, resource) when { principal.hasTag("") };'
    assert load_policies({"p": text}, schema).reads.tags == {""}


def test_only_what_is_read_is_left(bookinfo: PolicySet, schema: Schema) -> None:
    request = http_request(headers={"end-user": "jason"}, labels={"version": "v1"})
    assert Engine(bookinfo, schema).question(request).request == replace(
        request, context={"request": {"path": "/reviews/0"}}, entities=request.entities[:2]
    )


def test_what_only_others_read_is_left_out(schema: Schema) -> None:
    text = """@id("a") permit (principal, action == Action::"GET", resource) when { context.request.path == "/" };
        @id("b") permit (principal, action == Action::"PUT", resource) when { context.request.host == "x" };"""
    engine = Engine(load_policies({"p": text}, schema), schema)
    assert engine.question(http_request()).request.context == {"request": {"path": "/reviews/0"}}
    assert engine.question(http_request(method="PUT")).request.context == {"request": {"host": "reviews"}}
    assert engine.question(http_request(method="POST")).request.context == {}


def test_a_projection_of_a_projection_is_itself(bookinfo: PolicySet, schema: Schema) -> None:
    engine = Engine(bookinfo, schema)
    once = engine.question(http_request()).request
    assert engine.question(once).request == once
