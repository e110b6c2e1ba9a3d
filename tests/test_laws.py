"""What holds of every property test."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import SHRINKING


@given(number=st.just(0))
def test_a_law_that_fails_has_the_time_to_say_why(request: pytest.FixtureRequest, number: int) -> None:
    marker = request.node.get_closest_marker("timeout")
    assert (marker and marker.args) == (SHRINKING + number,)
