"""Decision metrics as a list."""

from __future__ import annotations


class FakeDecisionMetrics:
    """`counted` holds what was counted, in order: decision, side, seconds."""

    def __init__(self) -> None:
        self.counted: list[tuple[str, str, float]] = []

    def decided(self, decision: str, side: str, seconds: float) -> None:
        """One more."""
        self.counted.append((decision, side, seconds))
