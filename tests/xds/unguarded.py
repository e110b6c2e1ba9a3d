"""The discovery service on a socket of a test's own: without TLS, and whoever connects is taken for a workload."""

from __future__ import annotations

import time
from typing import Final

from policyd.spiffe import SpiffeId
from policyd.xds.cache import SnapshotCache
from policyd.xds.service import DiscoveryService
from tests.fakes.xds_observer import FakeObserver

REVIEWS: Final = SpiffeId.workload("cluster.local", "default", "reviews")


def unguarded(cache: SnapshotCache, observer: FakeObserver) -> DiscoveryService:
    """Serves what is in the cache, with the machine's clocks."""
    return DiscoveryService(
        cache,
        lambda peer, node_id: None,
        observer,
        clock=time.monotonic,
        wall=time.time,
        peer=lambda context: REVIEWS,
        quiet=0.01,
    )
