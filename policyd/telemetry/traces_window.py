"""The traces of the last while, in memory: as many as a bound leaves room for, the oldest go first.

Law: whatever is sent, memory stays below the bound, and what had to go or was never taken is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from sys import getsizeof
from typing import Final

from policyd.telemetry.traces import Span, Trace

MAX_SPANS: Final = 2_000  # of one trace
# a span, its two numbers, its key and its place in its trace, without its texts: what was measured, and a little more
SPAN_BYTES: Final = 520
TAG_BYTES: Final = 72  # a tag without its value's letters: names are shared
TRACE_BYTES: Final = 700
_SHARED: Final = 4_096  # texts that many spans have


@dataclass(frozen=True, slots=True)
class Fill:
    """How full the window is, and what went through it since the start."""

    bound: int
    used: int
    traces: int
    spans: int
    taken: int  # spans
    gone: int  # spans of traces that had to make room
    cut: int  # spans beyond what one trace may have


@dataclass(slots=True)
class _Kept:
    spans: dict[tuple[str, str], Span] = field(default_factory=dict)
    size: int = TRACE_BYTES
    cut: int = 0


class Window:
    """Traces by id; whose last span came longest ago goes first. For one thread."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._traces: dict[str, _Kept] = {}
        self._texts: dict[str, str] = {}
        self._used = self._spans = self._taken = self._gone = self._cut = 0

    def add(self, spans: Iterable[Span]) -> None:
        """Take spans; one that came before is not taken twice."""
        for span in spans:
            self._add(span)
        self._make_room()

    def trace(self, trace_id: str) -> Trace | None:
        """One trace."""
        kept = self._traces.get(trace_id)
        return Trace(trace_id, tuple(kept.spans.values()), kept.cut) if kept else None

    def traces(self) -> Iterator[Trace]:
        """All, the one that was heard of last first."""
        for trace_id, kept in reversed(self._traces.items()):
            yield Trace(trace_id, tuple(kept.spans.values()), kept.cut)

    def fill(self) -> Fill:
        """How full it is."""
        counts = (self._spans, self._taken, self._gone, self._cut)
        return Fill(self._bound, self._used, len(self._traces), *counts)

    def _add(self, span: Span) -> None:
        kept = self._traces.pop(span.trace_id, None) or _Kept()
        if not kept.spans:
            self._used += TRACE_BYTES
        self._traces[span.trace_id] = kept  # now the last one
        key = (span.span_id, span.kind)
        if key in kept.spans:
            return
        if len(kept.spans) >= MAX_SPANS:
            kept.cut += 1
            self._cut += 1
            return
        size = size_of(span)
        kept.spans[key] = self._with_shared_texts(span)
        kept.size += size
        self._used += size
        self._spans += 1
        self._taken += 1
        if self._used > self._bound:
            self._make_room()

    def _make_room(self) -> None:
        while self._used > self._bound and self._traces:
            oldest = next(iter(self._traces))
            gone = self._traces.pop(oldest)
            self._used -= gone.size
            self._spans -= len(gone.spans)
            self._gone += len(gone.spans)

    def _with_shared_texts(self, span: Span) -> Span:
        """The span, its names being those of other spans: a mesh has few of them, and each has many spans."""
        if len(self._texts) > _SHARED:
            self._texts.clear()
        share = self._texts.setdefault
        return Span(
            span.trace_id,
            span.span_id,
            span.parent_id,
            share(span.name, span.name),
            share(span.service, span.service),
            span.kind,
            span.start,
            span.end,
            span.failed,
            tuple((share(name, name), value) for name, value in span.tags),
            share(span.peer, span.peer),
        )


def size_of(span: Span) -> int:
    """The bytes that a span takes, rather too many than too few."""
    own = (span.trace_id, span.span_id, span.parent_id, *(value for _, value in span.tags))
    return SPAN_BYTES + TAG_BYTES * len(span.tags) + sum(map(getsizeof, own))
