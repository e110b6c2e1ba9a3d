"""What a decision depends on, and that the revision stands for exactly that."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from policyd.authz.ruling import Ruling
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.cedar.model import Decision, Entity, Request, Uid
from policyd.cedar.schema import Schema
from policyd.errors import IncompleteRequest, UnacceptablePath
from policyd.mesh.model import Group, Mesh
from policyd.sources.files import Folder
from tests.authz.checks import PAGE, RATINGS, ruling_of

FACTS = HttpFacts(
    principal=PAGE,
    service="reviews.default",
    method="GET",
    target="/reviews/%30?x=1",
    host="reviews",
    time=datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC),
    source=Endpoint("10.0.0.1", 41000),
    destination=Endpoint("::1", 9080),
    instance="reviews-v1",
    headers={"end-user": "jason"},
)


def test_facts_become_the_schemas_question(ruling: Ruling) -> None:
    service = ruling.entities.service("reviews.default")
    assert service is not None
    assert ruling.request(FACTS) == Request(
        principal=Uid("Workload", str(PAGE)),
        action=Uid("Action", "GET"),
        resource=Uid("Service", "reviews.default"),
        context={
            "request": {
                "method": "GET",
                "host": "reviews",
                "path": "/reviews/0",
                "segments": 2,
                "headers": {"__entity": {"type": "Headers", "id": "request"}},
            },
            "source": {"ip": {"__extn": {"fn": "ip", "arg": "10.0.0.1"}}, "port": 41000},
            "client_ip": {"__extn": {"fn": "ip", "arg": "10.0.0.1"}},
            "destination": {
                "ip": {"__extn": {"fn": "ip", "arg": "::1"}},
                "port": 9080,
                "labels": {"__entity": {"type": "Labels", "id": "reviews-v1"}},
            },
            "time": {"__extn": {"fn": "datetime", "arg": "2026-11-23T12:00:00.123Z"}},
        },
        entities=(
            ruling.entities.principal(PAGE),
            service,
            Entity(Uid("Headers", "request"), tags={"end-user": "jason"}),
            Entity(Uid("Labels", "reviews-v1"), tags={"app": "reviews", "version": "v1"}),
        ),
    )


def test_the_schema_accepts_every_part_of_the_question(mesh: Mesh, schema: Schema) -> None:
    """A policy that reads all of the context, under strict validation, evaluates without an error."""
    text = """@id("all") permit (principal, action in Action::"http", resource) when {
        context.request.method == "GET" && context.request.host == "reviews" && context.request.path == "/reviews/0" &&
        context.request.segments == 2 && context.request.headers.hasTag("end-user") &&
        context.source.ip.isInRange(ip("10.0.0.0/8")) && context.source.port == 41000 &&
        context.client_ip == context.source.ip && context.destination.ip.isLoopback() &&
        context.destination.port == 9080 && context.destination.labels.getTag("version") == "v1" &&
        context.time == datetime("2026-11-23T12:00:00.123Z") && !(context has user) && principal has namespace &&
        principal.namespace == "default" && resource.name == "reviews" && principal in Namespace::"default" &&
        principal in TrustDomain::"cluster.local" && resource in Namespace::"default" };""".replace(
        "context.destination.labels.getTag",
        'context.destination.labels.hasTag("version") && context.destination.labels.getTag',
    )
    text = text.replace("principal has", "principal is Workload && principal has").replace(
        "resource.name", "resource is Service && resource.name"
    )
    ruling = ruling_of(mesh, schema, {"all.cedar": text})
    assert ruling.decide(ruling.request(FACTS)) == Decision(True, ("all",))


def test_what_a_condition_names_is_supplied(mesh: Mesh, schema: Schema) -> None:
    text = """@id("name") permit (principal, action, resource)
        when { Service::"ratings.default".name == "ratings" && Service::"ratings.default" in Namespace::"default" };
        @id("unknown") permit (principal, action, resource) when { Service::"none.default".name == "none" };"""
    ruling = ruling_of(mesh, schema, {"named.cedar": text})
    decision = ruling.decide(ruling.request(FACTS))
    assert (decision.allowed, decision.reasons) == (True, ("name",))
    assert [error.policy for error in decision.errors] == ["unknown"]


@pytest.mark.parametrize(
    ("method", "action"),
    [
        ("GET", "GET"),
        ("DELETE", "DELETE"),
        ("get", "other"),
        ("PROPFIND", "other"),
        ("read", "other"),
        ("http", "other"),
    ],
)
def test_a_method_that_the_schema_lacks_is_other(ruling: Ruling, method: str, action: str) -> None:
    assert ruling.request(FACTS._replace(method=method)).action == Uid("Action", action)


def test_no_policy_is_a_deny(mesh: Mesh, schema: Schema) -> None:
    ruling = ruling_of(mesh, schema, {})
    assert ruling.decide(ruling.request(FACTS)) == Decision(False)


def test_what_cannot_be_asked_is_refused(ruling: Ruling) -> None:
    with pytest.raises(UnacceptablePath):
        ruling.request(FACTS._replace(target="/a/../b"))
    with pytest.raises(IncompleteRequest):
        ruling.request(FACTS._replace(service="nobody.default"))


def test_the_revision_is_of_the_content(folder: Folder, mesh: Mesh, schema: Schema, ruling: Ruling) -> None:
    policies = folder.below("policies")
    renamed = {f"x/{name}": f"// a comment\n{text}" for name, text in policies.items()}
    assert ruling_of(mesh, schema, renamed).revision == ruling.revision
    others = [
        ruling_of(mesh, schema, {}),
        ruling_of(replace(mesh, groups={}), schema, policies),
        ruling_of(replace(mesh, trust_domain="example.org"), schema, policies),
        ruling_of(replace(mesh, workloads={}), schema, policies),
        ruling_of(
            replace(mesh, groups={**mesh.groups, "new": Group("new", workloads=frozenset({RATINGS}))}), schema, policies
        ),
        ruling_of(replace(mesh, groups={**mesh.groups, "new": Group("new", users=frozenset({"a"}))}), schema, policies),
    ]
    assert len({ruling.revision, *(other.revision for other in others)}) == 7
