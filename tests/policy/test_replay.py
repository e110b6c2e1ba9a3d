"""A recorded request decided again: as it was, or differently, or not at all; never guessed."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyd.audit.record import Entry, Record
from policyd.audit.rules import make_masker
from policyd.authz.record import NOTHING, Include
from policyd.authz.ruling import Ruling
from policyd.cedar.http import EndUser, HttpFacts
from policyd.cedar.schema import Schema
from policyd.config.audit import MaskSettings
from policyd.mesh.model import Mesh
from policyd.policy.replay import Lacking, Projector, decide, has_question
from policyd.policy.replay_tally import Same, Tally
from tests.authz.checks import PAGE, ruling_of
from tests.policy import traffic
from tests.policy.authored import POLICIES, files_of


def kept(*rulings: Ruling) -> Any:
    by_revision = {one.revision: one for one in rulings}

    def before(revision: str, at: datetime) -> Ruling | None:
        return by_revision.get(revision)

    return before


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.sets(st.sampled_from(sorted(POLICIES)), max_size=6), seed=st.integers(0, 1000))
def test_under_its_own_revision_nothing_changes_and_all_is_decided(
    mesh: Mesh, schema: Schema, names: set[str], seed: int
) -> None:
    ruling = ruling_of(mesh, schema, files_of(*sorted(names)))
    projector = Projector(ruling, kept(ruling))
    for record in filter(has_question, traffic.records(ruling, 60, seed)):
        question = projector.question(record)
        assert isinstance(question, bytes), question
        answer = decide(question, ruling)
        by = record.reasons or tuple(fault.source for fault in record.errors)
        assert (answer.word, answer.by) == (record.decision, by)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    old=st.sets(st.sampled_from(sorted(POLICIES)), max_size=5),
    new=st.sets(st.sampled_from(sorted(POLICIES)), max_size=5),
    seed=st.integers(0, 1000),
)
def test_what_is_decided_again_is_what_the_candidate_would_have_decided(
    mesh: Mesh, schema: Schema, old: set[str], new: set[str], seed: int
) -> None:
    then, candidate = (ruling_of(mesh, schema, files_of(*sorted(names))) for names in (old, new))
    projector = Projector(candidate, kept(then))
    chosen = random.Random(seed)
    for number in range(60):
        facts, listener = traffic.facts_of(chosen, mesh, traffic.START)
        record = traffic.record(traffic.entry(facts, listener, then, number))
        question = projector.question(record)
        if isinstance(question, bytes):
            assert decide(question, candidate).word == candidate.decide(candidate.request(facts)).word


def a_record(ruling: Ruling, include: Include = NOTHING, **changes: Any) -> Record:
    """productpage asks reviews-v1."""
    chosen = random.Random(1)
    listener = ruling.mesh.listeners["reviews-v1/inbound"]
    facts, _ = traffic.facts_of(chosen, ruling.mesh, traffic.START)
    asked = facts._replace(
        **{
            "principal": PAGE, "service": "reviews.default", "method": "GET", "target": "/reviews/0",
            "instance": "reviews-v1", "headers": {}, **changes,
        },
    )  # fmt: skip
    return traffic.record(traffic.entry(asked, listener, ruling, 7, include))


ALLOW = '@id("p") permit (principal, action == Action::"GET", resource == Service::"reviews.default")'


@pytest.mark.parametrize(
    ("then", "condition", "lacking"),
    [
        ("", 'context.request.path like "/reviews/*" && context.request.segments == 2', None),
        ("", 'context.request.method == "GET" && context.request.host == "reviews"', None),
        ("", 'context.destination.labels.hasTag("version") && context.destination.port == 9080', None),
        ("", 'context.time > datetime("2026-01-01T00:00:00Z")', None),
        ("", 'context.client_ip.isInRange(ip("10.0.0.0/8"))', "context.client_ip"),
        ("", "context.source.port > 1024", "context.source.port"),
        ("", 'context.request.headers.hasTag("end-user")', "context.request.headers.end-user"),
        ("", "context has user", "context.user"),
        ('context.request.headers.hasTag("end-user")', 'context.request.headers.hasTag("end-user")', None),
        (
            'context.request.headers.hasTag("end-user")',
            'context.request.headers.hasTag("x")',
            "context.request.headers.x",
        ),
        ("context.source.port > 1024", "context.source.port > 1", None),
        ("context has user", 'context has user && context.user.issuer == "x"', None),
    ],
)
def test_what_the_record_lacks_is_said(
    mesh: Mesh, schema: Schema, then: str, condition: str, lacking: str | None
) -> None:
    before = ruling_of(mesh, schema, {"p.cedar": f"{ALLOW} when {{ {then or 'true'} }};"})
    candidate = ruling_of(mesh, schema, {"p.cedar": f"{ALLOW} when {{ {condition} }};"})
    found = Projector(candidate, kept(before)).question(a_record(before))
    assert (found if isinstance(found, Lacking) else None) == (Lacking((lacking,)) if lacking else None)


def test_of_a_revision_that_is_not_kept_an_absent_header_is_not_known(mesh: Mesh, schema: Schema) -> None:
    ruling = ruling_of(mesh, schema, files_of("canary"))
    sent, not_sent = a_record(ruling, headers={"end-user": "jason"}), a_record(ruling)
    known, unknown = Projector(ruling, kept(ruling)), Projector(ruling, kept())
    assert isinstance(known.question(not_sent), bytes)
    assert isinstance(unknown.question(sent), bytes)
    assert unknown.question(not_sent) == Lacking(("context.request.headers.end-user",))


@pytest.mark.parametrize(
    ("masked", "lacking"),
    [
        (("request.headers.end-user",), ("context.request.headers.end-user (masked)",)),
        (("request.headers",), ("context.request.headers.end-user (masked)",)),
        (("request.path",), ()),
        (("request.headers.other",), ()),
        (("user.claims.role",), ()),
    ],
)
def test_what_is_masked_is_not_known(
    mesh: Mesh, schema: Schema, masked: tuple[str, ...], lacking: tuple[str, ...]
) -> None:
    ruling = ruling_of(mesh, schema, files_of("canary"))
    record = msgspec.structs.replace(a_record(ruling, headers={"end-user": "jason"}), masked=masked)
    found = Projector(ruling, kept(ruling)).question(record)
    assert (found.names if isinstance(found, Lacking) else ()) == lacking


def test_requests_of_which_the_candidate_reads_the_same_are_one_question(mesh: Mesh, schema: Schema) -> None:
    ruling = ruling_of(mesh, schema, files_of("canary"))
    projector = Projector(ruling, kept(ruling))
    questions = {
        projector.question(a_record(ruling, target=target, headers={"end-user": user, "x-other": target}))
        for target in ("/reviews/1", "/reviews/2")
        for user in ("jason", "mary")
    }
    assert len(questions) == 2


def test_a_service_that_the_candidate_has_not_is_an_error(mesh: Mesh, schema: Schema) -> None:
    ruling = ruling_of(mesh, schema, files_of("canary"))
    smaller = replace(mesh, services={name: one for name, one in mesh.services.items() if name != "reviews.default"})
    candidate = ruling_of(smaller, schema, files_of("canary"))
    question = Projector(candidate, kept(ruling)).question(a_record(ruling))
    assert isinstance(question, bytes)
    answer = decide(question, candidate)
    assert (answer.word, answer.by) == ("error", ("the mesh has no service `reviews.default`",))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "change"},
        {"decision": "error"},
        {"decision": None},
        {"action": ""},
        {"principal": ""},
    ],
)
def test_what_policies_did_not_decide_has_no_question(ruling: Ruling, change: dict[str, Any]) -> None:
    record = a_record(ruling)
    assert has_question(record)
    assert not has_question(msgspec.structs.replace(record, **change))


def test_every_record_is_counted_in_one_place(ruling: Ruling) -> None:
    tally = Tally()
    record = a_record(ruling)
    assert not tally.pass_over(record)
    tally.cannot(record, Lacking(("context.x",)))
    assert tally.pass_over(msgspec.structs.replace(record, decision="error"))
    assert tally.pass_over(msgspec.structs.replace(record, kind="change"))
    assert (tally.records, tally.undecided, sum(tally.passed_over.values())) == (1, 1, 1)
    assert next(iter(tally.undecidable))[0] == Same.of(record)


USERS = (
    EndUser("https://issuer", "alice", {"role": ("admin",), "team": ("a",)}),
    EndUser("https://issuer", "bob", {"role": ("guest",)}),
    None,
)


@pytest.mark.parametrize(
    ("condition", "decided"),
    [
        ('context has user && context.user.hasTag("role") && context.user.getTag("role").contains("admin")', 3),
        ("context has user", 3),
        ('context has user && context.user.hasTag("team")', 1),  # of who has no user nothing more is to be known
        ('context.request.path like "/reviews/*"', 3),
    ],
)
def test_of_a_user_what_was_read_then_is_known(mesh: Mesh, schema: Schema, condition: str, decided: int) -> None:
    role = 'context has user && context.user.hasTag("role") && context.user.getTag("role").contains("guest")'
    then = ruling_of(mesh, schema, {"p.cedar": f"{ALLOW} when {{ {role} }};"})
    candidate = ruling_of(mesh, schema, {"p.cedar": f"{ALLOW} when {{ {condition} }};"})
    projector = Projector(candidate, kept(then))
    found = [projector.question(a_record(then, user=user)) for user in USERS]
    assert sum(isinstance(one, bytes) for one in found) == decided
    for user, question in zip(USERS, found, strict=True):
        if isinstance(question, bytes):
            facts = facts_of(mesh, user)
            assert decide(question, candidate).word == candidate.decide(candidate.request(facts)).word


ADMIN = 'context has user && context.user.hasTag("role") && context.user.getTag("role").contains("admin")'
ISSUER = 'context has user && context.user.issuer == "https://issuer"'
STAFF = 'context has user && context.user == User::"https://issuer/alice"'


@pytest.mark.parametrize("how", [{"how": "remove"}, {"how": "hash"}, {"how": "truncate", "length": 2}])
@pytest.mark.parametrize(
    ("masks", "condition", "lacking"),
    [
        ({"claim": "role"}, ADMIN, ("context.user.claims.role (masked)",)),
        ({"attribute": "user.claims"}, ADMIN, ("context.user.claims.role (masked)",)),
        ({"claim": "team"}, ADMIN, ()),
        ({"claim": "role"}, ISSUER, ()),
        ({"claim": "iss"}, ISSUER, ("context.user.__entity (masked)", "context.user.issuer (masked)")),
        ({"claim": "sub"}, STAFF, ("context.user.__entity (masked)",)),
    ],
)
def test_a_masked_claim_is_not_known_and_another_does_not_matter(
    mesh: Mesh, schema: Schema, masks: dict[str, str], condition: str, lacking: tuple[str, ...], how: dict[str, Any]
) -> None:
    then = ruling_of(mesh, schema, {"p.cedar": f"{ALLOW} when {{ {ADMIN} || {ISSUER} }};"})
    candidate = ruling_of(mesh, schema, {"p.cedar": f"{ALLOW} when {{ {condition} }};"})
    apply = make_masker([MaskSettings(**masks, **how)], b"k" * 32)
    assert apply is not None
    record = a_record(then, Include(claims=frozenset({"team"})), user=USERS[0])
    entry = apply(Entry(time=record.time, kind=record.kind, context=record.context))
    assert entry.masked
    again = msgspec.structs.replace(record, context=entry.context, masked=entry.masked)
    found = Projector(candidate, kept(then)).question(again)
    assert {*lacking} <= {*(found.names if isinstance(found, Lacking) else ())}
    assert isinstance(found, bytes) is (not lacking)
    if isinstance(found, bytes):
        assert decide(found, candidate).word == candidate.decide(candidate.request(facts_of(mesh, USERS[0]))).word


def test_whoever_reads_the_whole_context_reads_what_was_masked_and_all_that_is_of_the_user(
    mesh: Mesh, schema: Schema
) -> None:
    whole = ruling_of(mesh, schema, {"p.cedar": f"{ALLOW} when {{ context == context }};"})
    candidate = ruling_of(mesh, schema, {"p.cedar": f"{ALLOW} when {{ context == context || ({TEAM}) }};"})
    record = a_record(whole, user=USERS[0])
    assert isinstance(Projector(whole, kept(whole)).question(record), bytes)
    masked = msgspec.structs.replace(record, masked=("user.claims.role",))
    assert Projector(whole, kept(whole)).question(masked) == Lacking(("context (masked)",))
    assert Projector(candidate, kept(whole)).question(record) == Lacking(("context.user.claims.team",))


TEAM = 'context has user && context.user.hasTag("team") && context.user.getTag("team").contains("a")'


@pytest.mark.parametrize("then", ["true", ISSUER])
@pytest.mark.parametrize("known", [True, False])
def test_a_claim_that_the_operator_lists_is_known(mesh: Mesh, schema: Schema, then: str, known: bool) -> None:
    before = ruling_of(mesh, schema, {"p.cedar": f"{ALLOW} when {{ {then} }};"})
    candidate = ruling_of(mesh, schema, {"p.cedar": f"{ALLOW} when {{ {TEAM} }};"})
    projector = Projector(candidate, kept(before) if known else kept())
    alice, bob, _ = (a_record(before, Include(claims=frozenset({"team"})), user=user) for user in USERS)
    question = projector.question(alice)
    assert isinstance(question, bytes)
    assert decide(question, candidate).word == "allow"
    (lacking,) = projector.question(bob)  # who has no team, or none was listed then
    assert lacking == (("context.user.claims.team",) if then == ISSUER else ("context.user",))


def test_claims_that_are_not_read_make_no_other_question(mesh: Mesh, schema: Schema) -> None:
    ruling = ruling_of(mesh, schema, {"p.cedar": f"{ALLOW} when {{ {ADMIN} }};"})
    users = [EndUser("https://issuer", "alice", {"role": ("admin",), "jti": (number,)}) for number in "123"]
    include = Include(claims=frozenset({"jti"}))
    projector = Projector(ruling, kept(ruling))
    assert len({projector.question(a_record(ruling, include, user=user)) for user in users}) == 1


def facts_of(mesh: Mesh, user: EndUser | None) -> HttpFacts:
    """The request of `a_record`."""
    facts, _ = traffic.facts_of(random.Random(1), mesh, traffic.START)
    return facts._replace(
        principal=PAGE, service="reviews.default", method="GET", target="/reviews/0", instance="reviews-v1",
        headers={}, user=user,
    )  # fmt: skip
