"""The life of one Envoy, phase by phase, and the laws that hold on every path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.lifecycle import Act, Event, Life, Limits, Phase, advance

LIMITS = Limits(drain=2.0, end=5.0, first_wait=0.2, most_wait=30.0, healthy=30.0)
NOW = 100.0
TABLE = [
    (Phase.NEW, Event.RUN, Phase.STARTING, [Act.START]),
    (Phase.NEW, Event.STOP, Phase.STOPPED, []),
    (Phase.STARTING, Event.READY, Phase.READY, []),
    (Phase.STARTING, Event.EXITED, Phase.CRASHED, []),
    (Phase.STARTING, Event.STOP, Phase.ENDING, [Act.TERMINATE]),
    (Phase.READY, Event.READY, Phase.READY, []),
    (Phase.READY, Event.EXITED, Phase.CRASHED, []),
    (Phase.READY, Event.STOP, Phase.DRAINING, [Act.DRAIN]),
    (Phase.READY, Event.DRAINED, Phase.READY, []),
    (Phase.CRASHED, Event.TICK, Phase.STARTING, [Act.START]),
    (Phase.CRASHED, Event.STOP, Phase.STOPPED, []),
    (Phase.CRASHED, Event.READY, Phase.CRASHED, []),
    (Phase.DRAINING, Event.DRAINED, Phase.ENDING, [Act.TERMINATE]),
    (Phase.DRAINING, Event.TICK, Phase.ENDING, [Act.TERMINATE]),
    (Phase.DRAINING, Event.STOP, Phase.ENDING, [Act.TERMINATE]),
    (Phase.DRAINING, Event.EXITED, Phase.STOPPED, []),
    (Phase.DRAINING, Event.READY, Phase.DRAINING, []),
    (Phase.ENDING, Event.TICK, Phase.ENDING, [Act.KILL]),
    (Phase.ENDING, Event.STOP, Phase.ENDING, [Act.KILL]),
    (Phase.ENDING, Event.EXITED, Phase.STOPPED, []),
    (Phase.STOPPED, Event.RUN, Phase.STOPPED, []),
    (Phase.STOPPED, Event.EXITED, Phase.STOPPED, []),
]


@pytest.mark.parametrize(("phase", "event", "then", "acts"), TABLE)
def test_each_event_leads_on(phase: Phase, event: Event, then: Phase, acts: list[Act]) -> None:
    life, done = advance(Life(phase, since=50.0), event, NOW, LIMITS, 0.0)
    assert (life.phase, list(done)) == (then, acts)


def test_a_crash_waits_longer_each_time() -> None:
    life, waits = Life(Phase.STARTING, since=NOW), []
    for _ in range(4):
        life, _acts = advance(life, Event.EXITED, NOW, LIMITS, 0.0)
        assert life.wake is not None
        waits.append(life.wake - NOW)
        life, _acts = advance(life, Event.TICK, NOW, LIMITS, 0.0)
    assert waits == pytest.approx([0.2, 0.4, 0.8, 1.6])
    assert (life.failures, life.restarts) == (4, 4)


def test_crashes_are_forgotten_after_a_healthy_while() -> None:
    ready = Life(Phase.READY, since=NOW, failures=6, restarts=6)
    early, _acts = advance(ready, Event.EXITED, NOW + 29, LIMITS, 0.0)
    late, _acts = advance(ready, Event.EXITED, NOW + 30, LIMITS, 0.0)
    assert early == Life(Phase.CRASHED, NOW + 29, NOW + 29 + 12.8, failures=7, restarts=6)
    assert late == Life(Phase.CRASHED, NOW + 30, NOW + 30.2, failures=1, restarts=6)


def test_draining_and_ending_have_their_time() -> None:
    draining, _acts = advance(Life(Phase.READY), Event.STOP, NOW, LIMITS, 0.0)
    ending, _acts = advance(draining, Event.TICK, NOW + 2, LIMITS, 0.0)
    assert (draining.wake, ending.wake) == (NOW + 2.0, NOW + 7.0)


@given(st.lists(st.tuples(st.sampled_from(list(Event)), st.floats(0, 100)), max_size=60), st.floats(-1, 1))
def test_laws_of_every_life(happenings: list[tuple[Event, float]], spread: float) -> None:
    life, now, process, stopping = Life(), 0.0, False, False
    for event, pause in happenings:
        now += pause
        if event is Event.EXITED:
            if not process:
                continue
            process = False
        stopping = stopping or event is Event.STOP
        before, (life, acts) = life, advance(life, event, now, LIMITS, spread)
        assert life is before or life.wake is None or life.wake > now
        for act in acts:
            if act is Act.START:
                assert not process, "two processes at once"
                assert not stopping, "a start after a stop"
                process = True
            else:
                assert process, f"{act} without a process"
        assert life.running is process
    if stopping and process:
        life, acts = _let_time_pass(life)
        assert Act.KILL in acts


def _let_time_pass(life: Life) -> tuple[Life, tuple[Act, ...]]:
    """Time passes and the process refuses to end, until it is killed."""
    acts: tuple[Act, ...] = ()
    for _ in range(2):
        assert life.wake is not None
        life, acts = advance(life, Event.TICK, life.wake, LIMITS, 0.0)
        if Act.KILL in acts:
            break
    return life, acts
