"""Tokens are issued as certificates are: policy asked, checked, on record before they leave."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import cedarpy
import pytest

from policyd.audit.record import Entry
from policyd.ca import jwt
from policyd.ca.issuance import JWT, Evidence, JwtOrder, cedar_request
from policyd.cedar.model import Decision, EvaluationError
from policyd.errors import DecisionError, IdentityError, IssuanceDenied, JournalError, PolicydError
from policyd.sources.shipped import shipped_policies
from policyd.spiffe import SpiffeId
from policyd.svid.jwt import validate
from tests.ca.samples import DOMAIN, LAPTOP, NOW, REVIEWS, Office, a_mesh

UNIX = Evidence("unix", ("unix:uid:1000",))


@pytest.fixture
def office() -> Office:
    return Office()


def an_order(office: Office, *audiences: str, ttl: timedelta | None = None) -> JwtOrder:
    return office.issuer.order_jwt(REVIEWS, LAPTOP, UNIX, audiences or ("shop",), ttl=ttl)


def test_an_issued_token_is_one_for_its_audience_and_on_record(office: Office) -> None:
    token = office.issuer.issue_jwt(an_order(office), kind="workload", agent="laptop")
    bundle = office.issuer.bundle
    svid = validate(token.text, {DOMAIN: bundle}.get, "shop", NOW)
    now = int(NOW.timestamp())
    assert svid.claims == {"sub": str(REVIEWS), "aud": "shop", "exp": now + 300, "iat": now, "jti": token.jti}
    assert (svid.kid, office.counted) == (office.jwt_keys.keys[0].kid, ["jwt"])
    assert office.recorder.entries == [
        Entry(
            time=NOW,
            kind="issuance",
            decision="allow",
            principal=f'Workload::"{LAPTOP}"',
            action='Action::"jwt"',
            resource=f'Workload::"{REVIEWS}"',
            reasons=("issue-registered",),
            context=office.decider.asked[0].context,
            revision="r1",
            detail={
                "spiffe_id": str(REVIEWS),
                "evidence": {"kind": "unix", "selectors": ["unix:uid:1000"]},
                "agent": "laptop",
                "requested_by": "workload",
                "jti": token.jti,
                "kid": token.kid,
                "not_after": "2026-11-23T12:05:00Z",
            },
        )
    ]
    assert token.text not in repr(token) + repr(office.recorder.entries)


def test_several_audiences_are_a_list(office: Office) -> None:
    token = office.issuer.issue_jwt(an_order(office, "a", "b", "a"), kind="workload")
    assert validate(token.text, {DOMAIN: office.issuer.bundle}.get, "b", NOW).claims["aud"] == ["a", "b"]


def test_the_policies_are_asked_as_the_schema_has_it(root: Path) -> None:
    order = JwtOrder(REVIEWS, LAPTOP, UNIX, timedelta(minutes=5), NOW, ("shop",))
    request = cedar_request(order, a_mesh())
    assert request.action == JWT
    assert request.context == {
        "evidence": {"kind": "unix", "selectors": ["unix:uid:1000"]},
        "ttl": {"__extn": {"fn": "duration", "arg": "300000ms"}},
        "time": {"__extn": {"fn": "datetime", "arg": "2026-11-23T12:00:00Z"}},
        "audiences": ["shop"],
    }
    actions = [{"uid": JWT.json(), "attrs": {}, "parents": [{"type": "Action", "id": "issue"}]}]
    entities = [
        {"uid": e.uid.json(), "attrs": e.attrs, "parents": [p.json() for p in e.parents], "tags": e.tags}
        for e in request.entities
    ]
    asked = {name: str(getattr(request, name)) for name in ("principal", "action", "resource")}
    for policy, wanted in (
        ("".join(shipped_policies("issuance").values()), True),
        ('permit (principal, action == Action::"jwt", resource) when { context.audiences.contains("shop") };', True),
        ('permit (principal, action == Action::"jwt", resource) when { context.audiences.contains("bank") };', False),
    ):
        answer = cedarpy.is_authorized(
            asked | {"context": dict(request.context)}, policy, entities + actions,
            schema=(root / "policies" / "issuance.cedarschema").read_text(),
        )  # fmt: skip
        assert (answer.allowed, answer.diagnostics.errors) == (wanted, [])


def refuse(office: Office) -> None:
    office.decider.decision = Decision(False, ("no-tokens",), (EvaluationError("broken", "no tag"),))


def break_engine(office: Office) -> None:
    office.decider.broken = True


@pytest.mark.parametrize(
    ("happens", "ttl", "kind", "outcome"),
    [
        (refuse, None, IssuanceDenied, "deny"),
        (break_engine, None, DecisionError, "error"),
        (lambda office: None, timedelta(hours=2), IdentityError, "error"),
        (lambda office: None, timedelta(seconds=1), IdentityError, "error"),
    ],
    ids=["policy", "engine", "too long", "too short"],
)
def test_a_refusal_is_recorded_and_counted_as_one(
    office: Office,
    happens: Callable[[Office], None],
    ttl: timedelta | None,
    kind: type[PolicydError],
    outcome: str,
) -> None:
    happens(office)
    with pytest.raises(kind):
        office.issuer.issue_jwt(an_order(office, ttl=ttl), kind="workload")
    (entry,) = office.recorder.entries
    assert (entry.decision, entry.action, office.counted, office.refused) == (
        outcome, 'Action::"jwt"', [], [kind.code],
    )  # fmt: skip
    assert "jti" not in entry.detail


def test_without_a_record_there_is_no_token(office: Office) -> None:
    office.recorder.full = True
    with pytest.raises(JournalError):
        office.issuer.issue_jwt(an_order(office), kind="workload")
    assert office.counted == []


def test_a_token_is_not_signed_for_nobody(office: Office) -> None:
    with pytest.raises(IdentityError, match="1 to 16 audiences"):
        office.issuer.order_jwt(REVIEWS, LAPTOP, UNIX, ())


def test_a_trust_domain_is_no_subject(office: Office) -> None:
    with pytest.raises(IdentityError, match="a workload's has a path"):
        jwt.sign(
            SpiffeId(DOMAIN, ""), ("shop",), office.jwt_keys.keys[0],
            now=NOW, ttl=jwt.DEFAULT_LIFE, random=os.urandom,
        )  # fmt: skip


def test_the_bundle_holds_root_and_keys_and_its_sequence_grows_with_either(office: Office) -> None:
    bundle = office.issuer.bundle
    assert (bundle.roots, bundle.jwt_keys, bundle.refresh_hint) == (
        (office.authority.root_der,), office.jwt_keys.public, 300,
    )  # fmt: skip
    assert bundle.sequence == office.authority.bundle_sequence + office.jwt_keys.sequence
