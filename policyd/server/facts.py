"""What a running server knows of itself, for the admin API (policyd.admin.facts.Facts) and for its readiness.

Law: it looks and changes nothing; each part is asked at the moment at which somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from policyd.admin.facts import Counts
from policyd.audit.journal import Journal
from policyd.audit.sealer import Sealer
from policyd.ca.serving.agents import AgentsService
from policyd.errors import Problem
from policyd.keeper import Keeper
from policyd.reload.live import Live
from policyd.server.authority import Authority
from policyd.server.decider_life import DeciderLife
from policyd.server.deciders import Deciders
from policyd.server.liveness import Liveness
from policyd.telemetry.metrics import Metrics
from policyd.xds.service import DiscoveryService
from policyd.xds.status import ProxyStatus, troubles


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that are asked.

    `begun` says with what the server began in the place of a bad folder, "" where the folder is in force; `fetched`
    are the troubles of what comes from elsewhere, `export` is why the journal's export waits, "" where it does not.
    """

    keeper: Keeper
    journal: Journal
    metrics: Metrics
    deciders: Deciders
    authority: Authority
    liveness: Liveness
    agents: AgentsService
    discovery: DiscoveryService
    sealer: Sealer
    begun: Callable[[], str]
    fetched: Callable[[], Iterable[str]]
    export: Callable[[], str]


class Facts:
    """Asked by the admin API, and by whoever looks whether the server is ready."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def live(self) -> Live:
        """What is in force."""
        return self._parts.keeper.live

    @property
    def refused(self) -> Iterable[Problem]:
        """Why the folder as it is now is not in force."""
        return self._parts.keeper.refused

    def not_ready(self) -> str:
        """Why the server is not ready; "" when it is. What is in force decides on while a change is refused."""
        parts = self._parts
        return parts.journal.trouble() or parts.deciders.trouble() or parts.authority.trouble()

    def remark(self) -> str:
        """What else a reader of the readiness should know."""
        parts = self._parts
        refused = parts.begun() or "a change is refused"
        said = [f"{refused}: {parts.keeper.refused[0]}"] if parts.keeper.refused else []
        return "; ".join((*said, *parts.authority.remarks()))

    def warnings(self) -> Iterable[str]:
        """What works and deserves a look."""
        parts = self._parts
        if begun := parts.begun():
            yield begun
        yield from (str(warning) for warning in self.live.warnings)
        yield from parts.fetched()
        yield from troubles(self.proxies())
        yield from parts.authority.remarks()
        if trouble := parts.export():
            yield f"the journal's export waits: {trouble}"
        if parts.sealer.trouble:
            yield parts.sealer.trouble

    def deciders(self) -> Iterable[DeciderLife]:
        """The decision processes."""
        return self._parts.deciders.lives

    def troubles(self) -> Mapping[str, str]:
        """The instances that are probed and not reached, and why."""
        return self._parts.liveness.troubles(self.live.mesh)

    def counts(self) -> Counts:
        """Decisions since the start."""
        return Counts(*self._parts.metrics.totals())

    def shadow_counts(self) -> dict[str, int]:
        """Shadow decisions since the start, by what would change."""
        return self._parts.metrics.shadow_totals()

    def agents(self) -> Iterable[str]:
        """The agents that are connected, by name."""
        return self._parts.agents.connected()

    def proxies(self) -> Iterable[ProxyStatus]:
        """The proxies that are connected."""
        return self._parts.discovery.statuses()
