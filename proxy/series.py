"""What Envoys did not count, because they keep as many series as they may: looked for every minute."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from policyd import signals
from proxy.events import Say, SidecarStatus
from proxy.growing import Ask, Growing, asking

EVERY: Final = 60.0  # seconds
_DROPPED: Final = re.compile(r"^envoy_server_stats_overflow_(?:counter|histogram)\{\} ([0-9]+)$", re.MULTILINE)


def dropped_in(page: str) -> int:
    """How often an Envoy, by its page of metrics, did not count for want of room."""
    return sum(int(found) for found in _DROPPED.findall(page))


dropped: Final = asking("^server.stats_overflow", dropped_in)


def series(sidecars: Callable[[], Sequence[SidecarStatus]], say: Say, ask: Ask = dropped) -> Growing:
    """What says that Envoys do not count."""

    def tell(instance: str, count: int) -> None:
        say("sidecar.series_dropped", instance=instance, dropped=count, limit=signals.MAX_SERIES)

    return Growing(sidecars, EVERY, ask, tell)
