"""The shadow policies are heard and change nothing: not the reply, not the decision, not its record's own fields."""

from __future__ import annotations

from dataclasses import replace as with_changes
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from policyd.audit.record import MAX_LINE_BYTES, Entry, Fault, Shadow, encode, place
from policyd.authz.ruling import Ruling, make_ruling
from policyd.authz.service import Authorizer
from policyd.authz.shadow import ALLOWANCE, MAX_ERRORS, MAX_REASONS, SHARE, SPARE_SECONDS, Budget, union
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema
from policyd.errors import DecisionError
from policyd.mesh.model import Mesh
from tests.authz.checks import INGRESS, PAGE, REVIEWS, at_gateway, check_of
from tests.authz.test_egress import CONNECT
from tests.authz.test_egress import asked as outside
from tests.fakes.clock import FakeClock
from tests.fakes.decision_metrics import FakeDecisionMetrics
from tests.fakes.journal import FakeJournal

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HTTP = '(principal, action in Action::"http", resource)'
ALL = f'@id("all") permit {HTTP};'
NONE = f'@id("none") forbid {HTTP};'
READS = '@id("gets") permit (principal, action == Action::"GET", resource);'
SKIPPED = "shadow_skipped"


class House:
    """An Authorizer among fakes; an answer takes `effort` seconds of work."""

    def __init__(self, ruling: Ruling, effort: float = 0.0) -> None:
        self.clock = 0.0
        self.effort = effort
        self.journal = FakeJournal()
        self.metrics = FakeDecisionMetrics()
        worked = iter(range(1_000_000))
        self.authorizer = Authorizer(
            ruling=lambda: ruling,
            record=self.journal,
            metrics=self.metrics,
            clock=FakeClock(NOW),
            stopwatch=lambda: self.clock,
            effort=lambda: next(worked) * self.effort,
            new_id=lambda: "d" * 32,
        )

    def ask(self, check: Any, remaining: float | None = None) -> bytes:
        peer = INGRESS if "ingress" in str(check) and "gateway" in str(check) else REVIEWS
        return self.authorizer.check(check.SerializeToString(), peer, remaining)

    @property
    def last(self) -> Entry:
        return self.journal.entries[-1]


@pytest.fixture
def shadowed(mesh: Mesh, schema: Schema) -> Any:
    def make(active: str, shadow: str | None) -> Ruling:
        sets = [None if text is None else load_policies({"p.cedar": text}, schema) for text in (active, shadow)]
        assert sets[0] is not None
        return make_ruling(mesh, sets[0], schema, sets[1])

    return make


@pytest.mark.parametrize(
    ("active", "shadow", "change", "decision", "reasons"),
    [
        (ALL, ALL, "agree", "allow", ("all",)),
        (ALL, READS, "agree", "allow", ("gets",)),
        (NONE, "", "agree", "deny", ()),
        (ALL, ALL + NONE, "would_deny", "deny", ("none",)),
        (ALL, "", "would_deny", "deny", ()),
        ("", ALL, "would_allow", "allow", ("all",)),
        (NONE + ALL, ALL, "would_allow", "allow", ("all",)),
    ],
)
def test_both_answers_are_in_one_record(
    shadowed: Any, active: str, shadow: str, change: str, decision: Any, reasons: tuple[str, ...]
) -> None:
    ruling, alone = shadowed(active, shadow), House(shadowed(active, None))
    house = House(ruling)

    assert house.ask(check_of()) == alone.ask(check_of())

    expected = Shadow(decision=decision, reasons=reasons, revision=ruling.shadow.revision)
    assert house.last == replace(alone.last, shadow=expected)
    assert house.metrics.changes == [change]
    assert house.metrics.counted == alone.metrics.counted


def test_without_a_shadow_set_nothing_is_said(shadowed: Any) -> None:
    house = House(shadowed(ALL, None))
    house.ask(check_of())

    assert (house.last.shadow, house.metrics.changes) == (None, [])


