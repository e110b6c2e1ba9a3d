"""What an Envoy that is to end still does, as a value, and when it has nothing left to do.

Law: pure. A connection that waits for a request is no work: who holds one is told `connection: close`, or sent GOAWAY,
with the answer to the next request, and finds it ended like any idle connection if there is none. All else is work, a
tunnel too, whose bytes nobody looks at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

GAUGES: Final = r"^(listener\..*downstream_cx_active|http\..*downstream_((cx|rq|cx_upgrades)_active|rq_total))$"  # re2
QUIET: Final = 0.3  # seconds without work, and without a new request, after which nothing is expected any more
_ADMIN: Final = ("http.admin.downstream_", "listener.admin.")
_INSIDE: Final = "listener.envoy_internal_"  # listeners without a socket, in which tunnels end
_WORKER: Final = re.compile(r"\.(worker_\d+|main_thread)\.")  # which the sum of all has, too


@dataclass(frozen=True, slots=True)
class Load:
    """What is open: `sockets` to clients, of which some are idle; active `requests`, `tunnels` (CONNECT, WebSocket) and
    `connections` of which nothing is known but that they are there. `begun` counts all requests ever.
    """

    sockets: int = 0
    requests: int = 0
    tunnels: int = 0
    connections: int = 0
    begun: int = 0

    @property
    def works(self) -> bool:
        """Whether something would be cut."""
        return bool(self.requests or self.tunnels or self.connections)

    def told(self) -> dict[str, int]:
        """How much of each there is, as the log has it."""
        return {"requests": self.requests, "tunnels": self.tunnels, "connections": self.connections}


@dataclass(frozen=True, slots=True)
class Watch:
    """Since when (monotonic seconds) nothing has been done, and how many requests there had been; None: it works."""

    since: float | None = None
    begun: int = 0


def load(stats: str) -> Load:
    """Read `/stats?filter=GAUGES`; a tunnel that ends inside, in a connection that waits for a request, is idle."""
    sockets = inside = read = requests = tunnels = begun = 0
    for name, value in _numbers(stats):
        if name.startswith(_INSIDE):
            inside += value
        elif name.startswith("listener."):
            sockets += value
        elif name.endswith("downstream_cx_upgrades_active"):
            tunnels += value
        elif name.endswith("downstream_cx_active"):
            read += value
        elif name.endswith("downstream_rq_active"):
            requests += value
        else:
            begun += value
    # what is read as HTTP works by its requests alone; the tunnel around what goes on inside is the same work once more
    connections = max(0, sockets + inside - read)
    tunnels_only = max(0, tunnels - inside)
    return Load(sockets, max(0, requests - tunnels), tunnels_only, connections, begun)


def look(watch: Watch, seen: Load, now: float) -> tuple[Watch, bool]:
    """Return what to remember, and whether the Envoy may end: it has no client, or has been quiet for long enough."""
    if not seen.sockets:
        return watch, True
    if seen.works:
        return Watch(), False
    if watch.since is None or watch.begun != seen.begun:
        return Watch(now, seen.begun), False
    return watch, now - watch.since >= QUIET


def _numbers(stats: str) -> list[tuple[str, int]]:
    found = []
    for line in stats.splitlines():
        name, colon, value = line.rpartition(": ")
        if colon and not name.startswith(_ADMIN) and not _WORKER.search(name):
            found.append((name, int(value)))
    return found
