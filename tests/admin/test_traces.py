"""Traces as the administration API tells them."""

from __future__ import annotations

import pytest

from policyd._pb import admin_pb2 as pb
from policyd.admin import traces as admin_traces
from policyd.telemetry.traces import Span
from policyd.telemetry.traces_window import Window
from tests.telemetry.spans import AT, MS, TRACE, span

DENY = (
    ("http.status_code", "403"),
    ("policyd.decision", "deny"),
    ("policyd.policy", "p"),
    ("policyd.decision_id", "d"),
)
SPANS = (
    span("a", "", 0, 10, kind="client", peer="spiffe://cluster.local/ns/default/sa/web"),
    span("b", "a", 500, 504, service="api.default", failed=True, tags=DENY),
)
SUMMARY = pb.TraceSummary(
    id=TRACE, name="a", service="web.default", start_ns=AT, duration_ns=10 * MS, spans=2,
    services=["api.default", "web.default"], failed=True, denied=True, whole=True,
)  # fmt: skip


def window(*spans: Span) -> Window:
    made = Window(1 << 20)
    made.add(spans)
    return made


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (pb.TracesRequest(), 1),
        (pb.TracesRequest(service="api", denied=True, failed=True, slower_ns=10 * MS), 1),
        (pb.TracesRequest(service="bank"), 0),
        (pb.TracesRequest(slower_ns=11 * MS), 0),
    ],
)
def test_traces_are_listed_with_how_full_the_window_is(request_: pb.TracesRequest, found: int) -> None:
    held = window(*SPANS)
    fill = held.fill()

    assert admin_traces.found(held, request_) == pb.TracesReply(
        traces=[SUMMARY] * found,
        window=pb.TraceWindow(bound=1 << 20, used=fill.used, traces=1, spans=2, taken=2),
    )


def test_as_many_are_listed_as_are_asked_for() -> None:
    held = Window(8 << 20)
    held.add(Span(f"{at:032x}", "a" * 16, "", "n", "s", "server", AT, AT) for at in range(1_500))

    numbers = {limit: len(admin_traces.found(held, pb.TracesRequest(limit=limit)).traces) for limit in (0, 7, 9_999)}
    assert numbers == {0: admin_traces.LIMIT, 7: 7, 9_999: admin_traces.MAX_LIMIT}


def test_a_trace_is_shown_as_a_tree_with_what_was_decided() -> None:
    assert admin_traces.shown(window(*SPANS), TRACE) == pb.TraceReply(
        summary=SUMMARY,
        rows=[
            pb.TraceRow(
                span_id="a" * 16, name="a", service="web.default", kind="client",
                peer="spiffe://cluster.local/ns/default/sa/web", duration_ns=10 * MS,
            ),
            pb.TraceRow(
                span_id="b" * 16, parent_id="a" * 16, name="b", service="api.default", kind="server", depth=1,
                offset_ns=3 * MS, duration_ns=4 * MS, moved_ns=-497 * MS, failed=True, decision="deny", policy="p",
                decision_id="d", tags=[pb.TraceTag(name=name, value=value) for name, value in DENY],
            ),
        ],
    )  # fmt: skip
    assert admin_traces.shown(window(), TRACE) is None


def test_times_that_no_clock_shows_are_told_all_the_same() -> None:
    top = (1 << 63) - 1
    spans = (
        Span(TRACE, "a" * 16, "", "a", "web", "client", 0, 1),
        Span(TRACE, "b" * 16, "a" * 16, "b", "api", "server", top, top),
        Span(TRACE, "c" * 16, "b" * 16, "c", "db", "server", 0, top),
        Span(TRACE, "d" * 16, "x" * 16, "d", "db", "server", top, top),
    )

    shown = admin_traces.shown(window(*spans), TRACE)
    assert shown is not None
    assert [row.moved_ns for row in shown.rows] == [0, -top, 0, 0]
