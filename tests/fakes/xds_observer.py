"""An observer of the discovery service that remembers."""

from __future__ import annotations


class FakeObserver:
    """What it was told, in order."""

    def __init__(self) -> None:
        self.pushes: list[tuple[str, str]] = []
        self.rejections: list[tuple[str, str, str]] = []
        self.counts: list[int] = []
        self.convergences: list[float] = []

    def pushed(self, node_id: str, kind: str) -> None:
        """Remember a push."""
        self.pushes.append((node_id, kind))

    def rejected(self, node_id: str, kind: str, text: str) -> None:
        """Remember a rejection."""
        self.rejections.append((node_id, kind, text))

    def converged(self, seconds: float) -> None:
        """Remember how long a change took."""
        self.convergences.append(seconds)

    def connections(self, count: int) -> None:
        """Remember how many are connected."""
        self.counts.append(count)
