"""An Envoy that keeps no more series says so to nobody: the agent looks, and says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policyd.errors import EnvoyError
from policyd.signals import MAX_SERIES
from proxy.events import SidecarStatus
from proxy.series import dropped_in, series

PAGE = """\
# TYPE envoy_server_stats_overflow_counter counter
envoy_server_stats_overflow_counter{} 10
# TYPE envoy_server_stats_overflow_histogram counter
envoy_server_stats_overflow_histogram{} 4
# TYPE envoy_istio_requests_total counter
envoy_istio_requests_total{p="envoy_server_stats_overflow_counter{} 7"} 2
"""


def sidecar(name: str, pid: int = 1) -> SidecarStatus:
    return SidecarStatus(name, f"spiffe://d/{name}", "c", "ready", 0, pid, None, None, f"/{name}", "log")


class Watched:
    """`counts` by instance: how much each Envoy says that it dropped, None for one that does not answer."""

    def __init__(self, *sidecars: SidecarStatus) -> None:
        self.counts: dict[str, int | None] = {}
        self.said: list[dict[str, Any]] = []
        self.series = series(lambda: sidecars, self._say, self._ask)

    def _say(self, event: str, **facts: Any) -> None:
        self.said.append({"event": event, **facts})

    async def _ask(self, socket: Path) -> int:
        count = self.counts.get(socket.name, 0)
        if count is None:
            raise EnvoyError("it does not answer")
        return count

    async def look(self, **counts: int | None) -> list[tuple[str, int]]:
        """What a look at these counts makes it say."""
        self.counts = counts
        self.said.clear()
        await self.series.look()
        return [(one["instance"], one["dropped"]) for one in self.said]


def test_what_a_page_tells_of_counters_and_histograms_is_added_up_and_nothing_else() -> None:
    assert dropped_in(PAGE) == 14
    assert dropped_in("") == 0


async def test_it_says_so_when_there_is_more_than_at_the_last_look() -> None:
    watched = Watched(sidecar("a"), sidecar("b"))

    assert await watched.look(a=0, b=0) == []
    assert await watched.look(a=0, b=5) == [("b", 5)]
    assert watched.said == [{"event": "sidecar.series_dropped", "instance": "b", "dropped": 5, "limit": MAX_SERIES}]
    assert await watched.look(a=0, b=5) == []
    assert await watched.look(a=1, b=9) == [("a", 1), ("b", 9)]


async def test_one_that_does_not_answer_or_does_not_run_hides_nothing_of_the_others() -> None:
    watched = Watched(sidecar("gone"), sidecar("new", pid=0), sidecar("here"))

    assert await watched.look(gone=None, new=3, here=2) == [("here", 2)]
    assert await watched.look(gone=1, new=3, here=2) == [("gone", 1)]


async def test_one_that_began_anew_counts_from_nothing() -> None:
    watched = Watched(sidecar("a"))

    assert await watched.look(a=7) == [("a", 7)]
    assert await watched.look(a=0) == []
    assert await watched.look(a=2) == [("a", 2)]
