"""The window of traces: bounded, and it says what it let go of."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from policyd.telemetry.traces import Span
from policyd.telemetry.traces_window import MAX_SPANS, TRACE_BYTES, Fill, Window, size_of
from tests.telemetry.spans import GOOD, span


def of_trace(number: int, one: Span = GOOD) -> Span:
    return replace(one, trace_id=f"{number:032x}")


def ids(window: Window) -> list[int]:
    return [int(trace.id, 16) for trace in window.traces()]


SIZE = TRACE_BYTES + size_of(of_trace(1))  # of a trace with one span


def test_the_trace_that_was_heard_of_longest_ago_goes_first() -> None:
    child = of_trace(1, span("b", "a"))
    window = Window(3 * SIZE + size_of(child))
    window.add(of_trace(number) for number in (1, 2, 3))
    window.add([child])

    assert ids(window) == [1, 3, 2]
    window.add([of_trace(4)])
    assert ids(window) == [4, 1, 3]
    used = 3 * SIZE + size_of(child)
    assert window.fill() == Fill(window.fill().bound, used, traces=3, spans=4, taken=5, gone=1, cut=0)


def test_a_span_that_comes_twice_is_taken_once_and_both_ends_of_a_shared_one_are() -> None:
    window = Window(1 << 20)
    window.add([GOOD, GOOD, replace(GOOD, kind="client")])

    trace = window.trace(GOOD.trace_id)
    assert trace is not None
    assert [one.kind for one in trace.spans] == ["server", "client"]
    assert window.trace("0" * 32) is None


def test_one_trace_cannot_push_out_all_others() -> None:
    window = Window(64 << 20)
    window.add([of_trace(1)])
    window.add(of_trace(2, replace(GOOD, span_id=f"{number:016x}")) for number in range(MAX_SPANS + 5))

    trace = window.trace(f"{2:032x}")
    assert trace is not None
    assert (len(trace.spans), trace.cut, ids(window)) == (MAX_SPANS, 5, [2, 1])
    assert window.fill().cut == 5


def test_a_window_of_no_size_keeps_nothing() -> None:
    window = Window(0)
    window.add([of_trace(1)])
    assert (ids(window), window.fill().used) == ([], 0)


texts = st.text(max_size=40)
tagged = st.builds(
    lambda trace, number, tags: of_trace(trace, replace(GOOD, span_id=f"{number:016x}", tags=tuple(tags))),
    st.integers(1, 9),
    st.integers(1, 99),
    st.lists(st.tuples(texts, texts), max_size=5),
)


@given(st.lists(tagged, max_size=60), st.integers(0, 20_000))
def test_the_bound_holds_whatever_comes(spans: list[Span], bound: int) -> None:
    window = Window(bound)
    for one in spans:
        window.add([one])
        assert window.fill().used <= bound
    fill = window.fill()
    sizes = (TRACE_BYTES + sum(map(size_of, trace.spans)) for trace in window.traces())
    assert fill.used == sum(sizes)
    assert fill.taken == fill.spans + fill.gone


def test_the_bound_is_of_real_memory() -> None:
    bound = 4 << 20
    names = [f"tag-{number}" for number in range(12)]
    window = Window(bound)
    tracemalloc.start()
    try:
        for number in range(4_000):  # each with texts of its own, as they come from the wire
            tags = tuple((name, f"{name} of {number} ä") for name in names)
            of = of_trace(number // 8, replace(GOOD, span_id=f"{number:016x}", start=GOOD.start + number, tags=tags))
            window.add([of])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert window.fill().gone > 0
    assert bound / 2 < held < bound
