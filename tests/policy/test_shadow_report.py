"""A trial summed up: every record counted once, and every change with its place, its policies and an example."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from policyd.audit.record import Fault, Record, Shadow, place
from policyd.policy.shadow_report import Example, Failing, Report, Revision, Row, latest, report
from tests.audit.samples import NOON, PRODUCTPAGE, an_entry

GET, REVIEWS = 'Action::"GET"', 'Service::"reviews.default"'
NOTHING = Report({"agree": 0, "would_deny": 0, "would_allow": 0, "skipped": 0, "error": 0}, 0, (), (), ())


def recorded(number: int, shadow: Shadow | None = None, **changes: Any) -> Record:
    """The decision of a second, `number`."""
    entry = an_entry(time=NOON + timedelta(seconds=number), decision_id=f"d-{number}", shadow=shadow, **changes)
    return place(entry, "w", number + 1, "")


def said(decision: Any, *reasons: str, revision: str = "77", **more: Any) -> Shadow:
    return Shadow(decision=decision, reasons=reasons, revision=revision, **more)


def at(number: int) -> Any:
    return NOON + timedelta(seconds=number)


def test_nothing_recorded_is_nothing_compared() -> None:
    assert report([]) == NOTHING
    assert (NOTHING.compared, NOTHING.changed, NOTHING.failed) == (0, 0, 0)


def test_requests_of_one_caller_action_and_service_are_a_row() -> None:
    denied = {"decision": "deny", "reasons": (), "status": 403}
    found = report(
        [
            recorded(0, said("allow", "r")),
            recorded(1, said("deny", "no-reads")),
            recorded(4, said("deny", "no-reads", "rare")),
            recorded(3, said("deny", "no-reads")),
            recorded(5, said("deny")),
            recorded(6, said("deny", "no-reads"), action='Action::"PUT"'),
            recorded(7, said("allow", "new"), **denied),
            recorded(8, None),
            recorded(9, None, kind="change"),
        ]
    )

    by = ("reviews-from-productpage",)
    five, put, seven = (Example(f"d-{number}", "GET", "/reviews/0") for number in (5, 6, 7))
    assert found == Report(
        counts={"agree": 1, "would_deny": 5, "would_allow": 1, "skipped": 0, "error": 0},
        alone=1,
        revisions=(Revision("77", 7, at(0), at(7)),),
        rows=(
            Row("would_allow", PRODUCTPAGE, GET, REVIEWS, 1, at(7), at(7), ("new",), ("",), seven),
            Row("would_deny", PRODUCTPAGE, GET, REVIEWS, 4, at(1), at(5), ("no-reads", "", "rare"), by, five),
            Row("would_deny", PRODUCTPAGE, 'Action::"PUT"', REVIEWS, 1, at(6), at(6), ("no-reads",), by, put),
        ),
        failing=(),
    )
    assert (found.compared, found.changed, found.failed) == (7, 6, 0)


def test_a_forbid_that_failed_determines_the_denial() -> None:
    found = report([recorded(0, said("deny", errors=(Fault("odd", "overflow"),)))])

    example = Example("d-0", "GET", "/reviews/0")
    assert (found.rows[0].shadow, found.failing) == (("odd",), (Failing("odd", "overflow", 1, example),))


def test_what_has_no_answer_is_told_apart_from_what_was_not_asked_in_time() -> None:
    late, broken = (said("error", errors=(Fault(source, "m"),)) for source in ("shadow_skipped", "decision"))
    found = report([recorded(0, late), recorded(1, late), recorded(2, broken), recorded(3, said("allow"))])

    assert (found.compared, found.skipped, found.failed) == (1, 2, 1)
    assert [(one.source, one.count) for one in found.failing] == [("decision", 1)]


def test_revisions_are_told_apart_and_one_can_be_chosen() -> None:
    records = [
        recorded(0, said("deny", "no-reads", revision="aa11")),
        recorded(1, said("allow", "r", revision="bb22")),
        recorded(2, said("deny", "no-reads", revision="aa11")),
    ]

    assert report(records).revisions == (Revision("bb22", 1, at(1), at(1)), Revision("aa11", 2, at(0), at(2)))
    assert latest(records) == "aa11"
    assert latest([recorded(0)]) == ""
    chosen = report(records, "bb")
    assert (chosen.compared, chosen.changed, chosen.revisions) == (1, 0, (Revision("bb22", 1, at(1), at(1)),))
    assert report(records, "cc") == NOTHING


SHADOWS = st.none() | st.builds(
    said,
    st.sampled_from(["allow", "deny", "error"]),
    st.sampled_from(["a", "b"]),
    revision=st.sampled_from(["77", "88"]),
    errors=st.lists(st.builds(Fault, st.sampled_from(["shadow_skipped", "odd"]), st.just("m")), max_size=1).map(tuple),
)


@given(st.lists(st.tuples(SHADOWS, st.sampled_from(["allow", "deny"]), st.sampled_from([GET, 'Action::"PUT"']))))
def test_every_record_is_counted_once(parts: list[tuple[Shadow | None, Any, str]]) -> None:
    records = [recorded(at, shadow, decision=word, action=act) for at, (shadow, word, act) in enumerate(parts)]
    found = report(records)

    assert sum(found.counts.values()) + found.alone == len(records)
    assert sum(row.count for row in found.rows) == found.changed
    assert sum(one.count for one in found.revisions) == sum(found.counts.values())
    assert found == report(reversed(records))
