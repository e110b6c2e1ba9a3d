"""Decisions remembered, by exactly what they depend on.

Law: a key holds everything that Cedar is given, so equal keys have equal decisions; a cached decision differs in
`cached` only. It lives and dies with one Engine, hence with one revision.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from cachetools import LRUCache

from policyd.cedar.model import Decision

MAX_DECISIONS: Final = 65_536


@dataclass(frozen=True, slots=True)
class CacheStats:
    """How often a decision was found and not found, how many are kept, and how many could not be."""

    hits: int = 0
    misses: int = 0
    size: int = 0
    bypasses: int = 0


class DecisionCache:
    """The `size` decisions used last; 0 keeps none. Safe for concurrent use."""

    def __init__(self, size: int = MAX_DECISIONS) -> None:
        self._kept: LRUCache[Hashable, Decision] = LRUCache(size)
        self._lock = Lock()
        self._hits = self._misses = self._bypasses = 0

    def find(self, key: Hashable) -> Decision | None:
        """The decision kept under `key`, marked as cached, or None."""
        with self._lock:
            try:
                found = self._kept[key]
            except KeyError:
                self._misses += 1
                return None
            self._hits += 1
            return found

    def keep(self, key: Hashable, decision: Decision) -> None:
        """Remember a decision that was just made."""
        if self._kept.maxsize:
            cached = Decision(decision.allowed, decision.reasons, decision.errors, cached=True)
            with self._lock:
                self._kept[key] = cached

    def bypass(self) -> None:
        """Count a decision that the next moment may change."""
        with self._lock:
            self._bypasses += 1

    def stats(self) -> CacheStats:
        """The counters, all of one moment."""
        with self._lock:
            return CacheStats(self._hits, self._misses, len(self._kept), self._bypasses)
