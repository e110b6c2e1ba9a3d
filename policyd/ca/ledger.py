"""How many certificates were issued since the state was made; the journal says which.

Law: a certificate is counted after its record and before it leaves. The records are the ledger: counts are written
together, every few seconds, and one that a crash takes is of certificates that the records still name.
"""

from __future__ import annotations

import threading
from collections import Counter

from policyd.ca.database import Database
from policyd.errors import StateError


class Ledger:
    """Counts by kind: `attestation`, `agent`, `workload`, `server`, `operator`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._unwritten: Counter[str] = Counter()

    def add(self, kind: str) -> None:
        """Count one more of `kind`; `write` keeps it."""
        with self._lock:
            self._unwritten[kind] += 1

    def write(self) -> None:
        """Keep what was counted; raises StateError, and then it is kept the next time."""
        counted: Counter[str] = Counter()
        try:
            # the lock within, for a moment: a transaction in which somebody counts has to end before this one begins;
            # and who asks for all of them waits until what is taken here is written
            with self._database.transaction(at_once=False) as connection:
                with self._lock:
                    counted, self._unwritten = self._unwritten, Counter()
                connection.executemany(
                    "INSERT INTO issued (kind, number) VALUES (?, ?)"
                    " ON CONFLICT (kind) DO UPDATE SET number = number + excluded.number",
                    counted.items(),
                )
        except StateError:
            with self._lock:
                self._unwritten += counted
            raise

    def total(self) -> int:
        """All that were issued."""
        self.write()
        with self._database.transaction() as connection:
            (number,) = connection.execute("SELECT coalesce(sum(number), 0) FROM issued").fetchone()
        return int(number)
