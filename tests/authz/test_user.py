"""The end user of a check: believed where the listener believes the issuer, refused where it is not one user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from policyd.audit.record import Entry, Fault, decode, encode, place
from policyd.authz import reply
from policyd.authz.record import NOTHING, Include, read_of
from policyd.authz.request import Query, read_check
from policyd.authz.ruling import Ruling
from policyd.authz.service import Authorizer
from policyd.authz.user import identified
from policyd.cedar.http import EndUser
from policyd.cedar.model import Request
from policyd.cedar.schema import Schema
from policyd.errors import UnacceptableToken
from policyd.mesh.model import Group, Mesh
from policyd.policy.recorded import recorded
from tests.authz.checks import PAGE, REVIEWS, check_of, ruling_of
from tests.fakes.clock import FakeClock
from tests.fakes.decision_metrics import FakeDecisionMetrics
from tests.fakes.journal import FakeJournal

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LOGIN, PARTNER = "https://login.example.com", "https://partner.example"
PAYLOAD: Mapping[str, Any] = {"iss": LOGIN, "sub": "alice", "roles": ["editor"], "scope": "read write"}


def believing(mesh: Mesh, *issuers: str) -> Mesh:
    """The mesh, whose reviews-v1 believes these issuers."""
    listener = replace(mesh.listeners["reviews-v1/inbound"], issuers={one: frozenset({"scope"}) for one in issuers})
    return replace(mesh, listeners={**mesh.listeners, listener.name: listener})


def asked(mesh: Mesh, metadata: Mapping[str, Any], namespace: str = "envoy.filters.http.jwt_authn") -> Query:
    check = check_of(metadata_context={"filter_metadata": {namespace: metadata}})
    return identified(read_check(check, REVIEWS, mesh, NOW), check)


def test_a_verified_token_is_a_user(mesh: Mesh) -> None:
    user = asked(believing(mesh, LOGIN, PARTNER), {"default/people/0": PAYLOAD}).facts.user

    claims = {"iss": (LOGIN,), "sub": ("alice",), "roles": ("editor",), "scope": ("read", "write")}
    assert user == EndUser(LOGIN, "alice", claims)


@pytest.mark.parametrize(
    ("issuers", "metadata", "namespace"),
    [
        ((LOGIN,), {}, "envoy.filters.http.jwt_authn"),
        ((LOGIN,), {"failed": {"code": 1.0, "message": "Jwt is missing"}}, "envoy.filters.http.jwt_authn"),
        ((LOGIN,), {"default/people/0": PAYLOAD}, "envoy.filters.http.other"),
        ((), {"default/people/0": PAYLOAD}, "envoy.filters.http.jwt_authn"),
    ],
    ids=["no token", "Envoy says so", "another filter", "a listener that believes nobody"],
)
def test_nothing_else_is(mesh: Mesh, issuers: tuple[str, ...], metadata: dict[str, Any], namespace: str) -> None:
    assert asked(believing(mesh, *issuers), metadata, namespace).facts.user is None


def test_a_check_without_metadata_has_no_user(mesh: Mesh) -> None:
    check, mesh = check_of(), believing(mesh, LOGIN)

    assert identified(read_check(check, REVIEWS, mesh, NOW), check).facts.user is None


def test_headers_make_no_user(mesh: Mesh) -> None:
    headers = {"x-user": "alice", "metadata": "{}", "envoy.filters.http.jwt_authn": "{}"}
    check, mesh = check_of(request__http__headers=headers), believing(mesh, LOGIN)

    assert identified(read_check(check, REVIEWS, mesh, NOW), check).facts.user is None


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"a/b/0": {**PAYLOAD, "iss": PARTNER}}, "the listener believes no such issuer"),
        ({"a/b/0": {"sub": "alice"}}, "the listener believes no such issuer"),
        ({"a/b/0": {**PAYLOAD, "iss": 1}}, "the listener believes no such issuer"),
        ({"a/b/0": "text"}, "the listener believes no such issuer"),
        ({"a/b/0": {"iss": LOGIN}}, "the token names no user (`sub`)"),
        ({"a/b/0": {**PAYLOAD, "sub": ""}}, "the token names no user (`sub`)"),
        ({"a/b/0": {**PAYLOAD, "sub": 7}}, "the token names no user (`sub`)"),
        ({"a/b/0": {**PAYLOAD, "id": 2.0**60}},
         "the claim `id` is a number beyond 2^53; have its issuer write it as text"),
        ({"a/b/0": PAYLOAD, "a/b/1": PAYLOAD},
         "a request is of one user, and this one has tokens of several issuers"),
        ({"a/b/0": PAYLOAD, "failed": {"code": 3}}, "of several tokens one does not hold"),
    ],
)  # fmt: skip
def test_a_token_that_proves_no_one_user_is_refused(mesh: Mesh, metadata: dict[str, Any], problem: str) -> None:
    with pytest.raises(UnacceptableToken) as error:
        asked(believing(mesh, LOGIN), metadata)
    assert str(error.value) == problem


# ---- as policies see it

EDITORS = """
@id("editors") permit (principal, action, resource == Service::"reviews.default")
when { context has user && context.user.issuer == "https://login.example.com" &&
       context.user.hasTag("roles") && context.user.getTag("roles").contains("editor") };
