"""Spans of a request become one trace: a tree with times that fit together, and what was decided in it.

Law: pure. Spans come from others: one may be missing, may come twice or name itself as its cause, and its clock may be
wrong; a trace is shown all the same, each span once, and says what was put right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from policyd import names

Kind = Literal["internal", "server", "client", "producer", "consumer"]
ASKS_POLICYD: Final = "envoy.service.auth.v3.Authorization.Check"  # in the name of the span of a check
_DECISION: Final = f"{names.SPAN_TAGS}.{names.METADATA_DECISION}"
_POLICY: Final = f"{names.SPAN_TAGS}.{names.METADATA_POLICY}"
_DECISION_ID: Final = f"{names.SPAN_TAGS}.{names.METADATA_DECISION_ID}"


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a request's way: who was busy with it, from when to when (nanoseconds since the epoch).

    `parent_id` is "" where nothing caused it; `peer` is the identity that told of it.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    kind: Kind
    start: int
    end: int
    failed: bool = False
    tags: tuple[tuple[str, str], ...] = ()
    peer: str = ""

    def tag(self, name: str) -> str:
        """The value of a tag, "" without it."""
        return next((value for known, value in self.tags if known == name), "")

    @property
    def title(self) -> str:
        """What was asked for, where it says so, else its name."""
        method, url = self.tag("http.method"), self.tag("http.url")
        return f"{method} {url}" if method and url else self.name

    @property
    def asks_policyd(self) -> bool:
        """Whether it is the question to policyd."""
        return ASKS_POLICYD in self.name


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided; the id leads to the record."""

    decision: str
    policy: str
    decision_id: str


@dataclass(frozen=True, slots=True)
class Row:
    """A span in its trace: how deep below the first one, since when and how long (nanoseconds).

    `moved` is by how much it was shifted, as its clock must be wrong; `orphan` says that what caused it is not known.
    """

    span: Span
    depth: int
    offset: int
    moved: int = 0
    orphan: bool = False
    decided: Decided | None = None

    @property
    def duration(self) -> int:
        """How long it took."""
        return self.span.end - self.span.start


@dataclass(frozen=True)
class Trace:
    """All spans of one trace that are known; `cut` is how many more were told of and not kept."""

    id: str
    spans: tuple[Span, ...]
    cut: int = 0

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The spans as a tree is read: each before those that it caused, these by their beginning."""
        rows = tuple(_walk(self.spans))
        first = min(row.offset for row in rows)
        return tuple(_since(row, first) for row in rows)

    @property
    def root(self) -> Span:
        """The first span of the tree."""
        return self.rows[0].span

    @property
    def start(self) -> int:
        """When it began, by the clock of its first span."""
        return self.root.start - self.rows[0].offset

    @property
    def duration(self) -> int:
        """From the first beginning to the last end."""
        return max(row.offset + row.duration for row in self.rows)

    @property
    def services(self) -> tuple[str, ...]:
        """Who took part, by name."""
        return tuple(sorted({span.service for span in self.spans}))

    @property
    def failed(self) -> bool:
        """Whether some span says that it failed."""
        return any(span.failed for span in self.spans)

    @property
    def denied(self) -> bool:
        """Whether something in it was denied."""
        return any(span.tag(_DECISION) == "deny" for span in self.spans)

    @property
    def whole(self) -> bool:
        """Whether everything that is named as a cause is known."""
        return not self.cut and not any(row.orphan for row in self.rows)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which traces are looked for; what is not given does not matter. `slower` is in nanoseconds."""

    service: str = ""
    denied: bool = False
    failed: bool = False
    slower: int = 0

    def fits(self, trace: Trace) -> bool:
        """Whether a trace is one of them."""
        return (
            (not self.service or any(self.service in (one, one.partition(".")[0]) for one in trace.services))
            and (trace.denied or not self.denied)
            and (trace.failed or not self.failed)
            and trace.duration >= self.slower
        )


def decided_in(span: Span) -> Decided | None:
    """What was decided about the request whose span it is."""
    decision = span.tag(_DECISION)
    return Decided(decision, span.tag(_POLICY), span.tag(_DECISION_ID)) if decision else None


def _since(row: Row, first: int) -> Row:
    return Row(row.span, row.depth, row.offset - first, row.moved, row.orphan, row.decided)


def _walk(spans: Sequence[Span]) -> Iterator[Row]:
    """The rows of a trace; `offset` is when each begins, by its parent's clock."""
    known = {span.span_id for span in spans}
    below: Mapping[str, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=_began):
        below[span.parent_id].append(span)
    seen: set[int] = set()
    tops = [span for span in spans if span.parent_id not in known]
    # what only goes round in circles has no beginning: the earliest is taken for one
    for top in (*sorted(tops, key=lambda one: (bool(one.parent_id), _began(one))), *sorted(spans, key=_began)):
        if id(top) not in seen:
            yield from _branch(top, below, seen)


def _began(span: Span) -> tuple[int, str]:
    return span.start, span.span_id


def _branch(top: Span, below: Mapping[str, list[Span]], seen: set[int]) -> Iterator[Row]:
    """A span and all that follows from it, without recursion: a trace may be as deep as it is long."""
    waiting = [Row(top, 0, top.start, 0, bool(top.parent_id), decided_in(top))]
    seen.add(id(top))
    while waiting:
        row = waiting.pop()
        yield row
        caused = [one for one in below.get(row.span.span_id, ()) if id(one) not in seen]
        seen.update(map(id, caused))
        waiting += sorted((_below(row, one) for one in caused), key=_offset, reverse=True)


def _offset(row: Row) -> tuple[int, str]:
    return row.offset, row.span.span_id


def _below(above: Row, span: Span) -> Row:
    decided = decided_in(span) or (above.decided if span.asks_policyd else None)
    moved = above.moved if span.service == above.span.service else _moved(above, span)
    return Row(span, above.depth + 1, span.start + moved, moved, False, decided)


def _moved(above: Row, span: Span) -> int:
    """By how much a clock that cannot be right is put right: a call lies in the middle of what waited for it."""
    begins, ends = above.offset, above.offset + above.duration
    is_late = span.kind == "server" and above.span.kind == "client" and span.start > ends
    if begins <= span.start and not is_late:
        return 0
    room = max(0, above.duration - (span.end - span.start))
    return begins + room // 2 - span.start


def newest(traces: Iterable[Trace], wanted: Wanted, limit: int) -> list[Trace]:
    """Those that are looked for, at most `limit`, in the order in which they are given."""
    found: list[Trace] = []
    for trace in traces:
        if len(found) >= limit:
            break
        if wanted.fits(trace):
            found.append(trace)
    return found
