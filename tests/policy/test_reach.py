"""Who can call a service and whom a caller can call, where not all of a request is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.authz.ruling import Ruling
from policyd.cedar.model import Entity, Request, Uid
from policyd.cedar.schema import Schema
from policyd.mesh.model import Group, Mesh
from policyd.policy.authorize import authorize
from policyd.policy.change import Change, apply
from policyd.policy.reach import Reach, what_can, who_can
from tests.authz.checks import ruling_of
from tests.policy.authored import ACCOUNT, POLICIES, files_of

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DENY = Reach("deny")


def named(callers: Mapping[str, Reach]) -> dict[str, Reach]:
    """Those that may, by their accounts."""
    short = {uid.removeprefix(ACCOUNT).removesuffix('"'): reach for uid, reach in callers.items()}
    return {name: reach for name, reach in short.items() if reach.verdict != "deny"}


def test_a_group_is_joined_at_once_however_many_ways_lead_up_from_it(mesh: Mesh, schema: Schema) -> None:
    rungs = [(f"left-{at}", f"right-{at}") for at in range(40)]
    groups = {"bottom": Group("bottom")}
    for below, rung in zip([("bottom",), *rungs], rungs, strict=False):
        groups |= {name: Group(name, groups=frozenset(below)) for name in rung}
    caller = Uid("Workload", str(min(mesh.workloads)))
    asked = Request(caller, Uid("Action", "GET"), Uid("Service", "x"), {}, (Entity(caller, {}, ()),))
    joined = apply([Change("group", "bottom")], asked, ruling_of(replace(mesh, groups=groups), schema, {}))
    assert joined is not None
    assert joined.entities == (Entity(caller, {}, tuple(sorted(Uid("Group", name) for name in groups))),)


def test_everybody_is_asked_about(ruling: Ruling) -> None:
    found = who_can("GET", "http://ratings/ratings/0", ruling, {})
    allow = Reach("allow", ("ratings-from-readers",))
    assert (found.service, found.identified, len(found.callers)) == ("ratings.default", True, 6)
    assert named(found.callers) == {"reviews": allow, "productpage": allow}


def test_where_nobody_is_asked_who_they_are_all_are_anonymous(ruling: Ruling) -> None:
    found = who_can("GET", "http://ingress/", ruling, {})
    assert (found.identified, dict(found.callers)) == (
        False, {'Unauthenticated::"anonymous"': Reach("allow", ("world-to-ingress",))}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("policies", "method", "url", "headers", "may"),
    [
        (
            "canary", "GET", "http://reviews/x", {},
            {"productpage": Reach("conditional", ("canary",), (
                '`context.request.headers.hasTag("end-user")` and '
                '`context.request.headers.getTag("end-user") == "jason"` (`canary`)',))},
        ),
        ("canary", "GET", "http://reviews/x", {"end-user": "jason"}, {"productpage": Reach("allow", ("canary",))}),
        ("canary", "GET", "http://reviews/x", {"end-user": "eve"}, {}),
        ("canary", "POST", "http://reviews/x", {}, {}),
        (
            "readers no-debug", "GET", "http://ratings/ratings/0", {},
            {"productpage": Reach("allow", ("readers",)), "reviews": Reach("allow", ("readers",))},
        ),
        (
            "same-namespace no-debug", "GET", "http://details/health", {"x-debug": "1"},
            {"productpage": Reach("allow", ("same-namespace",)), "reviews": Reach("allow", ("same-namespace",))},
        ),
        (
            "accounts freeze", "PATCH", "http://details/", {},
            {"reviews": Reach("conditional", ("accounts",), (
                'unless `freeze` forbids it: `context.time >= datetime("2026-12-24T00:00:00Z")` and '
                'not `context.time >= datetime("2026-12-27T00:00:00Z")`',))},
        ),
        ("overflow", "OPTIONS", "http://ratings/a/b", {}, {}),
    ],
)  # fmt: skip
def test_what_is_not_known_is_a_condition(
    mesh: Mesh, schema: Schema, policies: str, method: str, url: str, headers: dict[str, str], may: dict[str, Reach]
) -> None:
    ruling = ruling_of(mesh, schema, files_of(*policies.split()))
    assert named(who_can(method, url, ruling, headers).callers) == may


def test_the_table_of_a_caller(ruling: Ruling) -> None:
    found = what_can("productpage", ruling)
    condition = '`context.request.path like "/reviews/*"` (`reviews-from-productpage`)'
    assert list(found) == [f"{name}.default" for name in ("details", "ingress", "productpage", "ratings", "reviews")]
    assert found["reviews.default"]["GET"] == Reach("conditional", ("reviews-from-productpage",), (condition,))
    assert found["reviews.default"]["DELETE"] == DENY
    assert found["ingress.default"]["other"] == Reach("allow", ("world-to-ingress",))


@settings(max_examples=100, deadline=None)
@given(
    names=st.frozensets(st.sampled_from(sorted(POLICIES)), min_size=1),
    method=st.sampled_from(("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")),
    url=st.sampled_from(("http://reviews/health", "http://ratings/ratings/0", "http://details/", "http://ingress/a",
                         "http://ratings/soon", "http://productpage/login", "http://ratings/a/b")),
    headers=st.dictionaries(st.sampled_from(("end-user", "x-debug")), st.sampled_from(("jason", "1"))),
    address=st.sampled_from(("203.0.113.9", "198.51.100.1")),
    time=st.sampled_from(("2026-11-23T12:00:00.000Z", "2026-12-25T00:00:00.000Z", "2026-12-27T00:00:00.000Z")),
    instance=st.sampled_from(("reviews-v1", "reviews-v2", "reviews-v3")),
)  # fmt: skip
def test_what_is_said_for_sure_holds_whatever_the_unknown_is(
    mesh: Mesh, schema: Schema, names: frozenset[str], method: str, url: str, headers: dict[str, str], address: str,
    time: str, instance: str,
) -> None:  # fmt: skip
    ruling = ruling_of(mesh, schema, files_of(*names))
    for caller, reach in who_can(method, url, ruling, {}).callers.items():
        name = caller.partition('"')[2].removesuffix('"')
        asked = authorize(f"{name} {method} {url}", ruling, NOW, headers).request
        labels = ruling.entities.labels(instance).tags
        entities = tuple(
            replace(one, tags=labels) if one.uid.type == "Labels" and "reviews" in url else one
            for one in asked.entities
        )
        changed = apply([Change("address", address), Change("time", time)], replace(asked, entities=entities), ruling)
        assert changed is not None
        decision = ruling.decide(changed)
        assert reach.verdict in (decision.word, "conditional")
        if reach.verdict == "allow":
            assert set(reach.by) <= set(decision.reasons)
