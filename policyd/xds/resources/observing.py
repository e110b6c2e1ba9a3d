"""What is seen of requests: counts (`counting`), lines of an access log (`lines`), and spans (`spans`).

Law: Telemetries have the word, and where none speaks the settings; without a collector nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from policyd.mesh.model import Instance, Mesh, Served
from policyd.mesh.telemetry import NOTHING_SAID, Said, said_of
from policyd.xds.agreed import SDS_CLUSTER, XDS_CLUSTER
from policyd.xds.resources import counting
from policyd.xds.resources.filters import GRPC_STATS
from policyd.xds.resources.lines import written
from policyd.xds.resources.model import Control, Decided
from policyd.xds.resources.spans import traced

STATIC_CLUSTERS: Final = frozenset({SDS_CLUSTER, XDS_CLUSTER})  # those of a proxy's bootstrap


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen of an instance's requests: `asks` is said of those that it sends, `asked` of those that it gets.

    Each method gives what a connection manager says of its requests (HttpConnectionManager).
    """

    control: Control
    instance: Instance
    asks: Said = NOTHING_SAID
    asked: Said = NOTHING_SAID

    def inbound(self, served: Served, *, encrypted: bool, decided: Decided | None = None) -> dict[str, Any]:
        """At the sidecar of who is asked; `decided` tells of decisions where these are not policyd's only."""
        counted = counting.inbound(
            self.instance, served, encrypted=encrypted, counts=self.asked.counts, either=decided is not None
        )
        return self._said(self.asked, counted, decided)

    def outbound(self) -> dict[str, Any]:
        """At the Envoy of who asks, a gateway too."""
        return self._said(self.asks, counting.outbound(self.instance, self.asks.counts))

    def inside(self) -> dict[str, Any]:
        """Of requests that came through a tunnel within it."""
        return self._said(self.asks, counting.inside(self.instance, self.asks.counts))

    def messages(self, *, asked: bool) -> list[dict[str, Any]]:
        """The filter that counts messages of gRPC, of requests that it gets (`asked`) or sends."""
        counts = (self.asked if asked else self.asks).counts
        off = all(counts.get(one, counting.AS_IT_IS).disabled for one in counting.MESSAGES)
        return [] if off else [GRPC_STATS]

    def connections(self) -> dict[str, Any]:
        """Of connections that become tunnels within it (TcpProxy)."""
        counted = counting.connections(self.instance, self.asks.counts)
        return {"access_log": counted, "access_log_options": counting.CONNECTED}

    def _said(self, said: Said, counted: list[dict[str, Any]], decided: Decided | None = None) -> dict[str, Any]:
        return {
            "access_log": [*counted, *written(self.control, self.instance, said)],
            "access_log_options": counting.TUNNELS,
            **traced(self.control, self.instance, said.spans, decided),
        }


def seen(mesh: Mesh, control: Control, instance: Instance) -> Seen:
    """What the settings and the Telemetries of a mesh say of an instance."""
    if not mesh.telemetries:
        return Seen(control, instance)
    is_logged = control.access_log is not None
    asks = said_of(mesh.telemetries, instance, "CLIENT", is_logged=is_logged)
    return Seen(control, instance, asks, said_of(mesh.telemetries, instance, "SERVER", is_logged=is_logged))