"""
STAFF = """
@id("staff") permit (principal, action, resource == Service::"reviews.default")
when { context has user && context.user in Group::"staff" };
"""
ALICE = """
@id("alice") permit (principal, action, resource == Service::"reviews.default")
when { context has user && context.user == User::"https://login.example.com/alice" };
"""


def ruling(mesh: Mesh, schema: Schema, policies: str) -> Ruling:
    staff = Group("staff", users=frozenset({f"{LOGIN}/bob"}))
    whole = replace(believing(mesh, LOGIN), groups={**mesh.groups, "staff": staff})
    return ruling_of(whole, schema, {"policies/it.cedar": policies})


@pytest.mark.parametrize(
    ("policies", "payload", "allowed"),
    [
        (EDITORS, PAYLOAD, True),
        (EDITORS, {**PAYLOAD, "roles": ["reader"]}, False),
        (EDITORS, {"iss": LOGIN, "sub": "alice"}, False),
        (EDITORS, None, False),
        (STAFF, {**PAYLOAD, "sub": "bob"}, True),
        (STAFF, {**PAYLOAD, "groups": ["staff"], "Group": "staff"}, False),
        (ALICE, PAYLOAD, True),
        (ALICE, {**PAYLOAD, "sub": "bob"}, False),
        (ALICE, None, False),
    ],
)
def test_policies_decide_by_user_claim_and_declared_group(
    mesh: Mesh, schema: Schema, policies: str, payload: dict[str, Any] | None, allowed: bool
) -> None:
    rules = ruling(mesh, schema, policies)
    query = asked(rules.mesh, {} if payload is None else {"default/people/0": payload})

    assert rules.decide(rules.request(query.facts)).allowed is allowed


def test_what_no_policy_reads_of_a_user_is_not_asked_with(mesh: Mesh, schema: Schema) -> None:
    rules = ruling(mesh, schema, EDITORS)
    question = rules.engine.question(rules.request(asked(rules.mesh, {"default/people/0": PAYLOAD}).facts))

    (user,) = [one for one in question.request.entities if one.uid.type == "User"]
    assert (user.attrs, user.tags) == ({"issuer": LOGIN}, {"roles": ("editor",)})


def test_where_no_policy_reads_the_user_there_is_none(mesh: Mesh, schema: Schema) -> None:
    rules = ruling(mesh, schema, '@id("all") permit (principal, action, resource);')
    question = rules.engine.question(rules.request(asked(rules.mesh, {"default/people/0": PAYLOAD}).facts))

    assert "user" not in question.request.context
    assert not [one for one in question.request.entities if one.uid.type == "User"]


# ---- on record


def authorizer(rules: Ruling, journal: FakeJournal, include: Include = NOTHING) -> Authorizer:
    return Authorizer(
        ruling=lambda: rules,
        record=journal,
        metrics=FakeDecisionMetrics(),
        clock=FakeClock(NOW),
        stopwatch=lambda: 0.0,
        new_id=lambda: "d" * 32,
        include=include,
    )


def entry(rules: Ruling, metadata: Mapping[str, Any], include: Include = NOTHING) -> tuple[Entry, bytes]:
    """What is on record of a check, and what Envoy is told."""
    journal = FakeJournal()
    check = check_of(metadata_context={"filter_metadata": {"envoy.filters.http.jwt_authn": metadata}})
    told = authorizer(rules, journal, include).check(check.SerializeToString(), REVIEWS)
    return journal.entries[0], told


def test_only_what_policies_read_of_a_user_is_on_record(mesh: Mesh, schema: Schema) -> None:
    kept, _ = entry(ruling(mesh, schema, EDITORS), {"default/people/0": {**PAYLOAD, "email": "alice@example.com"}})

    assert kept.context["user"] == {
        "__entity": {"type": "User", "id": f"{LOGIN}/alice"},
        "issuer": LOGIN,
        "claims": {"roles": ["editor"]},
    }


ALL = '@id("all") permit (principal, action, resource);'


@pytest.mark.parametrize(
    ("policies", "claims", "user"),
    [
        (EDITORS, {"email"}, {"issuer": LOGIN, "claims": {"email": ["alice@example.com"], "roles": ["editor"]}}),
        (EDITORS, {"roles"}, {"issuer": LOGIN, "claims": {"roles": ["editor"]}}),
        (ALICE, {"org.team", "phone"}, {"claims": {"org.team": ["red"]}}),
        (ALL, {"email", "org.team"}, {"claims": {"email": ["alice@example.com"], "org.team": ["red"]}}),
    ],
)
def test_claims_that_the_operator_lists_are_on_record_too(
    mesh: Mesh, schema: Schema, policies: str, claims: set[str], user: dict[str, Any]
) -> None:
    payload = {**PAYLOAD, "email": "alice@example.com", "org": {"team": "red"}}
    kept, _ = entry(ruling(mesh, schema, policies), {"default/people/0": payload}, Include(claims=frozenset(claims)))

    assert kept.context["user"] == {"__entity": {"type": "User", "id": f"{LOGIN}/alice"}, **user}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"default/people/0": PAYLOAD},
        {"default/people/0": {**PAYLOAD, "iss": PARTNER, "email": "alice@example.com"}},
        {"default/people/0": PAYLOAD, "default/people/1": {**PAYLOAD, "email": "alice@example.com"}},
    ],
    ids=["no token", "no such claim", "an issuer that is not believed", "two users"],
)
def test_without_a_verified_user_who_has_them_there_are_none(
    mesh: Mesh, schema: Schema, metadata: dict[str, Any]
) -> None:
    kept, _ = entry(ruling(mesh, schema, ALL), metadata, Include(claims=frozenset({"email"})))

    assert "user" not in kept.context


@pytest.mark.parametrize(
    ("policies", "payload"),
    [
        (EDITORS, PAYLOAD),
        (EDITORS, {**PAYLOAD, "sub": "repo:a/b:ref"}),
        (EDITORS, {**PAYLOAD, "roles": ["reader"]}),
        (STAFF, {**PAYLOAD, "sub": "bob"}),
        (ALICE, PAYLOAD),
    ],
)
def test_a_recorded_decision_about_a_user_is_asked_again_as_it_was(
    mesh: Mesh, schema: Schema, policies: str, payload: dict[str, Any]
) -> None:
    rules = ruling(mesh, schema, policies)
    kept, _ = entry(rules, {"default/people/0": payload})
    record = decode(encode(place(kept, "w", 1, "")))

    again = recorded(record, rules)
    assert rules.decide(again.request).word == record.decision
    assert entry_again(rules, again.request) == record.context["user"]


def entry_again(rules: Ruling, request: Request) -> Any:
    question = rules.engine.question(request)
    return read_of(question.request)["user"]


def test_a_bad_user_is_401_and_on_record_with_who_asked(mesh: Mesh, schema: Schema) -> None:
    kept, told = entry(ruling(mesh, schema, EDITORS), {"default/people/0": {"iss": LOGIN}})

    assert (kept.decision, kept.status, kept.principal) == ("deny", 401, f'Workload::"{PAGE}"')
    assert kept.errors == (Fault("unacceptable_token", "the token names no user (`sub`)"),)
    assert told == reply.refuse_token("d" * 32)
