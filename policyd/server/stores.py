"""What the server keeps from one run to the next: who joined, what was issued, revoked and fetched, whom it believes.

Law: each store says itself what is wrong with its file; one that is broken ends the start, and forgets nothing.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import structlog

from policyd.ca.database import open_database
from policyd.ca.entries import Entries
from policyd.ca.holdings import Holdings
from policyd.ca.ledger import Ledger
from policyd.ca.revocations import Revocations
from policyd.ca.revoked_serials import RevokedSerials
from policyd.ca.tokens import Tokens
from policyd.errors import StateError
from policyd.server.distrust import Distrust
from policyd.server.local_decisions import Positions
from policyd.sources.federation import Federation
from policyd.sources.key_sets import KeySets
from policyd.sources.relations import Relations
from policyd.spiffe import SpiffeId
from policyd.state_paths import StatePaths

_log = structlog.get_logger("policyd.server")


@dataclass(frozen=True, slots=True)
class Stores:
    """One for each kind of thing that is kept."""

    tokens: Tokens
    ledger: Ledger
    entries: Entries
    holdings: Holdings
    revocations: Revocations
    serials: RevokedSerials
    key_sets: KeySets
    federation: Federation
    relations: Relations
    distrust: Distrust
    positions: Positions

    def revoked(self) -> frozenset[SpiffeId]:
        """The identities that are revoked."""
        return frozenset(one.spiffe_id for one in self.revocations.all())

    def write_counts(self) -> None:
        """Keep how much was issued; where that cannot be written, say so: the next time writes it."""
        try:
            self.ledger.write()
        except StateError as error:
            _log.error("ca.counts_not_written", error=str(error))


def open_stores(stack: ExitStack, paths: StatePaths) -> Stores:
    """Open all of them until `stack` ends; raises StateError with the file that is broken."""
    database = open_database(paths.tokens)
    stack.callback(database.close)
    stores = Stores(
        tokens=Tokens(database),
        ledger=Ledger(database),
        entries=Entries(database),
        holdings=Holdings(database),
        revocations=Revocations(database),
        serials=RevokedSerials(database),
        key_sets=KeySets(paths.jwks),
        federation=Federation(paths.federation),
        relations=Relations(paths.relations),
        distrust=Distrust(paths.distrusted),
        positions=Positions(paths.spools),
    )
    stack.callback(stores.write_counts)
    return stores
