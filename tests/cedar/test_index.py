"""The index finds what Cedar would have found in all of the set: the same decision, reasons and errors."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings

from policyd.cedar.candidates import MAX_BUILT, MAX_WEIGHT, CandidateSets
from policyd.cedar.engine import Engine
from policyd.cedar.index import Index
from policyd.cedar.model import Decision, Entity, Uid
from policyd.cedar.parsing import read_all, sources_of
from policyd.cedar.policies import Policy, PolicySet, load_policies
from policyd.cedar.reads import union
from policyd.cedar.schema import Schema
from policyd.errors import Problem
from tests.cedar.oracle import Oracle
from tests.cedar.requests import http_request
from tests.cedar.worlds import ACTIONS, CASES, METHODS, PRINCIPALS, RESOURCES, World, literal, scopes, texts, worlds

EXAMPLES = 180  # of a set of policies over a world each, asked for every request of the world
assert EXAMPLES * CASES >= 10_000

A, G = Uid("Workload", "a"), [Uid("Group", name) for name in ("g0", "g1", "g2", "g3")]
ANYTHING = "permit (principal, action, resource);"


def set_of(text: str) -> PolicySet:
    """A set that is parsed only: what strict validation would refuse is answered right as well."""
    sources = list(sources_of("p.cedar", text))
    policies = []
    for source, tree in zip(sources, read_all(sources), strict=True):
        assert not isinstance(tree, Problem), tree
        policies.append(Policy(tree.annotations["id"], tree.effect, tree.annotations, source.text, "p", 1, tree))
    return PolicySet(tuple(policies), union(policy.reads for policy in policies))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts, worlds)
def test_the_answer_is_that_of_the_full_set(schema: Schema, text: str, world: World) -> None:
    policy_set = set_of(text)
    engine, oracle = Engine(policy_set, schema), Oracle(policy_set, schema)
    for principal, method, resource in product(PRINCIPALS, METHODS, RESOURCES):
        asked = world.request(principal, method, resource, whole=True)
        plainly = oracle.decide(world.request(principal, method, resource, whole=False), world.groups)
        first, again = engine.decide(asked), engine.decide(asked)
        assert first == plainly
        assert replace(again, cached=False) == plainly
        assert again.cached is not engine.question(asked).candidates.reads.time


@pytest.mark.parametrize("principal", scopes("principal", PRINCIPALS))
def test_every_form_of_a_principal(schema: Schema, principal: str) -> None:
    same_as_cedar(schema, f'@id("p") permit ({principal}, action, resource);')


@pytest.mark.parametrize("action", ACTIONS)
def test_every_form_of_an_action(schema: Schema, action: str) -> None:
    same_as_cedar(schema, f'@id("p") forbid (principal, {action}, resource); @id("all") {ANYTHING}')


@pytest.mark.parametrize("resource", scopes("resource", RESOURCES))
def test_every_form_of_a_resource(schema: Schema, resource: str) -> None:
    same_as_cedar(schema, f'@id("p") permit (principal, action, {resource});')


def same_as_cedar(schema: Schema, text: str) -> None:
    """In one world, four groups deep, with everyone at another depth."""
    direct = {uid: {G[at]} for at, uid in enumerate((*PRINCIPALS[:3], *RESOURCES[:1]))}
    world = World(
        direct | {group: {above} for group, above in zip(G, [*G[1:], Uid("Group", "g4")], strict=True)}, "/a", {}, {}
    )
    policy_set = set_of(text)
    engine, oracle = Engine(policy_set, schema), Oracle(policy_set, schema)
    for principal, method, resource in product(PRINCIPALS, METHODS, RESOURCES):
        plainly = oracle.decide(world.request(principal, method, resource, whole=False), world.groups)
        assert engine.decide(world.request(principal, method, resource, whole=True)) == plainly


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        ("principal", True),
        (f"principal == {literal(A)}", True),
        ('principal == Workload::"b"', False),
        ('principal == Service::"a"', False),
        ('principal == Group::"g0"', False),
        ("principal is Workload", True),
        ("principal is Service", False),
        ("principal is NS::Workload", False),
        (f"principal in {literal(A)}", True),
        ('principal in Group::"g0"', True),
        ('principal in Group::"g2"', True),
        ('principal in Group::"g3"', False),
        ('principal in Namespace::"g0"', False),
        ('principal is Workload in Group::"g2"', True),
        ('principal is Service in Group::"g2"', False),
        ('principal is Workload in Group::"g3"', False),
    ],
)
def test_only_what_can_match_is_found(scope: str, found: bool) -> None:
    index = Index([policy.tree for policy in set_of(f'@id("p") permit ({scope}, action, resource);').policies])
    numbers = index.find((A, G[:3]), (Uid("Action", "GET"), ()), (Uid("Service", "s"), ()))
    assert numbers == ((0,) if found else ())


def test_a_policy_is_found_once_whatever_it_lists() -> None:
    listed = ", ".join(f'Action::"{name}"' for name in ("GET", "read", "http", "GET"))
    text = f'@id("p") permit (principal, action in [{listed}], resource);'
    index = Index([policy.tree for policy in set_of(text).policies])
    read = [Uid("Action", "read"), Uid("Action", "http")]
    assert index.find((A, ()), (Uid("Action", "GET"), read), (Uid("Service", "s"), ())) == (0,)


def test_a_policy_keeps_its_name_among_few(schema: Schema) -> None:
    """Cedar is given one policy of thirty, and errs in it or decides by it."""
    texts = [f'@id("p{at}") permit (principal == Workload::"w{at}", action, resource);' for at in range(30)]
    texts[17] = texts[17].removesuffix(";") + ' when { Service::"none".name == "x" };'
    engine = Engine(set_of("\n".join(texts)), schema)
    assert engine.decide(http_request(Uid("Workload", "w23"))) == Decision(True, ("p23",))
    failed = engine.decide(http_request(Uid("Workload", "w17")))
    assert [(error.policy, error.message) for error in failed.errors] == [
        ("p17", 'entity `Service::"none"` does not exist')
    ]


def test_members_are_known_by_their_present_groups(schema: Schema) -> None:
    """The same principal with other parents is another question, whatever was kept."""
    engine = Engine(
        load_policies({"p": '@id("p") permit (principal in Group::"g", action, resource);'}, schema), schema
    )
    inside, outside = http_request(groups=("g",)), http_request(groups=("h",))
    assert [engine.decide(one).allowed for one in (outside, inside, outside, inside)] == [False, True, False, True]


def test_more_candidates_than_are_built_from_are_asked_of_the_whole(schema: Schema) -> None:
    count = MAX_BUILT + 1
    one = '@id("one") permit (principal == Workload::"x", action, resource);'
    engine = Engine(set_of("\n".join(f'@id("p{at:04}") {ANYTHING}' for at in range(count)) + one), schema)
    assert engine.decide(http_request()) == Decision(True, tuple(f"p{at:04}" for at in range(count)))


def test_handles_are_bounded_however_many_ask() -> None:
    """Each caller has another set of a hundred candidates; what is kept stays within its weight."""
    wide = "".join(f'@id("all{at}") {ANYTHING}' for at in range(99))
    callers = MAX_WEIGHT // 100 + 20
    own = "".join(f'@id("w{at}") permit (principal == Workload::"w{at}", action, resource);' for at in range(callers))
    sets = CandidateSets(set_of(wide + own).policies)
    for at in range(callers):
        principal = Entity(Uid("Workload", f"w{at}"))
        numbers = sets.index.find((principal.uid, ()), (Uid("Action", "GET"), ()), (Uid("Service", "s"), ()))
        assert len(sets.handle(sets.of(numbers))) == 100
    assert sets.weight == MAX_WEIGHT
