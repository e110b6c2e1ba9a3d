"""Debounce: many changes in a row become one.

Law: what was noted is acted on after a quiet moment, and never later than the longest wait.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Debounce:
    """`quiet` and `longest` are seconds; `first` and `last` are when the changes noted so far came."""

    quiet: float = 0.1
    longest: float = 10.0
    first: float | None = None
    last: float | None = None

    def note(self, now: float) -> Debounce:
        """A change came."""
        return replace(self, first=now if self.first is None else self.first, last=now)

    def due(self) -> float | None:
        """When to act; None while there is nothing to act on."""
        if self.first is None or self.last is None:
            return None
        return min(self.last + self.quiet, self.first + self.longest)

    def done(self) -> Debounce:
        """It was acted on."""
        return replace(self, first=None, last=None)
