"""The life of a program, event by event, and its laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.cli.life import Life, Limits, Phase, awaited, died, ending, healthy, started, stopped

LIMITS = Limits(tries=3, first_wait=0.5, most_wait=8.0, healthy=10.0)
NOW = 100.0
UP = Life(Phase.HEALTHY, since=50.0, failures=2, restarts=4, was_healthy=True)


def test_a_program_is_started_answers_and_is_up() -> None:
    waiting = awaited(started(Life(), NOW), "no answer")

    assert waiting == Life(Phase.STARTING, since=NOW, why="no answer")
    assert healthy(waiting, NOW + 1) == Life(Phase.HEALTHY, since=NOW + 1, was_healthy=True)


def test_one_that_was_up_long_is_restarted_soon() -> None:
    assert died(UP, NOW, "ended", LIMITS, 0.0) == Life(
        Phase.WAITING, since=NOW, wake=NOW + 0.5, failures=1, restarts=4, was_healthy=True, why="ended"
    )


def test_one_that_dies_again_and_again_waits_longer_each_time() -> None:
    life, waits = Life(Phase.HEALTHY, since=NOW, was_healthy=True), []
    for _ in range(6):
        life = died(life, NOW, "ended", LIMITS, 0.0)
        waits.append(life.wake - NOW)
        life = started(life, NOW)

    assert waits == pytest.approx([0.5, 1, 2, 4, 8, 8])
    assert (life.phase, life.restarts) == (Phase.STARTING, 6)


def test_one_that_was_never_up_is_given_up() -> None:
    life, phases = Life(), []
    for _ in range(3):
        life = died(started(life, NOW), NOW, "ended with exit code 1", LIMITS, 0.0)
        phases.append(life.phase)

    assert phases == [Phase.WAITING, Phase.WAITING, Phase.GAVE_UP]
    assert life.why == "ended with exit code 1"


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.STARTING])
def test_an_answer_means_nothing_unless_it_was_just_started(phase: Phase) -> None:
    life = Life(phase, since=1.0)

    assert (healthy(life, NOW), awaited(life, "why")) == (life, life)


def test_endings_are_told_apart() -> None:
    assert [ending(code) for code in (0, 3, -9)] == [
        "ended with exit code 0",
        "ended with exit code 3",
        "was ended by signal 9",
    ]


@given(
    st.lists(st.tuples(st.sampled_from(["start", "answer", "die"]), st.floats(0, 60)), max_size=40), st.floats(-1, 1)
)
def test_laws_of_every_life(happenings: list[tuple[str, float]], spread: float) -> None:
    life, now = Life(), 0.0
    for what, pause in happenings:
        now += pause
        if life.phase is Phase.GAVE_UP:
            break
        if what == "start":
            life = started(life, now)
        elif what == "answer":
            life = healthy(life, now)
        else:
            life = died(life, now, "ended", LIMITS, spread)
        assert life.phase is not Phase.GAVE_UP or not life.was_healthy
        assert life.phase is not Phase.WAITING or 0 < life.wake - life.since <= LIMITS.most_wait * 1.2
        assert life.was_healthy or life.phase is not Phase.HEALTHY
    assert stopped(life, now).phase is Phase.STOPPED
