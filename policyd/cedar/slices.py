"""The entities that a decision sees, parsed once for as long as the same ones come again.

Law: known by their JSON forms, so equal content is one slice, whoever asks. What is of one request only is added
to a slice for it and never kept.
"""

from __future__ import annotations

from threading import Lock
from typing import Any, Final

from cachetools import LRUCache
from cedarpy import _internal

MAX_SLICES: Final = 4_096


class Slices:
    """The slices used last, as Cedar's own values. Safe for concurrent use."""

    def __init__(self) -> None:
        self._parsed: LRUCache[tuple[bytes, ...], Any] = LRUCache(MAX_SLICES)
        self._lock = Lock()

    def of(self, lasting: tuple[bytes, ...], passing: tuple[bytes, ...]) -> Any:
        """The slice of these entities in their JSON forms; raises ValueError where Cedar cannot read one."""
        try:
            with self._lock:
                parsed = self._parsed[lasting]
        except KeyError:
            parsed = _internal.Entities.from_json_str(_list(lasting))
            with self._lock:
                self._parsed[lasting] = parsed
        return parsed.with_added_json_str(_list(passing)) if passing else parsed


def _list(encoded: tuple[bytes, ...]) -> str:
    return (b"[" + b",".join(encoded) + b"]").decode()