@pytest.mark.parametrize("changes", [{"request__http__path": "/a/../b"}, {"context_extensions": None}])
def test_what_policies_were_not_asked_the_shadow_is_not_either(shadowed: Any, changes: dict[str, Any]) -> None:
    house = House(shadowed(ALL, NONE))
    house.ask(check_of(**changes))

    assert (house.last.status in (400, 503), house.last.shadow, house.metrics.changes) == (True, None, [])


def test_the_revisions_are_apart(shadowed: Any) -> None:
    plain, one, other = shadowed(ALL, None), shadowed(ALL, NONE), shadowed(ALL, READS)

    assert plain.revision == one.revision == other.revision
    assert len({plain.revision, one.shadow.revision, other.shadow.revision}) == 3
    assert one.shadow.revision == shadowed(NONE, None).revision


def test_what_only_the_shadow_reads_is_recorded_beside_what_the_active_policies_read(shadowed: Any) -> None:
    by_label = 'when { context.destination.labels.hasTag("version") }'
    by_header = 'when { context.request.headers.hasTag("end-user") }'
    house = House(shadowed(f'@id("a") permit {HTTP} {by_label};', f'@id("b") permit {HTTP} {by_header};'))
    house.ask(check_of(request__http__headers={"end-user": "jason", "x-secret": "s"}))

    assert house.last.context == {
        "request": {"method": "GET", "host": "reviews", "path": "/reviews/0", "headers": {"end-user": "jason"}},
        "destination": {"labels": {"app": "reviews", "version": "v1"}},
    }
    assert house.metrics.changes == ["agree"]


def test_an_error_in_a_shadow_policy_is_on_record_as_its_own(shadowed: Any) -> None:
    overflow = "when { context.request.segments * 9223372036854775807 > 0 }"
    house = House(shadowed(ALL, ALL + f'@id("odd") forbid {HTTP} {overflow};'))
    house.ask(check_of())

    assert (house.last.decision, house.last.errors) == ("allow", ())
    assert house.last.shadow is not None
    assert (house.last.shadow.decision, [one.source for one in house.last.shadow.errors]) == ("deny", ["odd"])


# ---- nothing that goes wrong goes further


class Broken:
    """A shadow that fails wherever it is touched beyond its revision."""

    revision = "r"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (DecisionError("no decision"), Fault("decision", "no decision")),
        (DecisionError("x" * 9000), Fault("decision", "x" * 512)),
        (ZeroDivisionError(), Fault("decision", "an unforeseen fault: ZeroDivisionError")),
        (RecursionError(), Fault("decision", "an unforeseen fault: RecursionError")),
        (MemoryError(), Fault("decision", "an unforeseen fault: MemoryError")),
    ],
)
def test_a_shadow_that_fails_is_an_error_of_its_own(shadowed: Any, error: Exception, fault: Fault) -> None:
    alone = House(shadowed(ALL, None))
    house = House(with_changes(shadowed(ALL, None), shadow=Broken(error)))

    assert house.ask(check_of()) == alone.ask(check_of())
    assert house.last == replace(alone.last, shadow=Shadow(decision="error", errors=(fault,), revision="r"))
    assert house.metrics.changes == ["error"]


def test_a_header_that_only_the_shadow_reads_cannot_fail_the_request(shadowed: Any) -> None:
    reading = f'@id("b") permit {HTTP} when {{ context.request.headers.hasTag("x-team") }};'
    house = House(shadowed(ALL, reading))
    house.ask(check_of(request__http__headers={"x-team": "a\x00b"}))

    assert (house.last.decision, house.last.context["request"].get("headers")) == ("allow", None)
    assert house.last.shadow is not None
    assert house.last.shadow.errors == (Fault("incomplete_request", "a header has characters that no header has"),)


