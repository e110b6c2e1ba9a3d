"""A peer may ask so often, whatever others do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policyd.rate import Rate, RateLimit


class Seconds:
    """A clock in seconds that moves only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    clock = Seconds()
    limit = RateLimit(Rate(per_second=2, burst=3), clock)
    assert [limit.allow("a") for _ in range(5)] == [True, True, True, False, False]
    clock.now = 0.5
    assert [limit.allow("a"), limit.allow("a")] == [True, False]
    clock.now = 1000.0
    assert [limit.allow("a") for _ in range(4)] == [True, True, True, False]


def test_peers_do_not_share_a_bucket() -> None:
    limit = RateLimit(Rate(1, 1), Seconds())
    assert [limit.allow(peer) for peer in ("a", "b", "a", "b")] == [True, True, False, False]


def test_the_peer_that_asked_longest_ago_is_forgotten_first() -> None:
    limit = RateLimit(Rate(0.0, 1), Seconds(), max_peers=2)
    assert [limit.allow(peer) for peer in ("a", "b", "a", "c", "a", "b")] == [True, True, False, True, False, True]


@given(st.lists(st.floats(min_value=0, max_value=10), max_size=200))
def test_never_more_than_the_burst_and_the_rate_allow(pauses: list[float]) -> None:
    clock = Seconds()
    limit = RateLimit(Rate(per_second=0.5, burst=4), clock)
    passed = 0
    for pause in pauses:
        clock.now += pause
        passed += limit.allow("a")
    assert passed <= 4 + clock.now * 0.5 + 1e-6
