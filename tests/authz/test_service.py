"""Checks in, replies out: whatever happens, it is on record, and nothing passes that is not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from policyd import envoy_api
from policyd.audit.record import Entry, Fault
from policyd.authz import reply
from policyd.authz.ruling import Ruling
from policyd.authz.service import MAX_CHECK_BYTES, Authorizer, new_decision_id
from policyd.cedar.schema import Schema
from policyd.mesh.model import Mesh
from policyd.sources.files import Folder
from policyd.spiffe import SpiffeId
from tests.authz.checks import INGRESS, PAGE, REVIEWS, at_gateway, check_of, ruling_of
from tests.fakes.clock import FakeClock
from tests.fakes.decision_metrics import FakeDecisionMetrics
from tests.fakes.journal import FakeJournal

ID = "d" * 32
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


class House:
    """An Authorizer among fakes."""

    def __init__(self, ruling: Ruling | None, stopwatch: Callable[[], float] | None = None) -> None:
        ticks = iter(range(1_000_000))
        self.journal = FakeJournal()
        self.metrics = FakeDecisionMetrics()
        self.authorizer = Authorizer(
            ruling=lambda: ruling,
            record=self.journal,
            metrics=self.metrics,
            clock=FakeClock(NOW),
            stopwatch=stopwatch or (lambda: next(ticks) / 1000),
            new_id=lambda: ID,
        )

    def ask(self, check: Any, peer: SpiffeId = REVIEWS) -> bytes:
        return self.authorizer.check(check.SerializeToString(), peer)


def test_an_allowed_request_is_recorded_with_what_was_read(ruling: Ruling) -> None:
    house = House(ruling)
    assert house.ask(check_of()) == reply.allow(ID, "reviews-from-productpage")
    assert house.journal.entries == [
        Entry(
            time=NOW,
            kind="decision",
            decision="allow",
            status=200,
            decision_id=ID,
            principal=f'Workload::"{PAGE}"',
            action='Action::"GET"',
            resource='Service::"reviews.default"',
            reasons=("reviews-from-productpage",),
            context={"request": {"method": "GET", "host": "reviews", "path": "/reviews/0"}},
            revision=ruling.revision,
            proxy="reviews-v1",
            request_id="r-1",
            duration_us=1000,
        )
    ]
    assert house.metrics.counted == [("allow", "inbound", 0.002)]
    assert house.metrics.revisions == [ruling.revision]


def test_a_denied_request_is_403(ruling: Ruling) -> None:
    house = House(ruling)
    assert house.ask(check_of(request__http__method="DELETE")) == reply.deny(ID, "")
    (entry,) = house.journal.entries
    assert (entry.decision, entry.status, entry.reasons, entry.action) == ("deny", 403, (), 'Action::"DELETE"')


def test_the_world_reaches_the_gateway_however_it_names_itself(ruling: Ruling) -> None:
    house = House(ruling)
    forged = at_gateway(source__principal=str(PAGE))
    assert house.ask(forged, INGRESS) == reply.allow(ID, "world-to-ingress")
    (entry,) = house.journal.entries
    assert entry.principal == 'Unauthenticated::"anonymous"'
    assert house.metrics.counted == [("allow", "gateway", 0.002)]


def test_a_forged_identity_at_the_gateway_gains_nothing(mesh: Mesh, schema: Schema) -> None:
    only_page = f'@id("page") permit (principal == Workload::"{PAGE}", action, resource);'
    house = House(ruling_of(mesh, schema, {"p.cedar": only_page}))
    forged = at_gateway(source__principal=str(PAGE), destination__principal=str(INGRESS))
    assert house.ask(forged, INGRESS) == reply.deny(ID, "")


def test_headers_and_labels_that_policies_read_are_recorded_and_no_others(mesh: Mesh, schema: Schema) -> None:
    text = """@id("canary") permit (principal, action in Action::"http", resource)
        when { context.request.headers.hasTag("end-user") && context.destination.labels.hasTag("version") };"""
    house = House(ruling_of(mesh, schema, {"p.cedar": text}))
    house.ask(check_of(request__http__headers={"end-user": "jason", "x-secret": "s", "x-request-id": "1"}))
    (entry,) = house.journal.entries
    assert entry.context == {
        "request": {"method": "GET", "host": "reviews", "path": "/reviews/0", "headers": {"end-user": "jason"}},
        "destination": {"labels": {"app": "reviews", "version": "v1"}},
    }


def test_a_path_without_a_form_is_400(ruling: Ruling) -> None:
    house = House(ruling)
    assert house.ask(check_of(request__http__path="/a/../reviews/0")) == reply.refuse_path(ID)
    (entry,) = house.journal.entries
    assert (entry.decision, entry.status, entry.principal, entry.resource) == (
        "deny",
        400,
        f'Workload::"{PAGE}"',
        'Service::"reviews.default"',
    )
    assert entry.errors == (Fault("unacceptable_path", "`/a/../reviews/0` has a dot segment"),)


def test_an_incomplete_check_is_an_error_not_a_denial(ruling: Ruling) -> None:
    house = House(ruling)
    assert house.ask(check_of(context_extensions=None)) == reply.fail(ID)
    (entry,) = house.journal.entries
    fault = Fault("incomplete_request", "the check names no listener of the mesh: `''`")
    assert (entry.decision, entry.status, entry.errors) == ("error", 503, (fault,))
    assert house.metrics.counted == [("error", "", 0.002)]


SAMPLED = {"policyd.listener": "reviews-v1/inbound", "policyd.sampled": "1"}


@pytest.mark.parametrize(
    ("changes", "remaining"),
    [({"request__http__method": ""}, None), ({"request__http__host": ""}, None), ({}, 0.0)],
    ids=["no method", "no host", "too late"],
)
def test_what_a_proxy_decides_is_on_record_by_its_own_way_alone(
    ruling: Ruling, changes: dict[str, Any], remaining: float | None
) -> None:
    house = House(ruling)
    body = check_of(context_extensions=SAMPLED, **changes).SerializeToString()
    revision = "" if remaining is not None else ruling.revision

    assert house.authorizer.check(body, REVIEWS, remaining) == reply.beside("error", "", revision)
    assert (house.journal.entries, house.metrics.counted) == ([], [])


def test_who_says_so_of_a_listener_of_somebody_else_is_on_record(ruling: Ruling) -> None:
    house = House(ruling)
    assert house.ask(check_of(context_extensions=SAMPLED), PAGE) == reply.fail(ID)
    assert [one.decision for one in house.journal.entries] == ["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\xff\xff", "the check is no CheckRequest"),
        (b"\0" * (MAX_CHECK_BYTES + 1), "a check has at most 262144 bytes, this one 262145"),
        (b"", "the check names no listener of the mesh: `''`"),
    ],
)
def test_bytes_that_are_no_check_are_an_error(ruling: Ruling, body: bytes, message: str) -> None:
    house = House(ruling)
    assert house.authorizer.check(body, REVIEWS) == reply.fail(ID)
    assert house.journal.entries[0].errors == (Fault("incomplete_request", message),)


def test_without_a_revision_nothing_is_decided() -> None:
    house = House(None)
    assert house.ask(check_of()) == reply.fail(ID)
    assert house.journal.entries[0].errors == (Fault("decision", "no revision is in force"),)


def test_without_a_policy_everything_is_denied(mesh: Mesh, schema: Schema) -> None:
    assert House(ruling_of(mesh, schema, {})).ask(check_of()) == reply.deny(ID, "")


def test_what_cannot_be_recorded_does_not_pass(ruling: Ruling) -> None:
    house = House(ruling)
    house.journal.broken = True
    assert house.ask(check_of()) == reply.fail(ID)
    assert house.metrics.counted == [("error", "inbound", 0.002)]
    house.journal.broken = False
    assert house.ask(check_of()) == reply.allow(ID, "reviews-from-productpage")


OVERFLOW = "context.request.segments * 9223372036854775807 > 0"


def test_a_forbid_that_fails_denies_and_is_on_record(folder: Folder, mesh: Mesh, schema: Schema) -> None:
    broken = f'@id("never") forbid (principal, action in Action::"http", resource) when {{ {OVERFLOW} }};'
    house = House(ruling_of(mesh, schema, {**folder.below("policies"), "z.cedar": broken}))
    assert house.ask(check_of()) == reply.deny(ID, "")
    (entry,) = house.journal.entries
    assert (entry.decision, entry.status, [fault.source for fault in entry.errors]) == ("deny", 403, ["never"])


def test_a_permit_that_fails_is_on_record(folder: Folder, mesh: Mesh, schema: Schema) -> None:
    broken = f'@id("odd") permit (principal, action in Action::"http", resource) when {{ {OVERFLOW} }};'
    house = House(ruling_of(mesh, schema, {**folder.below("policies"), "z.cedar": broken}))
    assert house.ask(check_of()) == reply.allow(ID, "reviews-from-productpage")
    assert [fault.source for fault in house.journal.entries[0].errors] == ["odd"]


def test_a_fault_of_our_own_is_503_and_on_record(ruling: Ruling) -> None:
    class Broken:
        mesh = property(lambda self: 1 / 0)
        revision = "r"

    house = House(Broken())  # type: ignore[arg-type]
    assert house.ask(check_of()) == reply.fail(ID)
    assert house.journal.entries[0].errors == (Fault("decision", "an unforeseen fault: ZeroDivisionError"),)


def test_decision_ids_are_ours_and_fresh() -> None:
    ids = {new_decision_id() for _ in range(100)}
    assert len(ids) == 100
    assert {len(one) for one in ids} == {reply.ID_LENGTH}


def test_every_reply_is_a_check_response(ruling: Ruling) -> None:
    response = envoy_api.message("envoy.service.auth.v3.CheckResponse")
    house = House(ruling)
    for check in (
        check_of(),
        check_of(request__http__method="PUT"),
        check_of(request__http__path="*"),
        check_of(source=None),
    ):
        assert response.FromString(house.ask(check)).dynamic_metadata["decision_id"] == ID


@pytest.mark.parametrize(
    ("remaining", "answered"), [(None, True), (1.0, True), (0.005, True), (0.004, False), (-1.0, False)]
)
def test_a_check_that_cannot_be_answered_in_time_is_an_error_on_record(
    ruling: Ruling, remaining: float | None, answered: bool
) -> None:
    house = House(ruling)

    made = house.authorizer.check(check_of().SerializeToString(), REVIEWS, remaining)

    assert made == (reply.allow(ID, "reviews-from-productpage") if answered else reply.fail(ID))
    [entry] = house.journal.entries
    assert (entry.decision, entry.status) == (("allow", 200) if answered else ("error", 503))
    assert [fault.source for fault in entry.errors] == ([] if answered else ["too_late"])
    assert house.metrics.sheds == (0 if answered else 1)
