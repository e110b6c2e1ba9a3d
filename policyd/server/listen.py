"""The ports: our certificate as it is now for each new connection, TLS 1.3, and nothing shared with another program."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, Final

import grpc
import structlog

from policyd._pb import agent_pb2, agent_pb2_grpc
from policyd.authz import service as authz
from policyd.authz.service import MAX_CHECK_BYTES, Authorizer, add_to_server
from policyd.ca.server_identity import ServerCertificate, ServerIdentity
from policyd.ca.service import ATTESTATION_OPTIONS, AgentsService, AttestationService
from policyd.config import Address
from policyd.errors import StateError
from policyd.server.health import Health
from policyd.xds import service as xds
from policyd.xds.service import DiscoveryService

GRACE_SECONDS: Final = 2.0
CHECK_THREADS: Final = 4
AUTHORIZATION_SERVICES: Final = (authz.SERVICE,)
XDS_SERVICES: Final = (xds.SERVICE, agent_pb2.DESCRIPTOR.services_by_name["Agents"].full_name)
_ALONE: Final = ("grpc.so_reuseport", 0)  # a port in use is an error, never shared
# Envoys and agents ping every 30 s to notice a dead connection; gRPC's default would hang up on them
_PINGS: Final = ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000)
# a connection is asked to end long before the certificate that opened it has: certificates are renewed at half of an
# hour; what is under way is finished first, and nobody notices
_AGE: Final = (("grpc.max_connection_age_ms", 600_000), ("grpc.max_connection_age_grace_ms", 60_000))

_log = structlog.get_logger("policyd.server")


def _credentials(identity: ServerIdentity, *, mutual: bool) -> grpc.ServerCredentials:
    """Of one port that renews its certificate; with `mutual`, a client's must come from our own authority.

    Not to be shared between ports: gRPC takes the first configuration once from each value of this kind.
    """
    first = identity.current()
    shown = first

    def configuration(certificate: ServerCertificate) -> Any:
        pair = [(certificate.key, certificate.chain)]
        return grpc.ssl_server_certificate_configuration(pair, certificate.roots if mutual else None)

    def fetch() -> Any:
        """The configuration for a new connection, None while it is the last one still (gRPC's rule)."""
        nonlocal shown
        now = identity.current()
        if now is shown:
            return None
        shown = now
        return configuration(now)

    return grpc.dynamic_ssl_server_credentials(configuration(first), fetch, mutual)


def serve_authorization(
    stack: AsyncExitStack, authorizer: Authorizer, address: Address, identity: ServerIdentity, health: Health
) -> None:
    """Decisions, on threads and a port of their own: no stream of configuration stands in their way."""
    threads = ThreadPoolExecutor(CHECK_THREADS, thread_name_prefix="check")
    options = [_ALONE, _PINGS, *_AGE, ("grpc.max_receive_message_length", MAX_CHECK_BYTES)]
    server = grpc.server(threads, options=options)
    add_to_server(authorizer, server)
    server.add_generic_rpc_handlers((health.blocking_handler(),))
    _bind(server, address, _credentials(identity, mutual=True))
    server.start()
    stack.callback(threads.shutdown)
    stack.callback(lambda: server.stop(GRACE_SECONDS).wait())


async def serve_xds(
    stack: AsyncExitStack,
    discovery: DiscoveryService,
    agents: AgentsService,
    address: Address,
    identity: ServerIdentity,
    health: Health,
) -> None:
    """Configuration and certificates, for Envoys and agents that have an identity."""
    server = grpc.aio.server(options=[_ALONE, _PINGS, *_AGE])
    server.add_generic_rpc_handlers((discovery.handler(), health.handler()))
    agent_pb2_grpc.add_AgentsServicer_to_server(agents, server)  # type: ignore[no-untyped-call]
    _bind(server, address, _credentials(identity, mutual=True))
    await server.start()
    stack.push_async_callback(server.stop, GRACE_SECONDS)
    stack.callback(discovery.close)
    stack.callback(agents.close)


async def serve_attestation(
    stack: AsyncExitStack, service: AttestationService, address: Address, identity: ServerIdentity
) -> None:
    """A port of its own: who joins has no certificate yet."""
    server = grpc.aio.server(options=list(ATTESTATION_OPTIONS))
    agent_pb2_grpc.add_AttestationServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    _bind(server, address, _credentials(identity, mutual=False))
    await server.start()
    stack.push_async_callback(server.stop, GRACE_SECONDS)


def _bind(server: Any, address: Address, tls: grpc.ServerCredentials) -> None:
    remedy = "is another program using it? `policyd status` shows what runs"
    try:
        bound = server.add_secure_port(str(address), tls)
    except RuntimeError as error:
        raise StateError(f"cannot listen on `{address}`", remedy=remedy) from error
    if bound != address.port:
        raise StateError(f"cannot listen on `{address}`", remedy=remedy)


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
