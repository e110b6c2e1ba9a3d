"""How many certificates were issued since the state was made; the journal says which.

Law: a certificate is counted after its record and before it leaves; an agent's first one with its token's claim. The
records are the ledger: a count that a power cut takes is of certificates that they still name.
"""

from __future__ import annotations

from policyd.ca.database import Database


class Ledger:
    """Counts by kind: `attestation`, `agent`, `workload`, `server`, `operator`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, kind: str) -> None:
        """Count one more of `kind`; not at once on the disk, which took longer than all else of an issuance."""
        with self._database.transaction(at_once=False) as connection:
            connection.execute(
                "INSERT INTO issued (kind, number) VALUES (?, 1) ON CONFLICT (kind) DO UPDATE SET number = number + 1",
                (kind,),
            )

    def total(self) -> int:
        """All that were issued."""
        with self._database.transaction() as connection:
            (number,) = connection.execute("SELECT coalesce(sum(number), 0) FROM issued").fetchone()
        return int(number)
