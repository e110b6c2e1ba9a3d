"""The life of one Envoy as a value: what happened goes in, what to do comes out.

Law: pure. Times are seconds of a monotonic clock. No START after STOP; never two processes at once; each way out of
a stop ends in `stopped`, at the latest with a KILL.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from proxy.backoff import backoff


class Phase(Enum):
    """Where an Envoy is; the values are what status.json shows."""

    NEW = "new"
    STARTING = "starting"  # the process runs, its configuration is not complete
    READY = "ready"
    CRASHED = "crashed"  # it ended by itself; it will be started again
    DRAINING = "draining"  # told to stop: clients are told to go elsewhere, what is under way may end
    ENDING = "ending"  # sent SIGTERM
    STOPPED = "stopped"


class Event(Enum):
    """What happened."""

    RUN = "run"  # asked to run
    READY = "ready"  # /ready answered 200
    EXITED = "exited"
    STOP = "stop"  # asked to stop; asked twice: at once
    DRAINED = "drained"  # nothing is left to do
    TICK = "tick"  # the time of `Life.wake` has come


class Act(Enum):
    """What to do."""

    START = "start"
    DRAIN = "drain"
    TERMINATE = "terminate"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: how long draining and ending may take, what a restart waits, and when past crashes are forgotten."""

    drain: float = 5.0
    end: float = 5.0
    first_wait: float = 0.2
    most_wait: float = 30.0
    healthy: float = 30.0


@dataclass(frozen=True, slots=True)
class Life:
    """One Envoy's phase, since when, and when to look again (`wake`, None: not before something happens)."""

    phase: Phase = Phase.NEW
    since: float = 0.0
    wake: float | None = None
    failures: int = 0  # crashes in a row
    restarts: int = 0

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self.phase in (Phase.STARTING, Phase.READY, Phase.DRAINING, Phase.ENDING)


Step = tuple[Life, tuple[Act, ...]]


def advance(life: Life, event: Event, now: float, limits: Limits, spread: float) -> Step:
    """Return the next life and what to do; an event that means nothing in this phase changes nothing.

    `spread` (-1 to 1) varies the wait before a restart.
    """
    match life.phase, event:
        case Phase.NEW, Event.RUN:
            return _enter(life, Phase.STARTING, now), (Act.START,)
        case ((Phase.NEW | Phase.CRASHED), Event.STOP):
            return _enter(life, Phase.STOPPED, now), ()
        case Phase.STARTING, Event.READY:
            return _enter(life, Phase.READY, now), ()
        case ((Phase.STARTING | Phase.READY), Event.EXITED):
            return _crash(life, now, limits, spread), ()
        case Phase.CRASHED, Event.TICK:
            return replace(_enter(life, Phase.STARTING, now), restarts=life.restarts + 1), (Act.START,)
        case Phase.READY, Event.STOP:
            return _enter(life, Phase.DRAINING, now, limits.drain), (Act.DRAIN,)
        case (Phase.STARTING, Event.STOP) | (Phase.DRAINING, Event.STOP | Event.DRAINED | Event.TICK):
            return _enter(life, Phase.ENDING, now, limits.end), (Act.TERMINATE,)
        case Phase.ENDING, Event.TICK | Event.STOP:
            # a killed process cannot refuse; look again in case the kill itself was lost
            return replace(life, wake=now + limits.end), (Act.KILL,)
        case ((Phase.DRAINING | Phase.ENDING), Event.EXITED):
            return _enter(life, Phase.STOPPED, now), ()
    return life, ()


def _enter(life: Life, phase: Phase, now: float, patience: float | None = None) -> Life:
    return replace(life, phase=phase, since=now, wake=None if patience is None else now + patience)


def _crash(life: Life, now: float, limits: Limits, spread: float) -> Life:
    was_healthy = life.phase is Phase.READY and now - life.since >= limits.healthy
    failures = 1 if was_healthy else life.failures + 1
    wait = backoff(failures, spread, first=limits.first_wait, most=limits.most_wait)
    return replace(_enter(life, Phase.CRASHED, now, wait), failures=failures)
