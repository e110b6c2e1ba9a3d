"""The ports of the control process: configuration, certificates, joining; none shared with another program."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from policyd._pb import agent_pb2, agent_pb2_grpc
from policyd.admin import service as admin
from policyd.ca import rotation_desk
from policyd.ca.desk import service as desk
from policyd.ca.server_identity import ServerIdentity
from policyd.ca.serving.attestation import ATTESTATION_OPTIONS, AttestationService
from policyd.config.addresses import Address
from policyd.server.health import Health
from policyd.server.mesh_port import MeshPort
from policyd.server.operating import Operating
from policyd.server.transport import AGE, ALONE, GRACE_SECONDS, PINGS, STEADY, bind, credentials
from policyd.xds import service as xds

XDS_SERVICES: Final = (xds.SERVICE, agent_pb2.DESCRIPTOR.services_by_name["Agents"].full_name)

_log = structlog.get_logger("policyd.server")


async def serve_xds(
    stack: AsyncExitStack, port: MeshPort, address: Address, identity: ServerIdentity, health: Health
) -> None:
    """Configuration, certificates and spans, for Envoys and agents of the mesh; and what Envoys refuse themselves."""
    server = grpc.aio.server(options=[ALONE, *PINGS, STEADY, *AGE])
    server.add_generic_rpc_handlers((port.discovery.handler(), port.refused.handler(), health.handler()))
    agent_pb2_grpc.add_AgentsServicer_to_server(port.agents, server)  # type: ignore[no-untyped-call]
    agent_pb2_grpc.add_InspectionsServicer_to_server(port.inspections, server)  # type: ignore[no-untyped-call]
    agent_pb2_grpc.add_DecisionsServicer_to_server(port.decisions, server)  # type: ignore[no-untyped-call]
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(port.traces, server)  # type: ignore[no-untyped-call]
    bind(server, address, credentials(identity, mutual=True))
    stack.push_async_callback(server.stop, GRACE_SECONDS)  # also where we are told to end while it starts
    await server.start()
    stack.callback(port.discovery.close)
    stack.callback(port.agents.close)
    stack.callback(port.inspections.close)
    stack.callback(port.refused.close)


async def serve_attestation(
    stack: AsyncExitStack, service: AttestationService, address: Address, identity: ServerIdentity
) -> None:
    """A port of its own: who joins has no certificate yet."""
    server = grpc.aio.server(options=list(ATTESTATION_OPTIONS))
    agent_pb2_grpc.add_AttestationServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    bind(server, address, credentials(identity, mutual=False))
    stack.push_async_callback(server.stop, GRACE_SECONDS)  # also where we are told to end while it starts
    await server.start()


async def serve_admin(stack: AsyncExitStack, operating: Operating, socket: Path) -> None:
    """The administration API, on a Unix socket that its owner alone may open."""
    socket.unlink(missing_ok=True)  # noqa: ASYNC240 - a moment, before anybody is served
    server = grpc.aio.server()
    admin.handler(server, operating.admin)
    desk.handler(server, operating.desk)
    rotation_desk.handler(server, operating.rotation)
    server.add_insecure_port(f"unix:{socket}")
    stack.push_async_callback(server.stop, GRACE_SECONDS)
    await server.start()
    socket.chmod(0o600)  # noqa: ASYNC240


class Running:
    """A coroutine that runs for the length of an `async with`; a fault of its own ends the server, visibly."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = work

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._work)
        self._task.add_done_callback(self._ended)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("server.task_failed", error=repr(error))
            os.kill(os.getpid(), signal.SIGTERM)
