"""Many appends, one fdatasync: durability `fsync`.

Law: a caller goes on when what it wrote is on the medium, and shares the wait with all who wrote before it began. Where
the medium refuses, everyone whose records are not on it is told so, and what they wrote is taken back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from policyd.errors import JournalError


@dataclass(slots=True)
class Epoch:
    """A stretch without failure: records up to `synced` are on the medium; after `error` none will be."""

    synced: int = 0
    error: JournalError | None = None


class Group:
    """Waits for the medium together. `sync` brings all of an epoch to it and returns the last record's `seq`.

    Where `sync` raises JournalError, it has taken back what is not on the medium, said so in the epoch, and begun
    another.
    """

    def __init__(self, sync: Callable[[Epoch], int]) -> None:
        self._sync = sync
        self._changed = threading.Condition()
        self._syncing = False

    def wait(self, epoch: Epoch, seq: int) -> None:
        """Return when record `seq`, written in `epoch`, is on the medium; raises JournalError if it never will be."""
        while not self._settled(epoch, seq):
            self._lead(epoch)

    def _settled(self, epoch: Epoch, seq: int) -> bool:
        """Whether `seq` is on the medium; False: nobody brings it there now, so the caller has to."""
        with self._changed:
            while True:
                if seq <= epoch.synced:
                    return True
                if epoch.error is not None:
                    raise epoch.error
                if not self._syncing:
                    self._syncing = True
                    return False
                self._changed.wait()

    def _lead(self, epoch: Epoch) -> None:
        synced = 0
        try:
            synced = self._sync(epoch)
        except JournalError:
            assert epoch.error is not None, "who takes back says so"
        finally:
            with self._changed:
                epoch.synced = max(epoch.synced, synced)
                self._syncing = False
                self._changed.notify_all()
