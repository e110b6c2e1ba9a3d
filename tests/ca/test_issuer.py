"""Every certificate and every refusal is on record before anybody hears of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import timedelta

import pytest

from policyd.audit.record import Entry, Fault
from policyd.ca.issuance import Evidence, Order
from policyd.ca.issuer import SERVER_DNS_NAME
from policyd.cedar.model import Decision, EvaluationError
from policyd.errors import CsrError, DecisionError, IdentityError, IssuanceDenied, JournalError, PolicydError
from policyd.spiffe import SpiffeId
from tests.ca.samples import DOMAIN, LAPTOP, NOW, REVIEWS, Office, a_csr, a_key

RENEWAL = Evidence("x509", (f"x509:{LAPTOP}",))


@pytest.fixture
def office() -> Office:
    return Office()


def an_order(office: Office, identity: SpiffeId = REVIEWS) -> Order:
    return office.issuer.order(identity, LAPTOP, RENEWAL, source="127.0.0.1")


def test_an_issued_certificate_is_recorded_and_counted(office: Office) -> None:
    csr = a_csr()
    svid = office.issuer.issue(an_order(office), csr, kind="workload", agent="laptop")
    assert (svid.spiffe_id, office.counted) == (REVIEWS, ["workload"])
    assert office.recorder.entries == [
        Entry(
            time=NOW,
            kind="issuance",
            decision="allow",
            principal=f'Workload::"{LAPTOP}"',
            action='Action::"x509"',
            resource=f'Workload::"{REVIEWS}"',
            reasons=("issue-registered",),
            context=office.decider.asked[0].context,
            revision="r1",
            detail={
                "spiffe_id": str(REVIEWS),
                "evidence": {"kind": "x509", "selectors": [f"x509:{LAPTOP}"]},
                "agent": "laptop",
                "csr_sha256": hashlib.sha256(csr).hexdigest(),
                "requested_by": "workload",
                "serial": svid.serial,
                "not_after": "2026-11-23T13:00:00Z",
            },
        )
    ]


def refuse(office: Office) -> None:
    office.decider.decision = Decision(False, ("no-reviews",), (EvaluationError("broken", "no tag"),))


def break_engine(office: Office) -> None:
    office.decider.broken = True


def near_the_end(office: Office) -> None:
    office.clock.now = office.authority.intermediate.not_valid_after_utc - timedelta(minutes=1)


@pytest.mark.parametrize(
    ("happens", "csr", "kind", "outcome", "sources"),
    [
        (refuse, a_csr(), IssuanceDenied, "deny", ["broken", "issuance_denied"]),
        (break_engine, a_csr(), DecisionError, "error", ["decision"]),
        (near_the_end, a_csr(), IdentityError, "error", ["identity"]),
        (lambda office: None, b"junk", CsrError, "error", ["csr"]),
    ],
    ids=["policy", "engine", "authority", "request"],
)
def test_a_refusal_is_recorded_and_counted_as_one(
    office: Office,
    happens: Callable[[Office], None],
    csr: bytes,
    kind: type[PolicydError],
    outcome: str,
    sources: list[str],
) -> None:
    happens(office)
    with pytest.raises(kind):
        office.issuer.issue(an_order(office), csr, kind="workload", agent="laptop")
    (entry,) = office.recorder.entries
    assert (entry.decision, [fault.source for fault in entry.errors]) == (outcome, sources)
    assert "serial" not in entry.detail
    assert (office.counted, office.refused) == ([], [kind.code])


def test_the_revision_on_record_is_that_which_decided_whatever_is_in_force_once_it_is_signed(office: Office) -> None:
    def changing(count: int) -> bytes:
        office.revision = "r2"
        return os.urandom(count)

    office.random = changing
    order = office.issuer.order_jwt(REVIEWS, LAPTOP, Evidence("unix", ("unix:uid:1",)), ("shop",))
    office.issuer.issue_jwt(order, kind="workload")
    office.revision = "r1"
    office.issuer.issue(an_order(office), a_csr(), kind="workload")
    assert [entry.revision for entry in office.recorder.entries] == ["r1", "r1"]


def test_without_a_record_there_is_no_certificate(office: Office) -> None:
    office.recorder.full = True
    with pytest.raises(JournalError):
        office.issuer.issue(an_order(office), a_csr(), kind="workload")
    assert office.counted == []


def test_the_authority_s_own_key_is_refused(office: Office) -> None:
    with pytest.raises(CsrError, match="the authority's own key"):
        office.issuer.issue(an_order(office), a_csr(office.authority.key), kind="workload")


def test_a_join_token_s_failure_is_recorded_with_its_reason_and_without_the_token(office: Office) -> None:
    office.issuer.refuse_attestation("10.0.0.7", "used", "laptop")
    assert office.recorder.entries == [
        Entry(
            time=NOW,
            kind="issuance",
            decision="deny",
            principal='Unauthenticated::"anonymous"',
            action='Action::"x509"',
            errors=(Fault("token", "the join token is used"),),
            revision="r1",
            detail={"evidence": {"kind": "join_token"}, "reason": "used", "agent": "laptop", "source": "10.0.0.7"},
        )
    ]
    assert office.refused == ["token"]


@pytest.mark.parametrize(("source", "kept"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("unix:", ""), ("x", "")])
def test_only_an_address_is_a_source(office: Office, source: str, kept: str) -> None:
    assert office.issuer.order(REVIEWS, None, RENEWAL, source=source).source == kept


def test_the_server_s_own_certificate_is_recorded_and_no_policy_takes_it_away(office: Office) -> None:
    refuse(office)
    svid = office.issuer.issue_server(a_key().public_key())
    (entry,) = office.recorder.entries
    assert svid.spiffe_id == SpiffeId.server(DOMAIN)
    assert (entry.decision, entry.detail["serial"], entry.detail["requested_by"]) == ("allow", svid.serial, "server")
    assert (office.counted, office.decider.asked, SERVER_DNS_NAME) == (["server"], [], "policyd")
