"""SnapshotCache: which Snapshot each proxy is to have, replaced all at once.

Law: a reader sees the mapping of before or of after a change, never a mix; only those whose Snapshot changed
hear of it. The callbacks run in the thread that changes the mapping and must only wake somebody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType

from policyd.xds.snapshot import Snapshot


class SnapshotCache:
    """Snapshots by node id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshots: Mapping[str, Snapshot] = MappingProxyType({})
        self._watchers: dict[str, set[Callable[[], None]]] = {}

    def get(self, node_id: str) -> Snapshot | None:
        """The Snapshot of a node, None where it has none."""
        return self._snapshots.get(node_id)

    def all(self) -> Mapping[str, Snapshot]:
        """The mapping that is in force."""
        return self._snapshots

    def set_all(self, snapshots: Mapping[str, Snapshot]) -> None:
        """Put a whole new mapping in force, and wake those whose Snapshot is another one now.

        What is no plain dict may make a Snapshot only when asked for it.
        """
        kept = dict(snapshots) if isinstance(snapshots, dict) else snapshots
        with self._lock:
            before, self._snapshots = self._snapshots, MappingProxyType(kept)
            changed = [
                wake
                for node_id, watchers in self._watchers.items()
                if _versions(before, node_id) != _versions(snapshots, node_id)
                for wake in watchers
            ]
        for wake in changed:
            wake()

    def watch(self, node_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called at each change of the node's Snapshot; returns what ends that."""
        with self._lock:
            self._watchers.setdefault(node_id, set()).add(wake)

        def end() -> None:
            with self._lock:
                watchers = self._watchers.get(node_id, set())
                watchers.discard(wake)
                if not watchers:
                    self._watchers.pop(node_id, None)

        return end


def _versions(snapshots: Mapping[str, Snapshot], node_id: str) -> Mapping[str, str] | None:
    """What names the content of each type, cheaper than one name of all."""
    snapshot = snapshots.get(node_id)
    return snapshot.versions if snapshot else None
