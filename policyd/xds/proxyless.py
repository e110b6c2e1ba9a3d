"""The names that an application without a sidecar and policyd must have in common: gRPC's bootstrap says them, and the
resources that policyd makes for gRPC say them again.
"""

from __future__ import annotations

from typing import Final

CERTIFICATES: Final = "default"  # the provider of certificates that the agent's files are
SERVER_LISTENER: Final = "grpc/server?xds.resource.listening_address=%s"  # of a server; `%s` is where it listens