def test_many_reasons_and_errors_are_cut_and_counted(shadowed: Any) -> None:
    overflow = "when { context.request.segments * 9223372036854775807 > 0 }"
    many = "".join(f'@id("p{at:04}") permit {HTTP}; @id("e{at:04}") permit {HTTP} {overflow};' for at in range(100))
    house = House(shadowed(ALL, many))
    house.ask(check_of())

    shadow = house.last.shadow
    assert shadow is not None
    assert (len(shadow.reasons), len(shadow.errors), shadow.omitted) == (MAX_REASONS, MAX_ERRORS, 36 + 84)


def test_a_record_that_would_be_too_large_is_kept_without_the_shadow(mesh: Mesh, schema: Schema) -> None:
    labels = {f"label-{at}": "v" * 60 for at in range(20_000)}
    instance = with_changes(mesh.instances["reviews-v1"], labels=labels)
    large = with_changes(mesh, instances={**mesh.instances, "reviews-v1": instance})
    reading = f'@id("b") permit {HTTP} when {{ context.destination.labels.hasTag("x") }};'
    active, shadow = (load_policies({"p.cedar": text}, schema) for text in (ALL, reading))
    house = House(make_ruling(large, active, schema, shadow))
    house.ask(check_of())

    assert house.last.decision == "allow"
    assert house.last.shadow is not None
    assert [one.source for one in house.last.shadow.errors] == ["decision"]
    assert len(encode(place(house.last, "serve-0", 1, ""))) < MAX_LINE_BYTES // 2


def test_a_caller_who_hardly_waits_any_more_goes_before_the_shadow(shadowed: Any) -> None:
    house = House(shadowed(ALL, NONE))
    for remaining in (SPARE_SECONDS, SPARE_SECONDS - 0.001):
        house.ask(check_of(), remaining)

    assert house.metrics.changes == ["would_deny", "skipped"]
    assert [one.decision for one in house.journal.entries] == ["allow", "allow"]
    assert house.last.shadow is not None
    assert [one.source for one in house.last.shadow.errors] == [SKIPPED]


def test_a_slow_shadow_is_asked_again_only_when_its_time_is_paid_off(shadowed: Any) -> None:
    house = House(shadowed(ALL, NONE), effort=1.0)
    seen = []
    for moment in (0.0, 0.1, (1.0 - ALLOWANCE) / SHARE - 0.01, (1.0 - ALLOWANCE) / SHARE + 0.01):
        house.clock = moment
        house.ask(check_of())
        seen.append(house.metrics.changes[-1])

    assert seen == ["would_deny", "skipped", "skipped", "would_deny"]
    assert {one.decision for one in house.journal.entries} == {"allow"}
    assert house.journal.entries[0].shadow is not None
    assert house.journal.entries[0].shadow.duration_us == 1_000_000


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), max_size=50))
def test_over_any_span_the_shadow_takes_its_share_and_one_decision_more(steps: list[tuple[float, float]]) -> None:
    budget, now, spent, longest = Budget(), 0.0, 0.0, 0.0
    for pause, effort in steps:
        now += pause
        if budget.is_left(now):
            budget.spend(effort)
            spent, longest = spent + effort, max(longest, effort)

    assert spent <= ALLOWANCE + longest + SHARE * now + 1e-6


def test_a_union_has_all_of_both_and_changes_neither() -> None:
    one, other = {"a": {"b": 1}, "c": 2}, {"a": {"d": 3}, "c": 2, "e": {"f": 4}}

    assert union(one, other) == {"a": {"b": 1, "d": 3}, "c": 2, "e": {"f": 4}}
    assert (one, other) == ({"a": {"b": 1}, "c": 2}, {"a": {"d": 3}, "c": 2, "e": {"f": 4}})


# ---- the law

