"""Identities that are revoked: nothing is issued for them, nobody asks with them, nobody is led to them.

Law: a revocation is on the disk and on record before it is told of, and stays until it is taken back. For decisions
it is a forbid, so that records, explanations and replays show it as they show every policy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from policyd.ca.database import Database
from policyd.errors import NotFound, RevocationError
from policyd.spiffe import SpiffeId

FILE: Final = "policies/.revoked.cedar"  # a name that no file of a folder can have
MAX_REVOKED: Final = 1_000
MAX_REASON: Final = 200  # characters


@dataclass(frozen=True, slots=True, order=True)
class Revocation:
    """An identity that is revoked, since when (seconds since the epoch), and why."""

    spiffe_id: SpiffeId
    since: int
    reason: str = ""


def check_revocable(spiffe_id: SpiffeId, reason: str) -> None:
    """Raise RevocationError for policyd's own identities, trust domains, and reasons that are none."""
    if spiffe_id.is_policyd or not spiffe_id.path:
        raise RevocationError(f"`{spiffe_id}` is policyd's own", remedy="a new authority is made with `--fresh`")
    if len(reason) > MAX_REASON or not reason.isprintable():
        raise RevocationError(f"a reason has at most {MAX_REASON} printable characters")


def forbids(revoked: Iterable[Revocation]) -> str:
    """The policies that deny all of them, whatever else is allowed."""
    return "\n".join(
        f'@id("revoked-{hashlib.sha256(str(one.spiffe_id).encode()).hexdigest()[:12]}")\n'
        f'forbid (principal == Workload::"{one.spiffe_id}", action, resource);\n'
        for one in sorted(revoked)
        if one.spiffe_id.agent_name is None
    )


class Revocations:
    """The revocations of one mesh; `holds` is asked at every order, so they are kept in memory too."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held = self._read()

    def holds(self, spiffe_id: SpiffeId) -> bool:
        """Is this identity revoked?"""
        return spiffe_id in self._held

    def all(self) -> tuple[Revocation, ...]:
        """Every revocation, by identity."""
        return tuple(sorted(self._held.values()))

    def add(self, revocation: Revocation, record: Callable[[], object]) -> None:
        """Revoke, once `record` is done; raises RevocationError for what is revoked already, or one too many."""
        check_revocable(revocation.spiffe_id, revocation.reason)
        with self._database.transaction() as connection:
            if self.holds(revocation.spiffe_id):
                raise RevocationError(f"`{revocation.spiffe_id}` is revoked already")
            if len(self._held) >= MAX_REVOKED:
                raise RevocationError(
                    f"{MAX_REVOKED} identities are revoked", remedy="remove what is no workload any more"
                )
            row = (str(revocation.spiffe_id), revocation.since, revocation.reason)
            connection.execute("INSERT INTO revoked (spiffe_id, since, reason) VALUES (?, ?, ?)", row)
            record()
        self._held = self._read()

    def remove(self, spiffe_id: SpiffeId, record: Callable[[], object]) -> None:
        """Take a revocation back, once `record` is done; raises NotFound where there is none."""
        with self._database.transaction() as connection:
            if connection.execute("DELETE FROM revoked WHERE spiffe_id = ?", (str(spiffe_id),)).rowcount != 1:
                raise NotFound(f"`{spiffe_id}` is not revoked", remedy="look at `policyd ca revoked`")
            record()
        self._held = self._read()

    def _read(self) -> dict[SpiffeId, Revocation]:
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT spiffe_id, since, reason FROM revoked").fetchall()
        found = [Revocation(SpiffeId.parse(text), since, reason) for text, since, reason in rows]
        return {one.spiffe_id: one for one in found}
