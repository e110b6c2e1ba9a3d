"""What is printed as allowing does allow: every remedy is put to a ruling that was changed for real."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.cedar.model import Request
from policyd.cedar.schema import Schema
from policyd.mesh.model import Mesh
from policyd.policy.authorize import authorize
from policyd.policy.change import apply
from policyd.policy.remedies import Remedy
from policyd.spiffe import SpiffeId
from tests.authz.checks import ruling_of
from tests.policy.authored import POLICIES, files_of

NOW = datetime(2026, 12, 25, 12, tzinfo=UTC)
LATER = datetime(2027, 2, 1, tzinfo=UTC)

CALLERS = ("anonymous", "productpage", "reviews", "details", "ratings", "ingress")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE")
URLS = (
    "http://reviews/reviews/0", "http://ratings/ratings/0", "http://ratings/ratings/0/1", "http://details/x",
    "http://productpage/login", "http://productpage/other", "http://ingress/admin", "http://ingress/",
)  # fmt: skip
HEADERS = ({}, {"end-user": "jason"}, {"end-user": "eve"}, {"x-debug": "1"}, {"x-debug": "1", "end-user": "jason"})


def really(remedy: Remedy, request: Request, mesh: Mesh, schema: Schema, names: frozenset[str]) -> tuple[str, ...]:
    """Who allows the request once the groups are changed in the mesh and the policies in the files; () if nobody."""
    groups = dict(mesh.groups)
    for change in remedy.changes:
        if change.kind == "group" and change.value is not None:
            group = groups[change.value]
            groups[change.value] = replace(group, workloads=group.workloads | {SpiffeId.parse(request.principal.id)})
    left = files_of(*(names - set(remedy.without))) if names - set(remedy.without) else {}
    ruling = ruling_of(replace(mesh, groups=groups), schema, left)
    changed = apply([change for change in remedy.changes if change.kind != "group"], request, ruling)
    assert changed is not None
    id_ = SpiffeId.parse(changed.principal.id) if changed.principal.type == "Workload" else None
    own = ruling.entities.principal(id_)  # in the groups that the mesh has now
    entities = tuple(own if one.uid == own.uid else one for one in changed.entities)
    decision = ruling.decide(replace(changed, entities=entities))
    return decision.reasons if decision.allowed else ()


@settings(max_examples=100, deadline=None)
@given(
    names=st.frozensets(st.sampled_from(sorted(POLICIES)), min_size=1),
    caller=st.sampled_from(CALLERS),
    method=st.sampled_from(METHODS),
    url=st.sampled_from(URLS),
    headers=st.sampled_from(HEADERS),
    time=st.sampled_from((NOW, LATER)),
)
def test_what_is_said_to_allow_does(
    mesh: Mesh, schema: Schema, names: frozenset[str], caller: str, method: str, url: str, headers: dict[str, str],
    time: datetime,
) -> None:  # fmt: skip
    ruling = ruling_of(mesh, schema, files_of(*names))
    found = authorize(f"{caller} {method} {url}", ruling, time, headers)

    assert not (found.decision.allowed and found.explanation.remedies)
    for remedy in found.explanation.remedies:
        assert really(remedy, found.request, mesh, schema, names) == remedy.by
    if found.explanation.proposal:
        added = ruling_of(mesh, schema, files_of(*names) | {"new.cedar": found.explanation.proposal})
        assert added.decide(found.request).allowed


OFFICE = "the address `203.0.113.1` (of `203.0.113.0/24`)"


@pytest.mark.parametrize(
    ("policies", "text", "headers", "would"),
    [
        ("canary", "productpage GET http://reviews/x", {}, "the header `end-user: jason` (by `canary`)"),
        ("canary", "productpage GET http://reviews/", {"end-user": "a"}, "the header `end-user: jason` (by `canary`)"),
        ("office", "reviews PUT http://details/", {}, f"{OFFICE} (by `office`)"),
        (
            "office freeze", "reviews PUT http://details/", {},
            f"{OFFICE} and the time 2026-12-23T23:59:59.999Z (by `office`)",
        ),
        ("world", "anonymous GET http://ingress/admin", {}, "the path `/` (by `world`)"),
        ("readers", "reviews GET http://ratings/a/b/c", {}, "the path `/ratings/0` (of `/ratings/*`) (by `readers`)"),
        ("accounts", "details PATCH http://details/", {}, "the caller `bookinfo-reviews` (by `accounts`)"),
        ("readers", "details GET http://details/", {}, ""),
    ],
)  # fmt: skip
def test_the_smallest_change_is_told(
    mesh: Mesh, schema: Schema, policies: str, text: str, headers: dict[str, str], would: str
) -> None:
    ruling = ruling_of(mesh, schema, files_of(*policies.split()))
    assert authorize(text, ruling, NOW, headers).explanation.would.partition("; or ")[0] == would


def test_an_explanation_is_quick_among_a_thousand_policies(mesh: Mesh, schema: Schema) -> None:
    policy = """@id("p{0}") permit (principal in Group::"ratings-readers", action == Action::"GET",
        resource == Service::"ratings.default")
        when {{ context.request.path like "/{0}/*" && context.request.headers.hasTag("h{0}") }};"""
    ruling = ruling_of(mesh, schema, {"p.cedar": "\n".join(policy.format(number) for number in range(1000))})
    ruling.decide(authorize("details GET http://details/", ruling, NOW).request)  # what is built once is not counted

    began = process_time()
    found = authorize("details POST http://ratings/x", ruling, NOW)
    assert process_time() - began < 0.5
    assert len(found.explanation.near) == 5
