"""What gRPC's servers are sent: a Listener for each address that one may listen on, and who may call (gRFC A36, A41).

Law: a server to which nobody has said who may call refuses everybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from policyd.mesh.model import Instance, Served
from policyd.xds.proxyless import SERVER_LISTENER
from policyd.xds.resources import filters
from policyd.xds.resources.model import Guard, socket
from policyd.xds.resources.proxyless import secured

RBAC: Final = f"{filters.HTTP}.rbac.v3.RBAC"
NOBODY: Final = Guard(({"name": "allowed", "typed_config": {"@type": RBAC, "rules": {"action": "ALLOW"}}},))
EVERYWHERE: Final = ("0.0.0.0", "::")  # where an application may have chosen to listen


def listeners(instance: Instance, served: Served, guard: Guard) -> Iterator[dict[str, Any]]:
    """What is asked for by a server that listens where peers are sent to, or there on every address."""
    hosts = [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": ""}, "non_forwarding_action": {}}]}]
    manager = {
        "@type": filters.MANAGER,
        "route_config": {"name": "inbound", "virtual_hosts": hosts},
        "http_filters": [*(dict(one) for one in guard.filters), dict(filters.ROUTER)],
    }
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    chain = {"filters": [network], "transport_socket": secured.downstream()}
    for host in dict.fromkeys((instance.address, *EVERYWHERE)):
        where = f"[{host}]:{served.inbound_port}" if ":" in host else f"{host}:{served.inbound_port}"
        yield {
            "name": SERVER_LISTENER % where,
            "address": socket(host, served.inbound_port),
            "traffic_direction": "INBOUND",
            "filter_chains": [chain],
        }
