"""Traces as trees, whatever spans say of one another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.telemetry.traces import Decided, Span, Trace, Wanted, newest
from tests.telemetry.spans import AT, MS, TRACE, span

CHECK = "async envoy.service.auth.v3.Authorization.Check egress"
ALLOW = (("policyd.decision", "allow"), ("policyd.policy", "web-may"), ("policyd.decision_id", "d-1"))
DENY = (("policyd.decision", "deny"), ("policyd.policy", "no-delete"), ("policyd.decision_id", "d-2"))


def shown(*spans: Span) -> list[tuple[str, int, float]]:
    """The names of spans as they are read, how deep they stand, and since when, in milliseconds."""
    return [(row.span.name, row.depth, row.offset / MS) for row in Trace(TRACE, spans).rows]


def test_a_span_stands_before_what_it_caused_in_the_order_of_time() -> None:
    spans = (span("c", "a", 5, 6), span("d", "b", 2, 3), span("a", "", 0, 10), span("b", "a", 1, 4))

    assert shown(*spans) == [("a", 0, 0), ("b", 1, 1), ("d", 2, 2), ("c", 1, 5)]


@pytest.mark.parametrize(
    ("spans", "rows", "whole"),
    [
        # what caused it is not known
        ([span("b", "x", 2, 3), span("a")], [("a", 0, 0), ("b", 0, 2)], False),
        ([span("b", "x", 2, 3)], [("b", 0, 0)], False),
        # two that caused one another, and one that caused itself
        ([span("a", "b", 0, 9), span("b", "a", 1, 2)], [("a", 0, 0), ("b", 1, 1)], False),
        ([span("a", "a", 0, 9)], [("a", 0, 0)], False),
        # two beginnings
        ([span("b", "", 3, 4), span("a")], [("a", 0, 0), ("b", 0, 3)], True),
    ],
)
def test_a_trace_that_is_not_as_it_should_be_is_shown_all_the_same(
    spans: list[Span], rows: list[tuple[str, int, float]], whole: bool
) -> None:
    assert shown(*spans) == rows
    assert Trace(TRACE, tuple(spans)).whole is whole


API = {"service": "api.default"}


@pytest.mark.parametrize(
    ("above", "below", "offset", "moved"),
    [
        (span("a", "", 0, 10, kind="client"), span("b", "a", 2, 8, **API), 2, 0),
        # an hour behind, an hour ahead: in the middle of what waited for it
        (span("a", "", 0, 10, kind="client"), span("b", "a", -3_600_000, -3_599_994, **API), 2, 3_600_002),
        (span("a", "", 0, 10, kind="client"), span("b", "a", 3_600_000, 3_600_006, **API), 2, -3_599_998),
        # longer than what waited for it, hence from its beginning
        (span("a", "", 0, 10, kind="client"), span("b", "a", -5, 15, **API), 0, 5),
        # work that goes on after the answer is no fault of a clock
        (span("a", "", 0, 10), span("b", "a", 12, 15, **API, kind="client"), 12, 0),
        # the same clock is right about itself
        (span("a", "", 0, 10), span("b", "a", -1, 2), 0, 0),
    ],
)
def test_clocks_that_differ_are_put_right_and_it_is_said(above: Span, below: Span, offset: float, moved: float) -> None:
    rows = {row.span.name: row for row in Trace(TRACE, (above, below)).rows}

    assert (rows["b"].offset / MS, rows["b"].moved / MS) == (offset, moved)


def test_what_follows_by_the_same_clock_moves_with_it() -> None:
    spans = (span("a", "", 0, 10, kind="client"), span("b", "a", 100, 106, **API), span("c", "b", 101, 105, **API))

    assert shown(*spans) == [("a", 0, 0), ("b", 1, 2), ("c", 2, 3)]


def test_the_question_to_policyd_says_what_was_decided_of_the_request() -> None:
    spans = (span("a", tags=DENY), Span(TRACE, "b" * 16, "a" * 16, CHECK, "web.default", "client", AT, AT + MS))
    rows = Trace(TRACE, spans).rows

    assert [row.decided for row in rows] == [Decided("deny", "no-delete", "d-2")] * 2


def test_a_trace_says_what_became_of_it() -> None:
    trace = Trace(TRACE, (span("a", "", 5, 10, tags=ALLOW), span("b", "a", 6, 30, failed=True, **API)))

    found = (trace.root.name, trace.start - AT, trace.duration, trace.services)
    assert found == ("a", 5 * MS, 25 * MS, ("api.default", "web.default"))
    assert (trace.failed, trace.denied, trace.whole) == (True, False, True)
    assert Trace(TRACE, (span("a", tags=DENY),)).denied
    assert not Trace(TRACE, (span("a"),), cut=1).whole


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (Wanted(), True),
        (Wanted(service="web"), True),
        (Wanted(service="web.default"), True),
        (Wanted(service="web.other"), False),
        (Wanted(denied=True), True),
        (Wanted(failed=True), False),
        (Wanted(slower=10 * MS), True),
        (Wanted(slower=11 * MS), False),
        (Wanted(service="api", denied=True), False),
    ],
)
def test_traces_are_found_by_what_became_of_them(wanted: Wanted, fits: bool) -> None:
    trace = Trace(TRACE, (span("a", tags=DENY),))

    assert newest([trace, trace, trace], wanted, 2) == ([trace, trace] if fits else [])


letters = st.sampled_from("abcdef")
any_span = st.builds(
    span,
    letters,
    st.sampled_from(["", *"abcdefx"]),
    st.integers(-50, 50),
    st.integers(50, 99),
    service=st.sampled_from(["web.default", "api.default"]),
    kind=st.sampled_from(["server", "client"]),
)


@given(st.lists(any_span, min_size=1, max_size=12))
def test_every_span_stands_once_and_nothing_begins_before_the_trace(spans: list[Span]) -> None:
    trace = Trace(TRACE, tuple(spans))

    assert sorted(id(row.span) for row in trace.rows) == sorted(map(id, spans))
    assert min(row.offset for row in trace.rows) == 0
    assert trace.duration >= max(row.duration for row in trace.rows)


def test_a_trace_may_be_as_deep_as_it_is_long() -> None:
    ids = [f"{number:016x}" for number in range(2_000)]
    spans = [Span(TRACE, one, before, "n", "s", "server", AT, AT) for one, before in zip(ids, ["", *ids], strict=False)]

    assert Trace(TRACE, tuple(spans)).rows[-1].depth == 1_999


@pytest.mark.parametrize(
    ("tags", "title"),
    [
        ((("http.method", "GET"), ("http.url", "http://shop/books")), "GET http://shop/books"),
        ((("http.url", "http://shop/books"),), "ingress"),
        ((), "ingress"),
    ],
)
def test_a_span_is_called_by_what_was_asked_for(tags: tuple[tuple[str, str], ...], title: str) -> None:
    assert span("ingress", tags=tags).title == title
