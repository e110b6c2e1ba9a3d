"""A ruling that goes over to another process is the same ruling there, and only what is new of it is sent."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policyd.authz.ruling import Ruling, make_ruling
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.cedar.policies import set_of
from policyd.cedar.schema import parse_schema
from policyd.errors import DecisionError
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Group, Mesh
from policyd.mesh.placement import assumed
from policyd.server.handover import AT_ONCE, Given, Takeover, are_alike, messages
from policyd.server.link import Down, Policies, Rule, pack
from policyd.sources.files import read_folder
from policyd.spiffe import SpiffeId
from tests.authz.checks import ruling_of

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
CALLERS = (None, *(SpiffeId.workload("cluster.local", "default", f"bookinfo-{name}") for name in ("productpage", "x")))


@pytest.fixture(scope="module")
def ruling(root: Path) -> Ruling:
    folder = read_folder(root / "examples/bookinfo")
    declaration = declare(folder.texts)
    mesh = build(declaration, "cluster.local", assumed(declaration))
    return ruling_of(mesh, parse_schema((root / "policies/mesh.cedarschema").read_text()), folder.below("policies"))


def with_policies(ruling: Ruling, count: int) -> Ruling:
    """The same mesh under so many policies, each of a file of its own."""
    texts = {
        f"policies/p{number:03}.cedar": f'@id("p{number}") permit (principal, action == Action::"GET", resource) '
        f'when {{ context.request.path == "/{number}" }};'
        for number in range(count)
    }
    return ruling_of(ruling.mesh, ruling.schema, texts)


def sent(found: Iterable[Down]) -> list[Down]:
    """The messages as they arrive."""
    return [pickle.loads(pack(one)[4:]) for one in found]


def taken(takeover: Takeover, found: Iterable[Down]) -> Ruling:
    for message in sent(found):
        match message:
            case Policies():
                takeover.take(message)
            case Rule():
                return takeover.ruling(message)
    raise AssertionError("no rule came")


def decided(ruling: Ruling) -> list[object]:
    """What becomes of every caller's request to every service."""
    here = Endpoint("127.0.0.1", 1)
    return [
        ruling.decide(ruling.request(HttpFacts(caller, service, method, "/reviews/0", service, NOW, here, here)))
        for caller in CALLERS
        for service in ruling.mesh.services
        for method in ("GET", "DELETE")
    ]


def test_what_comes_out_is_what_went_in(ruling: Ruling) -> None:
    other = taken(Takeover(), messages(ruling, 1))

    assert (other.revision, other.policy_set, other.schema.text) == (
        ruling.revision,
        ruling.policy_set,
        ruling.schema.text,
    )
    assert (other.mesh.services, other.mesh.listeners) == (ruling.mesh.services, ruling.mesh.listeners)
    assert decided(other) == decided(ruling)


def test_policies_go_a_few_at_a_time(ruling: Ruling) -> None:
    many = with_policies(ruling, 3 * AT_ONCE + 1)

    sizes = [len(one.policies) for one in sent(messages(many, 1)) if isinstance(one, Policies)]

    assert sizes == [AT_ONCE, AT_ONCE, AT_ONCE, 1]


def test_only_what_changed_is_sent_again(ruling: Ruling) -> None:
    before, after = with_policies(ruling, 100), with_policies(ruling, 101)
    takeover = Takeover()
    taken(takeover, messages(before, 1))

    update = list(messages(after, 2, Given(1, before)))

    assert [len(one.policies) for one in update if isinstance(one, Policies)] == [1]
    assert taken(takeover, update).policy_set == after.policy_set


def test_what_is_gone_is_let_go_and_can_come_back(ruling: Ruling) -> None:
    many, few = with_policies(ruling, 100), with_policies(ruling, 1)
    takeover = Takeover()
    first = taken(takeover, messages(many, 1))
    second = taken(takeover, messages(few, 2, Given(1, many)))
    pauses: list[float] = []

    takeover.let_go(first, pauses.append)

    assert len(pauses) >= 99 // AT_ONCE
    assert decided(second) == decided(few)
    assert taken(takeover, messages(many, 3, Given(2, few))).revision == many.revision


def test_another_revision_than_was_checked_is_refused(ruling: Ruling) -> None:
    *pieces, rule = messages(ruling, 1)
    assert isinstance(rule, Rule)

    with pytest.raises(DecisionError, match=f"revision `{ruling.revision}` came out of `f00`"):
        taken(Takeover(), [*pieces, replace(rule, active=replace(rule.active, revision="f00"))])


