"""What an application that speaks xDS by itself is told at its start: gRPC's bootstrap (gRFC A27, A29, A36).

Law: pure. There is no secret in it; what it leads to are a socket and files of the same user.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from policyd.xds.proxyless import CERTIFICATES, SERVER_LISTENER

VARIABLE: Final = "GRPC_XDS_BOOTSTRAP"  # of the application's environment
REFRESH: Final = 1.0  # seconds after which gRPC looks at its files again


@dataclass(frozen=True, slots=True)
class GrpcStart:
    """The facts of one application's bootstrap: who it is, the agent's socket, and its files."""

    instance: str  # node id
    cluster: str  # node cluster: the service
    socket: Path
    chain: Path
    key: Path
    roots: Path


def grpc_bootstrap(start: GrpcStart) -> dict[str, Any]:
    """Return the bootstrap as JSON data."""
    watched = {
        "certificate_file": str(start.chain),
        "private_key_file": str(start.key),
        "ca_certificate_file": str(start.roots),
        "refresh_interval": f"{REFRESH:g}s",
    }
    return {
        "xds_servers": [
            {
                "server_uri": f"unix://{start.socket}",
                "channel_creds": [{"type": "insecure"}],  # the agent goes on under mutual TLS
                "server_features": ["xds_v3"],
            }
        ],
        "node": {"id": start.instance, "cluster": start.cluster, "metadata": {"proxyless": True}},
        "certificate_providers": {CERTIFICATES: {"plugin_name": "file_watcher", "config": watched}},
        "server_listener_resource_name_template": SERVER_LISTENER,
    }
