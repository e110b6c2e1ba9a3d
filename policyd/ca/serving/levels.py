"""How much agents and their Envoys are asked to say of themselves, until the server ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Asked:
    """Of one agent, and of the Envoys that it runs; "": as it was started."""

    agent: str = ""
    envoys: str = ""


NOTHING = Asked()


class Levels:
    """What was asked of each agent, by name; `changed` is called after each change."""

    def __init__(self, changed: Callable[[], object]) -> None:
        self._asked: dict[str, Asked] = {}
        self._changed = changed

    def of(self, agent: str) -> Asked:
        """What an agent is to say."""
        return self._asked.get(agent, NOTHING)

    def ask(self, agent: str, level: str, *, envoys: bool) -> None:
        """Have an agent, or its Envoys, say so much from now on."""
        before = self.of(agent)
        now = replace(before, envoys=level) if envoys else replace(before, agent=level)
        if now == NOTHING:
            self._asked.pop(agent, None)
        else:
            self._asked[agent] = now
        self._changed()
