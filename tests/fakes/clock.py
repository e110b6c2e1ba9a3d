"""A clock that moves only when told to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class FakeClock:
    """Call it for the time; `advance` moves it."""

    def __init__(self, now: datetime = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """Return the time, in UTC."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move forward (or back)."""
        self.now += timedelta(seconds=seconds)


class Watch:
    """Seconds of no date, that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        """How many have passed."""
        return self.now
