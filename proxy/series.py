"""What Envoys did not count, because they keep as many series as they may: looked for every minute, said when it grows.

Law: Envoy lets new series go in silence, so who watches it says so, whether or not anybody collects metrics.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from policyd import signals
from policyd.errors import EnvoyError
from proxy.envoy_admin import ask
from proxy.events import Say, SidecarStatus

EVERY: Final = 60.0  # seconds
SECONDS: Final = 3.0  # for one Envoy's answer
_TARGET: Final = f"/stats/prometheus?usedonly&filter={quote('^server.stats_overflow')}"
_DROPPED: Final = re.compile(r"^envoy_server_stats_overflow_(?:counter|histogram)\{\} ([0-9]+)$", re.MULTILINE)

Ask = Callable[[Path], Awaitable[int]]


def dropped_in(page: str) -> int:
    """How often an Envoy, by its page of metrics, did not count for want of room."""
    return sum(int(found) for found in _DROPPED.findall(page))


async def dropped(socket: Path) -> int:
    """As it says now; raises EnvoyError."""
    status, body = await ask(socket, _TARGET, timeout=SECONDS)
    if status != 200:
        raise EnvoyError(f"Envoy answers {status} to `{_TARGET}`")
    return dropped_in(body.decode(errors="replace"))


class Series:
    """Watches the Envoys of `sidecars`; run `watch` in a task."""

    def __init__(self, sidecars: Callable[[], Sequence[SidecarStatus]], say: Say, ask: Ask = dropped) -> None:
        self._sidecars = sidecars
        self._say = say
        self._ask = ask
        self._known: dict[str, int] = {}

    async def watch(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Look, for ever."""
        while True:
            await sleep(EVERY)
            await self.look()

    async def look(self) -> None:
        """Say of each Envoy by how much it counts too little, if that is more than at the last look."""
        before, self._known = self._known, {}
        for one in self._sidecars():
            if not one.pid:
                continue
            now = known = before.get(one.instance, 0)
            with suppress(EnvoyError):  # one that does not answer is told of elsewhere
                now = await self._ask(Path(one.admin_socket))
            if now > known:
                self._say("sidecar.series_dropped", instance=one.instance, dropped=now, limit=signals.MAX_SERIES)
            self._known[one.instance] = now
