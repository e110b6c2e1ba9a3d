"""The lists of revoked certificates in force, made anew when something is revoked, keys change, or time has passed.

Law: a list that cannot be made leaves the one before in force, and is spoken of.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import datetime

import structlog

from policyd.ca.crl import Lists, RevokedSerial, turned
from policyd.ca.rotation import Authorities
from policyd.errors import PolicydError

_log = structlog.get_logger("policyd.server")


class RevokedLists:
    """`turn` when something may have changed, `ders` at any moment, from any thread."""

    def __init__(self, revoked: Callable[[], Iterable[RevokedSerial]], clock: Callable[[], datetime]) -> None:
        self._revoked = revoked
        self._clock = clock
        self._held = Lists()
        self._lock = threading.Lock()
        self.trouble = ""

    @property
    def ders(self) -> tuple[bytes, ...]:
        """As they are published, in DER."""
        return self._held.ders

    def turn(self, authorities: Authorities) -> bool:
        """Make what is due; tells whether the lists are others than before."""
        with self._lock:
            before = self._held
            try:
                self._held = turned(before, authorities, self._revoked(), self._clock())
            except PolicydError as error:
                if not self.trouble:
                    _log.error("ca.crl_not_made", error=str(error))
                self.trouble = f"the list of revoked certificates cannot be made: {error}"
                return False
            self.trouble = ""
            return self._held is not before
