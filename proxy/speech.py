"""How much the agent and its Envoys say of themselves, changed while they run.

Law: policyd names levels out of fixed lists; any other means the one that it was started with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TextIO

from policyd.names import AGENT_LEVELS, ENVOY_LEVELS
from proxy.events import Say, speaker

USUAL: Final = "info"
# events that are not `info`; what is not here is
_DETAILS: Final = frozenset({"agent.shows", "agent.tells", "agent.collected"})
_TROUBLES: Final = frozenset({
    "agent.assignment_refused", "agent.decisions_wait", "agent.disconnected", "agent.inspections_ended",
    "agent.not_left", "agent.report_failed",
    "agent.spool_foreign", "agent.state_unusable", "agent.waiting", "identity.failed", "instance.unhealthy",
    "sidecar.crashed", "sidecar.decisions_lost", "sidecar.failed", "sidecar.full", "sidecar.not_started",
    "sidecar.secret_rejected", "sidecar.series_dropped", "workload.refused",
    "workload.secret_rejected", "workload_api.failed",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """The levels that policyd asks for; "": as it was started."""

    agent: str = ""
    envoys: str = ""


AS_STARTED: Final = Wanted()


def wanted(agent: str, envoys: str) -> Wanted:
    """What was asked for, as far as it is a level."""
    return Wanted(agent if agent in AGENT_LEVELS else "", envoys if envoys in ENVOY_LEVELS else "")


def level_of(event: str) -> str:
    """How grave an event is."""
    return "debug" if event in _DETAILS else "warning" if event in _TROUBLES else "info"


class Speech:
    """Says what is grave enough; `level` is changed while it runs."""

    def __init__(self, stream: TextIO, clock: Callable[[], datetime]) -> None:
        self._say: Say = speaker(stream, clock)
        self.level = USUAL

    def say(self, event: str, **facts: Any) -> None:
        """Write the line, if it is to be."""
        level = level_of(event)
        if AGENT_LEVELS.index(level) >= AGENT_LEVELS.index(self.level):
            self._say(event, level=level, **facts)
