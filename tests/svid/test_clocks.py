"""Who is refused for a time hears both times, how far apart they are, and which clock that says something of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from policyd.errors import IdentityError
from policyd.svid.clocks import apart, check_times

BEGINS = datetime(2026, 3, 1, 12, tzinfo=UTC)
ENDS = BEGINS + timedelta(hours=1)
COMPARE = "compare the clocks of the two machines"


@pytest.mark.parametrize(
    ("now", "by", "message", "remedy"),
    [
        (
            BEGINS - timedelta(minutes=5),
            "",
            "the token begins at 2026-03-01T12:00:00Z, and here it is 2026-03-01T11:55:00Z: "
            "the clock here is 5 min behind that of who made it, or more",
            f"{COMPARE}, and set the one that is wrong",
        ),
        (
            BEGINS - timedelta(seconds=1),
            "policyd",
            "the token begins at 2026-03-01T12:00:00Z, and here it is 2026-03-01T11:59:59Z: "
            "the clock here is 1 s behind policyd's, or more",
            f"{COMPARE}, and set the one that is wrong",
        ),
        (
            ENDS,
            "",
            "the token ended at 2026-03-01T13:00:00Z, and here it is 2026-03-01T13:00:00Z, 0 s later",
            f"obtain a new one; if it is new, {COMPARE}",
        ),
        (
            ENDS + timedelta(days=3),
            "policyd",
            "the token ended at 2026-03-01T13:00:00Z, and here it is 2026-03-04T13:00:00Z: "
            "the clock here is 3 days ahead of policyd's, or more",
            f"{COMPARE}, and set the one that is wrong",
        ),
    ],
)
def test_what_is_not_good_now_says_which_clock_is_behind(now: datetime, by: str, message: str, remedy: str) -> None:
    with pytest.raises(IdentityError) as caught:
        check_times("the token", BEGINS, ENDS, now, by=by)
    assert (caught.value.message, caught.value.remedy) == (message, remedy)


@pytest.mark.parametrize("now", [BEGINS, ENDS - timedelta(microseconds=1)])
def test_what_is_good_now_passes(now: datetime) -> None:
    check_times("the token", BEGINS, ENDS, now)
    check_times("the token", None, None, now)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (-120, "2 min"), (7_199, "119 min"), (7_200, "2 h"), (172_800, "2 days")],
)
def test_how_far_two_clocks_are_apart_is_said_in_one_unit(seconds: int, text: str) -> None:
    assert apart(timedelta(seconds=seconds)) == text
