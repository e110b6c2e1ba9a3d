"""What is believed of an application: nothing before it was seen often enough, and then until the contrary was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.health import Health, Probe, TcpSocket, after

WAY = TcpSocket("127.0.0.1", 1)


def believed(outcomes: str, success: int, failure: int) -> list[bool | None]:
    """What is believed after each outcome: `+` an answer, `-` none."""
    probe = Probe("web-1", WAY, success_threshold=success, failure_threshold=failure)
    health, found = Health(), []
    for outcome in outcomes:
        health = after(health, "" if outcome == "+" else "why", probe)
        found.append(health.healthy)
    return found


@pytest.mark.parametrize(
    ("outcomes", "success", "failure", "found"),
    [
        ("+", 1, 3, [True]),
        ("---", 1, 3, [None, None, False]),
        ("-+", 1, 3, [None, True]),
        ("+--+---+", 1, 3, [True, True, True, True, True, True, False, True]),
        ("++-+", 2, 1, [None, True, False, False]),
        ("--+-++", 2, 2, [None, False, False, False, False, True]),
    ],
)
def test_as_many_equal_outcomes_as_the_probe_wants(
    outcomes: str, success: int, failure: int, found: list[bool | None]
) -> None:
    assert believed(outcomes, success, failure) == found


def test_the_reason_is_the_last_one() -> None:
    probe = Probe("web-1", WAY, failure_threshold=1)
    first = after(Health(), "the answer is 500", probe)
    assert (first.healthy, first.reason) == (False, "the answer is 500")
    assert after(first, "no answer within 1 s", probe).reason == "no answer within 1 s"
    assert after(first, "", probe) == Health(healthy=True, successes=1)


@given(st.text("+-", max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_what_is_believed_changes_only_after_a_whole_row(outcomes: str, success: int, failure: int) -> None:
    before: bool | None = None
    for at, now in enumerate(believed(outcomes, success, failure)):
        if now is not before:
            length = success if now else failure
            assert outcomes[: at + 1].endswith(("+" if now else "-") * length)
        before = now
