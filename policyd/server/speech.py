"""How much the processes of a server say: as they were asked, else as the settings want it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policyd.config.settings import Settings
from policyd.environment import Level


@dataclass(slots=True)
class Speech:
    """`level` sets that of this process, `as_json` is for the others.

    `asked` wins over the settings, until somebody asks for another.
    """

    level: Callable[[Level], None]
    as_json: bool | None = None
    asked: Level | None = None

    def of(self, settings: Settings) -> Level:
        """From which level on there is to be spoken."""
        return self.asked or settings.log.level

    def speak(self, settings: Settings) -> Level:
        """Have this process speak so, and say how."""
        level = self.of(settings)
        self.level(level)
        return level