SCOPES = (
    HTTP,
    '(principal, action == Action::"GET", resource)',
    '(principal, action in Action::"write", resource == Service::"reviews.default")',
    f'(principal == Workload::"{PAGE}", action in Action::"http", resource)',
    '(principal is Unauthenticated, action in Action::"http", resource is Service)',
    '(principal in Namespace::"default", action in Action::"read", resource)',
)
CONDITIONS = (
    "",
    'when { context.request.headers.hasTag("end-user") && context.request.headers.getTag("end-user") == "jason" }',
    'unless { context.request.headers.hasTag("x-team") }',
    'when { context.request.path like "/reviews/*" }',
    "when { context.request.segments * 9223372036854775807 > 0 }",
    'when { context.destination.labels.hasTag("version") }',
    'when { context.time > datetime("2026-11-23T11:00:00.000Z") }',
    'when { Service::"ratings.default".name == "ratings" }',
)
EFFECTS = st.sampled_from(("permit", "forbid"))
TUNNELS = EFFECTS.map(lambda effect: f'{effect} (principal, action == Action::"connect", resource)')
REQUESTS = st.tuples(EFFECTS, st.sampled_from(SCOPES), st.sampled_from(CONDITIONS)).map(" ".join)
POLICIES = st.lists(REQUESTS | TUNNELS, max_size=6).map(
    lambda statements: "".join(f'@id("p{at}") {one};\n' for at, one in enumerate(statements))
)
CHECKS = st.fixed_dictionaries(
    {},
    optional={
        "request__http__method": st.sampled_from(["GET", "PUT", "BREW", "CONNECT", ""]),
        "request__http__path": st.sampled_from(["/reviews/0", "/x?y=1", "/a/../b", "*"]),
        "request__http__headers": st.dictionaries(
            st.sampled_from(["end-user", "x-team", "X-Team", "x-request-id"]),
            st.sampled_from(["jason", "a\x00", "é" * 40_000]),
        ),
        "source__principal": st.sampled_from([str(PAGE), "spiffe://other/x", "no id"]),
    },
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(active=POLICIES, shadow=POLICIES, changes=CHECKS, left=st.sampled_from([None, 0.004, 0.015, 1.0]))
def test_whatever_is_tried_the_answer_is_the_one_without(
    mesh: Mesh, schema: Schema, active: str, shadow: str, changes: dict[str, Any], left: float | None
) -> None:
    active_set, shadow_set = (load_policies({"p.cedar": text}, schema) for text in (active, shadow))
    alone = House(make_ruling(mesh, active_set, schema))
    tried = House(make_ruling(mesh, active_set, schema, shadow_set))
    for check in (check_of(**changes), at_gateway(**changes), outside(), outside(**CONNECT)):
        assert tried.ask(check, left) == alone.ask(check, left)
        assert replace(tried.last, shadow=None, context=alone.last.context) == alone.last
        assert union(tried.last.context, alone.last.context) == tried.last.context
        asked = alone.last.decision in ("allow", "deny") and alone.last.status != 400
        assert (tried.last.shadow is not None) is asked
    assert tried.metrics.counted == alone.metrics.counted


@settings(max_examples=100, deadline=None)
@given(active=POLICIES, shadow=POLICIES)
def test_what_the_shadow_says_is_what_it_would_decide_if_it_were_active(
    mesh: Mesh, schema: Schema, active: str, shadow: str
) -> None:
    active_set, shadow_set = (load_policies({"p.cedar": text}, schema) for text in (active, shadow))
    tried = House(make_ruling(mesh, active_set, schema, shadow_set))
    enforced = House(make_ruling(mesh, shadow_set, schema))
    for check in (check_of(), check_of(request__http__method="PUT"), at_gateway(), outside(), outside(**CONNECT)):
        tried.ask(check)
        enforced.ask(check)
        said, expected = tried.last.shadow, enforced.last
        assert said is not None
        assert (said.decision, said.reasons, said.errors, said.revision) == (
            expected.decision,
            expected.reasons,
            expected.errors,
            expected.revision,
        )
