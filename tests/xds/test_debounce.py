"""Many changes become one, within bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policyd.xds.debounce import Debounce


def test_nothing_is_due_when_nothing_came() -> None:
    assert Debounce().due() is None
    assert Debounce().note(1.0).done() == Debounce()


def test_it_waits_for_quiet() -> None:
    assert Debounce(0.5, 10.0).note(1.0).note(1.25).due() == 1.75


def test_it_does_not_wait_for_ever() -> None:
    noted = Debounce(0.5, 2.0)
    for tick in range(20):
        noted = noted.note(1.0 + tick * 0.25)
    assert noted.due() == 3.0


@given(st.lists(st.floats(0, 100), min_size=1).map(sorted))
def test_it_is_due_after_the_first_and_never_later_than_the_longest_wait(times: list[float]) -> None:
    noted = Debounce()
    for time in times:
        noted = noted.note(time)
    due = noted.due()
    assert due is not None
    assert times[0] < due <= times[0] + noted.longest
