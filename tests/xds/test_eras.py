"""Who is revoked is spoken to by no connection of before: Envoy ends them, open requests too, in its drain time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from policyd.envoy_api import CLUSTER, LISTENER, ROUTE
from policyd.mesh.health import with_revoked
from policyd.mesh.model import Mesh
from policyd.spiffe import SpiffeId
from policyd.xds.cache import SnapshotCache
from policyd.xds.resources import ages
from policyd.xds.snapshot import Snapshot, make_snapshot, resource
from tests.ports import free_port
from tests.xds.envoy_process import EnvoyProcess, eventually
from tests.xds.resources.folders import TRUST_DOMAIN, WORKLOADS, mesh_of
from tests.xds.resources.test_build import shown
from tests.xds.test_real_envoy import ADS, NODE, address, hosts, listener, says, serving

pytestmark = pytest.mark.e2e

ANYBODY = mesh_of({"workloads.yaml": WORKLOADS})
API = SpiffeId.workload(TRUST_DOMAIN, "default", "api")
REVOKED = with_revoked(ANYBODY, frozenset({API}))
PATIENCE = 20.0
SYNCED = ("synced", "none", "synced", "synced")  # its one cluster has its endpoints within


class Way:
    """A listener that answers by itself, or below `/app` by an application that begins to answer and never ends."""

    def __init__(self) -> None:
        self.port, self.app = free_port(), free_port()
        self._opened: list[asyncio.StreamWriter] = []

    def snapshot(self, mesh: Mesh) -> Snapshot:
        places = [{"lb_endpoints": [{"endpoint": {"address": address(self.app)}}]}]
        assigned = {"cluster_name": "app", "endpoints": places}
        front = shown(listener("front", self.port, rds={"route_config_name": "front", "config_source": ADS}))
        lasting = {"match": {"prefix": "/app"}, "route": {"cluster": "app", "timeout": "0s"}}
        parts = (
            resource(CLUSTER, "app", {"name": "app", "type": "STATIC", "load_assignment": assigned}),
            resource(LISTENER, "front", ages.listener(mesh, front)),
            resource(ROUTE, "front", {"name": "front", "virtual_hosts": hosts(lasting, says("one"))}),
        )
        return make_snapshot(parts)

    async def opened(self) -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._opened.append(writer)
        return Connection(reader, writer)

    @asynccontextmanager
    async def application(self) -> AsyncIterator[None]:
        async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
            while await reader.read(1024):
                pass
            writer.close()

        server = await asyncio.start_server(begin, "127.0.0.1", self.app)
        try:
            yield
        finally:
            for writer in self._opened:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()
            server.close()
            await server.wait_closed()


class Connection:
    """As a client holds it who ends nothing by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def asks(self, path: str = "/") -> str:
        """The head of the answer, in lower case."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nhost: app\r\n\r\n".encode())
        async with asyncio.timeout(PATIENCE):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
            if "content-length" in head:
                await self._reader.readexactly(len("one"))
            return head

    async def ends(self) -> None:
        """Wait until the other end has ended it."""
        async with asyncio.timeout(PATIENCE):
            while await self._reader.read(1024):
                pass


async def test_when_somebody_is_revoked_what_is_open_is_ended() -> None:
    way, cache = Way(), SnapshotCache()
    cache.set_all({NODE: way.snapshot(ANYBODY)})
    drained = ("--drain-time-s", "1", "--drain-strategy", "immediate")

    async with way.application(), EnvoyProcess(NODE, None, *drained) as envoy, serving(envoy, cache) as control:
        await eventually(lambda: control.all_are(*SYNCED), "all synced")
        idle, busy = await way.opened(), await way.opened()
        assert "connection: close" not in await idle.asks()
        assert "200 ok" in await busy.asks("/app")

        cache.set_all({NODE: way.snapshot(REVOKED)})
        await eventually(lambda: control.all_are(*SYNCED), "all synced")
        await idle.ends()
        await busy.ends()
        after = await way.opened()
        assert "connection: close" not in await after.asks()
        cache.set_all({NODE: way.snapshot(REVOKED)})
        assert "connection: close" not in await after.asks(), "an era that goes on ends nothing"
