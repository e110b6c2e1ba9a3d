"""The life of one program that `up` started, as a value: what happened goes in, the next life comes out.

Law: pure. Times are seconds of a monotonic clock. Who was healthy once is restarted for ever; who never was is given
up after a few failures, so that a mistake is shown and not retried in silence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from proxy.backoff import backoff


class Phase(Enum):
    """Where a program is; the values are what people read."""

    STARTING = "awaited"
    HEALTHY = "up"
    WAITING = "restarting"  # it died; the restart waits for `Life.wake`
    GAVE_UP = "gave up"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Limits:
    """`tries` failures before a program that was never healthy is given up; the rest in seconds."""

    tries: int = 3
    first_wait: float = 0.2
    most_wait: float = 30.0
    healthy: float = 30.0  # healthy for so long, past failures are forgotten


@dataclass(frozen=True, slots=True)
class Life:
    """One program: its phase since when, why it is not up, and when to start it again."""

    phase: Phase = Phase.STARTING
    since: float = 0.0
    wake: float = 0.0
    failures: int = 0  # in a row
    restarts: int = 0
    was_healthy: bool = False
    why: str = ""


def started(life: Life, now: float) -> Life:
    """It was started, again if it waited for that."""
    restarts = life.restarts + (life.phase is Phase.WAITING)
    return replace(life, phase=Phase.STARTING, since=now, restarts=restarts, why=life.why if restarts else "")


def awaited(life: Life, why: str) -> Life:
    """It runs and is not healthy yet, because of `why`; means nothing in other phases."""
    return replace(life, why=why) if life.phase is Phase.STARTING else life


def healthy(life: Life, now: float) -> Life:
    """It answered; means nothing unless it runs."""
    if life.phase is not Phase.STARTING:
        return life
    return replace(life, phase=Phase.HEALTHY, since=now, was_healthy=True, why="")


def died(life: Life, now: float, how: str, limits: Limits, spread: float) -> Life:
    """It ended by itself, or could not be started; `spread` (-1 to 1) varies the wait before the restart."""
    recovered = life.phase is Phase.HEALTHY and now - life.since >= limits.healthy
    failures = 1 if recovered else life.failures + 1
    if not life.was_healthy and failures >= limits.tries:
        return replace(life, phase=Phase.GAVE_UP, since=now, failures=failures, why=how)
    wait = backoff(failures, spread, first=limits.first_wait, most=limits.most_wait)
    return replace(life, phase=Phase.WAITING, since=now, wake=now + wait, failures=failures, why=how)


def stopped(life: Life, now: float) -> Life:
    """It was ended on purpose."""
    return replace(life, phase=Phase.STOPPED, since=now, why="")


def ending(code: int) -> str:
    """Say how a process ended, by its return code (negative: the signal's number)."""
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by signal {-code}"
