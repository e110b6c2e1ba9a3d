"""Services that speak TCP: a connection is decided once, before there is one to the application.

Law: connections travel as tunnels (CONNECT) between sidecars, under mutual TLS. Envoy's network filter would ask only
when the caller has sent something, and by then the application is connected: one that speaks first would have spoken.
"""

from __future__ import annotations

from typing import Any, Final

from policyd.mesh.model import Service
from policyd.xds.resources.model import outbound_cluster

CONNECT: Final = {"upgrade_type": "CONNECT"}


def ending(cluster: str) -> dict[str, Any]:
    """Of the route to an application: tunnels, and nothing else, end here, and their bytes go to it."""
    ends = {**CONNECT, "connect_config": {}}
    return {
        "match": {"connect_matcher": {}},
        "route": {"cluster": cluster, "timeout": "0s", "upgrade_configs": [ends]},
    }


def outbound(service: Service, port: int) -> dict[str, Any]:
    """The route of a tunnel to a service: it goes on, and ends in the sidecar at the other end, which asks."""
    cluster = outbound_cluster(service.id, port)
    return {
        "match": {"connect_matcher": {}},
        "route": {"cluster": cluster, "timeout": "0s", "upgrade_configs": [CONNECT]},
    }
