"""What Envoys refused, because they take as much memory as they may: decisions that nobody reads are in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from proxy.events import Say, SidecarStatus
from proxy.growing import Ask, Growing, asking

EVERY: Final = 15.0  # seconds: requests fail meanwhile
FULL_STATS: Final = (
    r"^http\..*\.downstream_rq_overload_close$|^listener\..*\.downstream_cx_overload_reject$"
    r"|^overload\.envoy\.resource_monitors\.fixed_heap\.pressure$"
)
_REFUSED: Final = re.compile(
    r"^envoy_(?:http_downstream_rq_overload_close|listener_downstream_cx_overload_reject)\{[^\n]*\} ([0-9]+)$",
    re.MULTILINE,
)
_PRESSURE: Final = re.compile(
    r"^envoy_overload_envoy_resource_monitors_fixed_heap_pressure\{\} ([0-9]+)$", re.MULTILINE
)


def refused_in(page: str) -> int:
    """How many requests an Envoy, by its page of metrics, refused for want of memory, and connections."""
    return sum(int(found) for found in _REFUSED.findall(page))


def share_in(page: str) -> float | None:
    """How much of the memory that it may take an Envoy takes, by its page of metrics; None where that does not say."""
    found = _PRESSURE.search(page)
    return int(found[1]) / 100 if found else None


refused: Final = asking(FULL_STATS, refused_in)


def fullness(sidecars: Callable[[], Sequence[SidecarStatus]], say: Say, memory: int, ask: Ask = refused) -> Growing:
    """What says that Envoys refuse, `memory` being the bytes that each may take."""

    def tell(instance: str, count: int) -> None:
        say("sidecar.full", instance=instance, refused=count, memory=memory)

    return Growing(sidecars, EVERY, ask, tell)
