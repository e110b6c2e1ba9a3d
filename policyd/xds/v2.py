"""What whoever speaks version 2 of discovery is told: a gRPC client of long ago, or one that is configured so."""

from __future__ import annotations

from typing import Any, Final

import grpc

SERVICE: Final = "envoy.service.discovery.v2.AggregatedDiscoveryService"
INSTEAD: Final = "policyd speaks xDS v3 alone; have the client say `transport_api_version: V3` (gRPC: `xds_v3`)"


async def refuse(_requests: object, context: Any) -> None:
    """End a stream of v2 with what to say instead, whatever it asks for; `context` is a grpc.aio.ServicerContext."""
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, INSTEAD)
