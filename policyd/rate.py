"""How often one peer may ask: a token bucket for each, as a value of the clock.

Law: memory is bounded too. When too many peers are known, the one that asked longest ago is forgotten, and
a forgotten peer starts with a full bucket.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final

MAX_PEERS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_second` requests in the long run, `burst` at once."""

    per_second: float
    burst: int


class RateLimit:
    """A bucket for each peer; `clock` gives seconds and never goes back. Safe for concurrent use."""

    def __init__(self, rate: Rate, clock: Callable[[], float], max_peers: int = MAX_PEERS) -> None:
        self._rate = rate
        self._clock = clock
        self._max_peers = max_peers
        self._lock = Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and when that was

    def allow(self, peer: str) -> bool:
        """Take one from the peer's bucket; False where it is empty."""
        with self._lock:
            now = self._clock()
            left, then = self._buckets.pop(peer, (float(self._rate.burst), now))
            left = min(float(self._rate.burst), left + (now - then) * self._rate.per_second)
            allowed = left >= 1.0
            self._buckets[peer] = (left - 1.0 if allowed else left, now)
            if len(self._buckets) > self._max_peers:
                self._buckets.popitem(last=False)
            return allowed
