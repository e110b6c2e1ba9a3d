"""A record of the journal explained: the same question again, and what is not the same about it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from policyd.audit.record import Record, decode, encode, place
from policyd.authz.record import Outcome, entry_of
from policyd.authz.request import read_check
from policyd.authz.ruling import Ruling
from policyd.cedar.schema import Schema
from policyd.errors import BrokenRecord, NotFound
from policyd.mesh.model import Mesh
from policyd.policy.recorded import differs, recorded
from tests.authz.checks import PAGE, REVIEWS, at_gateway, check_of, ruling_of
from tests.policy.authored import files_of

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CANARY = {"request__http__headers": {"end-user": "jason", "x-other": "1"}}


def record_of(ruling: Ruling, check: Any, peer: Any = REVIEWS) -> Record:
    """What the journal has after a check, written and read again."""
    query = read_check(check, peer, ruling.mesh, NOW)
    question = ruling.engine.question(ruling.request(query.facts))
    decision = ruling.engine.answer(question)
    outcome = Outcome(decision.word, 200, ruling.revision, query, question.request, decision)
    return decode(encode(place(entry_of(outcome, "d-1", NOW, 12), "w", 1, "")))


@pytest.mark.parametrize(
    ("policies", "check", "notes"),
    [
        ("canary", check_of(**CANARY), ()),
        ("canary", check_of(), ()),
        (
            "v2-only canary",
            check_of(**CANARY, request__http__method="DELETE"),  # which no permit is for, so no header was read
            ("not recorded, so assumed: `context.request.headers`",),
        ),
        ("freeze", check_of(request__http__method="PUT"), ()),
        ("same-namespace", check_of(request__http__path="/health?x=1"), ()),
    ],
)
def test_the_question_is_asked_as_it_was(
    mesh: Mesh, schema: Schema, policies: str, check: Any, notes: tuple[str, ...]
) -> None:
    ruling = ruling_of(mesh, schema, files_of(*policies.split()))
    record = record_of(ruling, check)
    again = recorded(record, ruling)

    decision = ruling.decide(again.request)
    assert (decision.word, decision.reasons) == (record.decision, record.reasons)
    assert ruling.engine.question(again.request).request.context == _context(ruling, check)
    assert again.notes == notes
    assert differs(record, decision.word) == ""


def _context(ruling: Ruling, check: Any) -> Any:
    query = read_check(check, REVIEWS, ruling.mesh, NOW)
    return ruling.engine.question(ruling.request(query.facts)).request.context


def test_other_policies_are_said_to_be_others_and_what_they_miss(mesh: Mesh, schema: Schema) -> None:
    then, now = (
        ruling_of(mesh, schema, files_of("canary")),
        ruling_of(mesh, schema, files_of("same-namespace", "office")),
    )
    record = record_of(then, check_of(**CANARY))
    again = recorded(record, now)

    assert again.notes == (
        f"decided under revision {then.revision[:12]}; explained under {now.revision[:12]}, which the folder has now",
        "not recorded, so assumed: `context.client_ip`",
    )
    assert differs(record, now.decide(again.request).word) == "recorded was allow by `canary`; it would be deny now"


def test_a_caller_at_the_gateway_is_anonymous_again(ruling: Ruling) -> None:
    ingress = ruling.mesh.instances["ingress"].workload
    again = recorded(record_of(ruling, at_gateway(), ingress), ruling)
    assert str(again.request.principal) == 'Unauthenticated::"anonymous"'
    assert ruling.decide(again.request).reasons == ("world-to-ingress",)


def test_what_was_masked_or_failed_is_said(ruling: Ruling) -> None:
    record = record_of(ruling, check_of())
    masked = msgspec.structs.replace(record, masked=("request.headers.x",), decision="error")
    notes = recorded(masked, ruling).notes
    assert notes[0] == "masked in the record: `request.headers.x`"
    assert notes[1].startswith("nothing was decided then: ")
    assert differs(masked, "deny") == ""


@pytest.mark.parametrize("user", ["hmac-sha256:ab", {"__entity": {"type": "User"}, "claims": {"email": ["a…"]}}])
def test_a_user_whose_name_was_masked_is_not_assumed(ruling: Ruling, user: Any) -> None:
    record = record_of(ruling, check_of(**CANARY))
    masked = msgspec.structs.replace(record, context={**record.context, "user": user}, masked=("user.__entity.id",))
    again = recorded(masked, ruling)
    assert "user" not in again.request.context
    assert again.notes == ("masked in the record: `user.__entity.id`",)
    assert ruling.decide(again.request).word == record.decision


@pytest.mark.parametrize("change", [{"kind": "change"}, {"resource": ""}, {"principal": ""}])
def test_a_record_without_a_question_is_refused(ruling: Ruling, change: dict[str, Any]) -> None:
    record = msgspec.structs.replace(record_of(ruling, check_of()), **change)
    with pytest.raises(NotFound, match="without a question to policies"):
        recorded(record, ruling)


def test_a_caller_that_cannot_be_is_refused(ruling: Ruling) -> None:
    record = msgspec.structs.replace(record_of(ruling, check_of()), principal='Workload::"http://x"')
    with pytest.raises(BrokenRecord, match="has no caller that can be"):
        recorded(record, ruling)
    assert str(PAGE) in record_of(ruling, check_of()).principal
