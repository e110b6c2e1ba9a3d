"""What the issuance policies are asked: a request that the shipped schema accepts, with every entity supplied."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import cedarpy
import pytest

from policyd.ca.issuance import X509, Evidence, Order, cedar_request, groups_of, workload_entity
from policyd.cedar.engine import Engine
from policyd.cedar.model import ANONYMOUS, Entity, Request, Uid
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import parse_schema
from policyd.mesh.model import Group
from policyd.sources.shipped import shipped_policies, shipped_schema
from policyd.spiffe import SpiffeId
from tests.ca.samples import LAPTOP, NOW, REVIEWS, a_mesh

GROUPS = {
    "shop": Group("shop", groups=frozenset({"backend"})),
    "backend": Group("backend", workloads=frozenset({REVIEWS})),
    "all": Group("all", groups=frozenset({"shop"})),
    "other": Group("other"),
}
JOIN = Evidence("join_token", ("join_token:agent:laptop",))
HOUR = timedelta(hours=1)
DOMAIN_UID = Uid("TrustDomain", "cluster.local")


def as_json(entity: Entity) -> dict[str, object]:
    parents = [parent.json() for parent in entity.parents]
    return {"uid": entity.uid.json(), "attrs": entity.attrs, "parents": parents, "tags": entity.tags}


def allowed(root: Path, request: Request, policies: str) -> bool:
    """Ask Cedar itself, with the schema: it refuses a request or an entity that the schema does not know."""
    actions = [{"uid": X509.json(), "attrs": {}, "parents": [{"type": "Action", "id": "issue"}]}]
    result = cedarpy.is_authorized(
        {name: str(getattr(request, name)) for name in ("principal", "action", "resource")}
        | {"context": dict(request.context)},
        policies,
        [as_json(entity) for entity in request.entities] + actions,
        schema=(root / "policies" / "issuance.cedarschema").read_text(),
    )
    assert not result.diagnostics.errors
    return bool(result.allowed)


def test_a_first_order_is_asked_about_as_anonymous() -> None:
    order = Order(LAPTOP, None, JOIN, HOUR, NOW, source="127.0.0.1")
    assert cedar_request(order, a_mesh()) == Request(
        principal=ANONYMOUS,
        action=X509,
        resource=Uid("Workload", str(LAPTOP)),
        context={
            "evidence": {"kind": "join_token", "selectors": ["join_token:agent:laptop"]},
            "ttl": {"__extn": {"fn": "duration", "arg": "3600000ms"}},
            "dns_names": [],
            "time": {"__extn": {"fn": "datetime", "arg": "2026-11-23T12:00:00Z"}},
            "source": {"__extn": {"fn": "ip", "arg": "127.0.0.1"}},
        },
        entities=(
            Entity(ANONYMOUS),
            Entity(
                Uid("Workload", str(LAPTOP)), {"trust_domain": "cluster.local", "path": "/agent/laptop"}, [DOMAIN_UID]
            ),
            Entity(DOMAIN_UID),
        ),
    )


def test_a_workload_comes_with_its_labels_its_namespace_and_all_groups_above_it() -> None:
    groups = [Uid("Group", name) for name in ("all", "backend", "shop")]
    assert workload_entity(REVIEWS, a_mesh(groups=GROUPS)) == Entity(
        Uid("Workload", str(REVIEWS)),
        {
            "trust_domain": "cluster.local",
            "path": "/ns/default/sa/reviews",
            "namespace": "default",
            "service_account": "reviews",
        },
        [DOMAIN_UID, Uid("Namespace", "default"), *groups],
        {"team": "books"},
    )


def test_a_namespace_of_another_trust_domain_is_another_namespace() -> None:
    entity = workload_entity(SpiffeId.workload("partner.org", "default", "web"), a_mesh())
    assert Uid("Namespace", "partner.org/default") in entity.parents
    assert Uid("Namespace", "default") not in entity.parents


def test_groups_are_found_through_groups() -> None:
    assert groups_of(REVIEWS, GROUPS) == ("all", "backend", "shop")
    assert groups_of(LAPTOP, GROUPS) == ()


def test_an_agent_that_renews_itself_is_one_entity() -> None:
    request = cedar_request(Order(LAPTOP, LAPTOP, Evidence("renewal"), HOUR, NOW), a_mesh())
    uids = [entity.uid for entity in request.entities]
    assert request.principal == request.resource
    assert len(uids) == len(set(uids))


@pytest.mark.parametrize("principal", [None, LAPTOP, REVIEWS])
@pytest.mark.parametrize("source", ["", "127.0.0.1", "::1"])
@pytest.mark.parametrize(("ttl", "expected"), [(HOUR, True), (HOUR + timedelta(seconds=1), False)])
def test_the_built_in_policy_grants_up_to_an_hour(
    root: Path, principal: SpiffeId | None, source: str, ttl: timedelta, expected: bool
) -> None:
    order = Order(REVIEWS, principal, JOIN, ttl, NOW, ("policyd",), source)
    request = cedar_request(order, a_mesh(groups=GROUPS))
    assert allowed(root, request, (root / "policies" / "issuance.cedar").read_text()) is expected


@pytest.mark.parametrize(("ttl", "expected"), [(HOUR, True), (2 * HOUR, False)])
def test_the_engine_finds_every_entity_that_it_needs(ttl: timedelta, expected: bool) -> None:
    schema = parse_schema(shipped_schema("issuance"))
    engine = Engine(load_policies(shipped_policies("issuance"), schema), schema)
    for principal in (None, LAPTOP, REVIEWS):
        order = Order(REVIEWS, principal, JOIN, ttl, NOW, source="127.0.0.1")
        assert engine.decide(cedar_request(order, a_mesh(groups=GROUPS))).allowed is expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('resource in Group::"all" && resource.getTag("team") == "books"', True),
        ('resource in Namespace::"default" && resource in TrustDomain::"cluster.local"', True),
        ('principal is Workload && principal.path like "/agent/*"', True),
        (
            'context.evidence.kind == "join_token" && context.evidence.selectors.contains("join_token:agent:laptop")',
            True,
        ),
        ('context has source && context.source.isLoopback() && context.time > datetime("2026-11-23T11:59:59Z")', True),
        ('context.dns_names.contains("admin")', False),
    ],
)
def test_policies_may_read_all_of_an_order(root: Path, condition: str, expected: bool) -> None:
    order = Order(REVIEWS, LAPTOP, JOIN, HOUR, NOW, source="127.0.0.1")
    policy = f'permit (principal, action in Action::"issue", resource) when {{ {condition} }};'
    assert allowed(root, cedar_request(order, a_mesh(groups=GROUPS)), policy) is expected
