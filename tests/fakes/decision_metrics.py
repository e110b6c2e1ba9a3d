"""Decision metrics as a list."""

from __future__ import annotations


class FakeDecisionMetrics:
    """`counted` holds what was counted, in order: decision, side, seconds; `revisions` under which each was made;
    `changes` what the shadow would change.

    `sheds` is how many came too late.
    """

    def __init__(self) -> None:
        self.counted: list[tuple[str, str, float]] = []
        self.revisions: list[str] = []
        self.changes: list[str] = []
        self.sheds = 0

    def decided(self, decision: str, side: str, seconds: float, revision: str) -> None:
        """One more."""
        self.revisions.append(revision)
        self.counted.append((decision, side, seconds))

    def shadowed(self, change: str) -> None:
        """One more."""
        self.changes.append(change)

    def shed(self) -> None:
        """One more that came too late."""
        self.sheds += 1
