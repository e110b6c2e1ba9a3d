"""Decision metrics as a list."""

from __future__ import annotations


class FakeDecisionMetrics:
    """`counted` holds what was counted, in order: decision, side, seconds; `changes` what the shadow would change."""

    def __init__(self) -> None:
        self.counted: list[tuple[str, str, float]] = []
        self.changes: list[str] = []

    def decided(self, decision: str, side: str, seconds: float) -> None:
        """One more."""
        self.counted.append((decision, side, seconds))

    def shadowed(self, change: str) -> None:
        """One more."""
        self.changes.append(change)
