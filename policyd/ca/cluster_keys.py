"""The keys that a cluster publishes at a URL: asked for now and then, and the last good ones kept.

Law: a cluster that is away takes nobody's identity: what it published holds for a day, and is asked for anew when it is
five minutes old, by one caller at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from policyd.ca.kubernetes import JSON, MAX_KEYS_BYTES
from policyd.ca.web import Service
from policyd.errors import IdentityError
from policyd.svid import jose

REFRESH_SECONDS: Final = 300.0
LAST_GOOD_SECONDS: Final = 86_400.0
RETRY_SECONDS: Final = 5.0


class ClusterKeys:
    """Gives the key set; `clock` counts seconds and never goes back."""

    def __init__(self, service: Service, clock: Callable[[], float]) -> None:
        self._service = service
        self._clock = clock
        self._lock = threading.Lock()
        self._held = b""
        self._taken = 0.0
        self._due = 0.0

    def __call__(self) -> bytes:
        """The keys; raises IdentityError where there are none that still hold."""
        with self._lock:
            now = self._clock()
            if not self._held or now >= self._due:
                self._refresh(now)
            return self._held

    def _refresh(self, now: float) -> None:
        try:
            found = self._service.ask("GET", b"", JSON, MAX_KEYS_BYTES)
            if not isinstance(jose.read_object(found).get("keys"), list):
                raise IdentityError(f"`{self._service.url}` publishes no key set")
        except IdentityError:
            self._due = now + RETRY_SECONDS
            if not self._held or now >= self._taken + LAST_GOOD_SECONDS:
                raise
            return
        self._held, self._taken, self._due = found, now, now + REFRESH_SECONDS
