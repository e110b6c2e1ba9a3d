"""Waiting after failures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.backoff import backoff


@pytest.mark.parametrize(
    ("failures", "spread", "seconds"),
    [(0, 0.0, 0.5), (1, 0.0, 0.5), (2, 0.0, 1.0), (4, 0.0, 4.0), (9, 0.0, 30.0), (9, 1.0, 36.0), (1, -9.0, 0.4)],
)
def test_doubles_up_to_the_most(failures: int, spread: float, seconds: float) -> None:
    assert backoff(failures, spread, first=0.5, most=30.0) == pytest.approx(seconds)


@given(st.integers(1, 10_000), st.floats(-1, 1))
def test_is_bounded_and_never_shrinks(failures: int, spread: float) -> None:
    wait = backoff(failures, spread, first=0.2, most=30.0)
    assert 0 < wait <= 36.0 + 1e-9
    assert backoff(failures + 1, spread, first=0.2, most=30.0) >= wait
