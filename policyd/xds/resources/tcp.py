"""Services that speak TCP: a connection is decided once, before there is one to the application.

Law: connections travel as tunnels (CONNECT) between sidecars, under mutual TLS. Envoy's network filter would ask only
when the caller has sent something, and by then the application is connected: one that speaks first would have spoken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from policyd.mesh.model import Service
from policyd.xds.resources.model import outbound_cluster

CONNECT: Final = {"upgrade_type": "CONNECT"}
IDLE: Final = "3600s"  # Istio's for connections; Envoy's own for streams would be five minutes
_PATIENT: Final = {"timeout": "0s", "idle_timeout": IDLE}
# of a route, besides its cluster: tunnels go on as such, or end here, and their bytes go on
GOES_ON: Final[Mapping[str, Any]] = {**_PATIENT, "upgrade_configs": [CONNECT]}
ENDS_HERE: Final[Mapping[str, Any]] = {**_PATIENT, "upgrade_configs": [{**CONNECT, "connect_config": {}}]}

# of a connection manager for tunnels alone: the end of one is that of its connection, which is else a second late
SOON_CLOSED: Final = {"delayed_close_timeout": "0.05s"}


def ending(cluster: str) -> dict[str, Any]:
    """Of the route to an application: tunnels, and nothing else, end here, and their bytes go to it."""
    return {"match": {"connect_matcher": {}}, "route": {"cluster": cluster, **ENDS_HERE}}


def outbound(service: Service, port: int) -> dict[str, Any]:
    """The route of a tunnel to a service: it goes on, and ends in the sidecar at the other end, which asks."""
    return {"match": {"connect_matcher": {}}, "route": {"cluster": outbound_cluster(service.id, port), **GOES_ON}}
