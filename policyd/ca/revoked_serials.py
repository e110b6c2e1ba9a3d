"""Certificates that are revoked one by one: the identity goes on, with another key.

Law: on the disk and on record before it is told of. What has ended by itself is forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from policyd.ca.crl import RevokedSerial
from policyd.ca.database import Database
from policyd.ca.revocations import check_revocable
from policyd.errors import NotFound, RevocationError
from policyd.mesh.eras import Lost
from policyd.spiffe import SpiffeId

MAX_SERIALS: Final = 2_000  # a list is sent to every agent, whole
LONGEST: Final = 366 * 86_400  # seconds of a certificate that is still to end
_SERIAL: Final = re.compile(r"[0-9a-f]{32}")


class RevokedSerials:
    """Those of one mesh; `holds` is asked at every call of an agent, so they are kept in memory too."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._know()

    def holds(self, serial: str) -> bool:
        """Is the certificate with this serial number (hex, 32 digits) revoked?"""
        return serial in self._held

    def all(self) -> tuple[RevokedSerial, ...]:
        """Every one, by serial number."""
        return tuple(one for _, one in sorted(self._held.items()))

    def lost(self) -> frozenset[Lost]:
        """Those that workloads show one another; what agents have they show to policyd alone."""
        return self._lost

    def add(self, revoked: RevokedSerial, record: Callable[[], object]) -> None:
        """Revoke, once `record` is done; raises RevocationError for what is none, has ended, or is one too many."""
        _check(revoked)
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM revoked_serial WHERE ends <= ?", (revoked.since,))
            if connection.execute("SELECT 1 FROM revoked_serial WHERE serial = ?", (revoked.serial,)).fetchone():
                raise RevocationError(f"the certificate `{revoked.serial}` is revoked already")
            (number,) = connection.execute("SELECT count(*) FROM revoked_serial").fetchone()
            if number >= MAX_SERIALS:
                raise RevocationError(f"{MAX_SERIALS} certificates are revoked", remedy="revoke their identities")
            row = (revoked.serial, revoked.spiffe_id, revoked.since, revoked.ends, revoked.reason)
            connection.execute("INSERT INTO revoked_serial VALUES (?, ?, ?, ?, ?)", row)
            record()
        self._know()

    def remove(self, serial: str, record: Callable[[], object]) -> None:
        """Take a revocation back, once `record` is done; raises NotFound where there is none."""
        with self._database.transaction() as connection:
            if connection.execute("DELETE FROM revoked_serial WHERE serial = ?", (serial,)).rowcount != 1:
                raise NotFound(f"the certificate `{serial[:80]}` is not revoked", remedy="look at `policyd ca revoked`")
            record()
        self._know()

    def _read(self) -> dict[str, RevokedSerial]:
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT serial, spiffe_id, since, ends, reason FROM revoked_serial").fetchall()
        return {row[0]: RevokedSerial(*row) for row in rows}

    def _know(self) -> None:
        self._held = self._read()
        found = (Lost(one.serial, SpiffeId.parse(one.spiffe_id)) for one in self._held.values())
        self._lost = frozenset(one for one in found if one.spiffe_id.agent_name is None)


def _check(revoked: RevokedSerial) -> None:
    if not _SERIAL.fullmatch(revoked.serial) or not int(revoked.serial, 16):
        raise RevocationError(
            f"`{revoked.serial[:80]}` is no serial number", remedy="32 digits, as `policyd ca list` shows them"
        )
    check_revocable(SpiffeId.parse(revoked.spiffe_id), revoked.reason)
    if not 0 < revoked.ends - revoked.since < LONGEST:
        raise RevocationError(f"the certificate `{revoked.serial}` has ended by itself")
