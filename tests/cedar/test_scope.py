"""Scopes decide as Cedar's own evaluation does."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from policyd.cedar.engine import Engine
from policyd.cedar.model import ANONYMOUS, Entity, Request, Uid
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema
from policyd.cedar.scope import Scopes
from tests.cedar.requests import http_request

_principals = st.sampled_from(
    [
        "principal",
        'principal == Workload::"a"',
        "principal is Workload",
        "principal is Unauthenticated",
        'principal in Group::"g"',
        'principal in Namespace::"n"',
        'principal is Workload in Group::"g"',
        'principal in Workload::"a"',
    ]
)
_actions = st.sampled_from(
    [
        "action",
        'action == Action::"GET"',
        'action in Action::"read"',
        'action in [Action::"write", Action::"GET"]',
        'action in Action::"http"',
    ]
)
_resources = st.sampled_from(
    [
        "resource",
        'resource == Service::"s"',
        "resource is Service",
        'resource in Namespace::"n"',
        'resource in Group::"g"',
    ]
)
_above = st.lists(st.sampled_from([Uid("Group", "g"), Uid("Namespace", "n")]), unique=True)


@st.composite
def _requests(draw: st.DrawFn) -> Request:
    base = http_request()
    principal = draw(st.sampled_from([Uid("Workload", "a"), Uid("Workload", "b"), ANONYMOUS]))
    resource = Uid("Service", draw(st.sampled_from(["s", "t"])))
    above = draw(_above) if principal.type == "Workload" else []
    return replace(
        base,
        principal=principal,
        action=Uid("Action", draw(st.sampled_from(["GET", "PUT", "other"]))),
        resource=resource,
        entities=(
            Entity(principal, parents=above),
            Entity(resource, parents=draw(_above)),
            *base.entities[2:],
        ),
    )


@given(_principals, _actions, _resources, _requests())
def test_a_scope_holds_what_cedar_says_it_holds(
    schema: Schema, principal: str, action: str, resource: str, request_: Request
) -> None:
    policies = load_policies({"p": f'@id("p") permit ({principal}, {action}, {resource});'}, schema)
    allowed = Engine(policies, schema).decide(request_).allowed
    assert all(Scopes(request_, schema).match(policies.policies[0].tree)) == allowed
