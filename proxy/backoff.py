"""How long to wait after a failure: exponential, bounded, spread so that many agents do not return in step."""

from __future__ import annotations

SPREAD = 0.2


def backoff(failures: int, spread: float, *, first: float, most: float) -> float:
    """Seconds to wait after the `failures`-th failure in a row (from 1), ± 20 % by `spread` (-1 to 1).

    Law: 0 < result <= `most` * 1.2, and with the same spread it never shrinks as failures grow.
    """
    doublings = min(max(failures, 1) - 1, 30)
    return min(most, first * float(2**doublings)) * (1 + SPREAD * max(-1.0, min(1.0, spread)))
