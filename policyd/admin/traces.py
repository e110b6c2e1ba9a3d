"""The administration API's part about traces: what the window holds, in the API's messages."""

from __future__ import annotations

from typing import Final

from policyd._pb import admin_pb2 as pb
from policyd.telemetry.traces import Row, Trace, Wanted, newest
from policyd.telemetry.traces_window import Window

LIMIT: Final = 50
MAX_LIMIT: Final = 1_000


def found(window: Window, request: pb.TracesRequest) -> pb.TracesReply:
    """The traces that are asked for, the one that was heard of last first."""
    wanted = Wanted(request.service, request.denied, request.failed, request.slower_ns)
    traces = newest(window.traces(), wanted, min(request.limit or LIMIT, MAX_LIMIT))
    fill = window.fill()
    return pb.TracesReply(
        traces=[_summary(one) for one in traces],
        window=pb.TraceWindow(
            bound=fill.bound,
            used=fill.used,
            traces=fill.traces,
            spans=fill.spans,
            taken=fill.taken,
            gone=fill.gone,
            cut=fill.cut,
        ),
    )


def shown(window: Window, trace_id: str) -> pb.TraceReply | None:
    """One trace; None where it is not in the window."""
    trace = window.trace(trace_id)
    if trace is None:
        return None
    return pb.TraceReply(summary=_summary(trace), rows=[_row(row) for row in trace.rows], cut=trace.cut)


def _summary(trace: Trace) -> pb.TraceSummary:
    return pb.TraceSummary(
        id=trace.id,
        name=trace.root.title,
        service=trace.root.service,
        start_ns=trace.start,
        duration_ns=trace.duration,
        spans=len(trace.spans),
        services=trace.services,
        failed=trace.failed,
        denied=trace.denied,
        whole=trace.whole,
    )


def _row(row: Row) -> pb.TraceRow:
    span, decided = row.span, row.decided
    return pb.TraceRow(
        span_id=span.span_id,
        parent_id=span.parent_id,
        name=span.name,
        service=span.service,
        kind=span.kind,
        peer=span.peer,
        depth=row.depth,
        offset_ns=row.offset,
        duration_ns=row.duration,
        moved_ns=row.moved,
        orphan=row.orphan,
        failed=span.failed,
        decision=decided.decision if decided else "",
        policy=decided.policy if decided else "",
        decision_id=decided.decision_id if decided else "",
        tags=[pb.TraceTag(name=name, value=value) for name, value in span.tags],
    )