def test_what_is_tried_goes_over_too_and_shared_policies_once(ruling: Ruling) -> None:
    tried = set_of([*ruling.policy_set.policies, *with_policies(ruling, 3).policy_set.policies])
    both = make_ruling(ruling.mesh, ruling.policy_set, ruling.schema, tried)

    found = sent(messages(both, 1))
    other = taken(Takeover(), found)

    assert sum(len(one.policies) for one in found if isinstance(one, Policies)) == len(ruling.policy_set.policies) + 3
    assert other.shadow is not None
    assert both.shadow is not None
    assert (other.revision, other.shadow.revision) == (both.revision, both.shadow.revision)
    assert decided(other.shadow) == decided(both.shadow)


def test_the_declared_resources_stay_behind(ruling: Ruling) -> None:
    [rule] = [one for one in messages(ruling, 1) if isinstance(one, Rule)]

    assert ruling.mesh.virtual_services
    assert (rule.mesh.virtual_services, rule.mesh.gateways) == ((), ())


def test_what_only_proxies_are_made_of_need_not_be_handed_over(ruling: Ruling) -> None:
    """Of a change that does, what is handed over is the same but for the number."""
    mesh, files = ruling.mesh, {one.file: one.text for one in ruling.policy_set.policies}
    moved = dict(mesh.instances)
    moved["reviews-v1"] = replace(moved["reviews-v1"], healthy=False)
    fewer = make_ruling(replace(mesh, virtual_services=(), gateways=()), ruling.policy_set, ruling.schema)
    others = {
        "as it is": replace(ruling),
        "without routes": fewer,
        "an instance": replace(ruling, mesh=replace(mesh, instances=moved)),
        "a policy less": ruling_of(mesh, ruling.schema, dict(list(files.items())[1:])),
        "tried": make_ruling(mesh, ruling.policy_set, ruling.schema, ruling.policy_set),
        "another schema": replace(ruling, schema=parse_schema(ruling.schema.text + "\n")),
        "another place": make_ruling(
            mesh, set_of(replace(one, line=one.line + 1) for one in ruling.policy_set.policies), ruling.schema
        ),
    }
    assert [name for name, other in others.items() if are_alike(ruling, other)] == ["as it is", "without routes"]
    for name, other in others.items():
        same = [pack(one) for one in messages(ruling, 1)] == [pack(one) for one in messages(other, 1)]
        assert same == are_alike(ruling, other), name


def of_a_folder(ruling: Ruling, mesh: Mesh, **changed: object) -> Ruling:
    """The same policies over the mesh with these mappings."""
    return make_ruling(replace(mesh, **changed), ruling.policy_set, ruling.schema)  # type: ignore[arg-type]


def test_of_a_mesh_only_what_changed_goes_over(ruling: Ruling) -> None:
    mesh, instances = ruling.mesh, dict(ruling.mesh.instances)
    gone = instances.pop("reviews-v3")
    instances["reviews-v1"] = replace(instances["reviews-v1"], labels={"app": "reviews", "version": "v9"})
    instances["reviews-v4"] = replace(gone, name="reviews-v4")
    services = {name: one for name, one in mesh.services.items() if name != "ratings.default"}
    listeners = {name: one for name, one in mesh.listeners.items() if one.instance != "reviews-v3"}
    after = of_a_folder(ruling, mesh, instances=instances, services=services, listeners=listeners)
    takeover = Takeover()
    taken(takeover, messages(ruling, 1))

    [rule] = sent(messages(after, 2, Given(1, ruling)))
    other = taken(takeover, [rule])

    assert isinstance(rule, Rule)
    assert set(rule.mesh.instances) == {"reviews-v1", "reviews-v4"}
    assert (rule.mesh.services, rule.mesh.listeners, rule.mesh.workloads) == ({}, {}, {})
    assert (rule.gone["instances"], rule.gone["services"]) == (("reviews-v3",), ("ratings.default",))
    whole = taken(Takeover(), messages(after, 2))
    assert (other.revision, other.mesh) == (after.revision, whole.mesh)
    assert sorted(other.entities.texts()) == sorted(whole.entities.texts())
    back = taken(takeover, messages(ruling, 3, Given(2, after)))
    assert (back.revision, back.mesh) == (ruling.revision, taken(Takeover(), messages(ruling, 1)).mesh)


@pytest.mark.parametrize("last", [None, 2])
def test_a_change_of_another_rule_than_the_last_is_refused(ruling: Ruling, last: int | None) -> None:
    takeover = Takeover()
    if last is not None:
        taken(takeover, messages(ruling, last))

    with pytest.raises(DecisionError, match="is on top of 1, which is not the last one here"):
        taken(takeover, messages(ruling, 3, Given(1, ruling)))


def test_groups_that_change_change_who_is_in_them(ruling: Ruling) -> None:
    groups = {"all": Group("all", workloads=frozenset(ruling.mesh.workloads), services=frozenset(ruling.mesh.services))}
    after = of_a_folder(ruling, ruling.mesh, groups=groups)
    takeover = Takeover()
    taken(takeover, messages(ruling, 1))

    assert taken(takeover, messages(after, 2, Given(1, ruling))).revision == after.revision
