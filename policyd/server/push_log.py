"""What is said of pushes to proxies: a line of each that a proxy rejected, at `debug` one of each that it was sent.

Law: they are counted in any case. A proxy's own words are bounded where they come in.
"""

from __future__ import annotations

import logging
from typing import Protocol

import structlog

_log = structlog.get_logger("policyd.xds")
_level = logging.getLogger("policyd.xds")


class Observer(Protocol):
    """Who counts; policyd.telemetry.metrics.Metrics is one."""

    def pushed(self, node_id: str, kind: str) -> None:
        """A response was sent."""

    def rejected(self, node_id: str, kind: str, text: str) -> None:
        """A proxy rejected one."""

    def converged(self, seconds: float) -> None:
        """A proxy has confirmed all that a change brought it."""

    def connections(self, count: int) -> None:
        """So many proxies are connected."""


class PushLog:
    """An observer of the discovery service that speaks, and lets another one count."""

    def __init__(self, counts: Observer) -> None:
        self.converged = counts.converged
        self.connections = counts.connections
        self._counts = counts

    def pushed(self, node_id: str, kind: str) -> None:
        """A response was sent."""
        self._counts.pushed(node_id, kind)
        if _level.isEnabledFor(logging.DEBUG):
            _log.debug("proxy.sent", proxy=node_id, type=kind)

    def rejected(self, node_id: str, kind: str, text: str) -> None:
        """A proxy rejected one, and serves on what it had."""
        self._counts.rejected(node_id, kind, text)
        _log.warning("proxy.rejected", proxy=node_id, type=kind, why=text)
