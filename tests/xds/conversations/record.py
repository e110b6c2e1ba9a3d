"""`python -m tests.xds.conversations.record NAME OUT PROGRAM...`: writes down what a client of gRPC says to policyd.

PROGRAM reads lines of JSON. For `{"target", "path"}` it makes a call of `xds:///TARGET` and writes the answer, bytes as
they are, or the status; for `{"close": TARGET}` it ends its channel. Each is answered by a line. `client.go` is one.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import grpc.aio

from policyd import envoy_api
from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE
from policyd.xds import service, wire
from policyd.xds.cache import SnapshotCache
from policyd.xds.snapshot import Resource, kind, make_snapshot, resource
from policyd.xds.sotw import Whole
from policyd.xds.stream import Push, Request
from policyd.xds.variants import StateOfTheWorld
from tests.fakes.xds_observer import FakeObserver
from tests.xds.test_real_grpc import HTTP
from tests.xds.unguarded import unguarded

TARGETS: Final = ("greeter", "greeter.default")
PATIENCE: Final = 60.0  # seconds
EDS: Final = {"eds_config": {"ads": {}, "resource_api_version": "V3"}}


class Record:
    """The steps so far, each with when it came, in seconds."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.streams = 0
        self._start = time.monotonic()

    def note(self, **facts: Any) -> None:
        """One step more."""
        self.steps.append({"at": round(time.monotonic() - self._start, 2), **facts})


def recorded(record: Record) -> type[StateOfTheWorld]:
    """The variant that notes what it hears and says."""

    class Recorded(StateOfTheWorld):
        def __init__(self, api: envoy_api.EnvoyApi | None = None) -> None:
            super().__init__(api)
            record.streams += 1
            self._stream = record.streams

        def read(self, data: bytes) -> tuple[Request | None, wire.Node | None]:
            wish, _ = wire.decode_wish(data)
            said: dict[str, Any] = {"says": kind(wish.type_url), "names": list(wish.names), "nonce": wish.nonce}
            record.note(stream=self._stream, **said, **({"error": True} if wish.error is not None else {}))
            return super().read(data)

        def say(self, push: Push) -> Whole:
            whole = super().say(push)
            names = [one.name for one in whole.resources]
            record.note(stream=self._stream, hears=kind(whole.type_url), names=names, nonce=whole.nonce)
            return whole

    return Recorded


class World:
    """policyd's service, and two servers that answer with their names."""

    def __init__(self, folder: Path, record: Record) -> None:
        self.target = f"unix:{folder / 'xds.sock'}"
        self.cache, self.observer, self.record = SnapshotCache(), FakeObserver(), record
        self.ports: dict[str, int] = {}
        self._servers: list[grpc.aio.Server] = []

    async def open(self) -> None:
        """Start the servers that are called."""
        for name in ("one", "two"):

            async def hello(_request: bytes, _context: Any, name: str = name) -> bytes:
                return name.encode()

            server = grpc.aio.server()
            method: Any = grpc.unary_unary_rpc_method_handler(hello)
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Greeter", {"Hello": method}),))
            self.ports[name] = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            self._servers.append(server)

    async def serve(self) -> tuple[service.DiscoveryService, grpc.aio.Server]:
        """The discovery service, begun anew."""
        made, server = unguarded(self.cache, self.observer), grpc.aio.server()
        server.add_generic_rpc_handlers((made.handler(),))
        server.add_insecure_port(self.target)
        await server.start()
        return made, server

    def publish(
        self, *names: str, path: dict[str, Any] | None = None, targets: tuple[str, ...] = TARGETS, timeout: int = 5
    ) -> None:
        """Lead calls of the targets to servers, as many to each; `timeout` is of the first one's cluster."""
        made = [resource(LISTENER, one, {"name": one, "api_listener": {"api_listener": HTTP}}) for one in targets]
        shares = {"clusters": [{"name": name, "weight": 1} for name in names]}
        routes = [{"match": path or {"prefix": ""}, "route": {"weighted_clusters": shares}}]
        hosts = [{"name": "all", "domains": ["*"], "routes": routes}]
        made.append(resource(ROUTE, "greeter", {"name": "greeter", "virtual_hosts": hosts}))
        for name in names:
            seconds = f"{timeout if name == names[0] else 5}s"
            fields = {"name": name, "type": "EDS", "eds_cluster_config": EDS, "connect_timeout": seconds}
            address = {"socket_address": {"address": "127.0.0.1", "port_value": self.ports[name]}}
            endpoint = {"endpoint": {"address": address}, "load_balancing_weight": 1}
            place = {"locality": {"zone": "here"}, "load_balancing_weight": 1, "lb_endpoints": [endpoint]}
            made.append(resource(CLUSTER, name, fields))
            made.append(resource(ENDPOINT, name, {"cluster_name": name, "endpoints": [place]}))
        self.record.note(publishes=[_written(one) for one in made])
        self.cache.set_all({"web-v1": make_snapshot(made)})


def _written(one: Resource) -> dict[str, Any]:
    needs = sorted([kind(needed.type_url), needed.name] for needed in one.references)
    return {"type": kind(one.type_url), "name": one.name, "version": one.version, "needs": needs}


class Client:
    """The program, and what it is asked to do."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, **what: Any) -> str:
        """One line in, one line out."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        return (await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)).decode().strip()

    async def until(self, wanted: str, target: str = TARGETS[0]) -> None:
        """Call until that is the answer."""
        async with asyncio.timeout(PATIENCE):
            while await self.ask(target=target, path="/test.Greeter/Hello") != wanted:
                await asyncio.sleep(0.05)

    async def end(self) -> None:
        """End its input, and with it the program."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.wait_for(self._process.wait(), PATIENCE)


async def scenario(world: World, client: Client) -> None:
    """All that is recorded: another server, both, one changed, a rejection, a target less, and policyd begun anew."""
    discovery, server = await world.serve()
    for target in TARGETS:
        await client.until("one", target)
    world.publish("two")
    for target in TARGETS:
        await client.until("two", target)
    world.publish("one", "two")
    await client.until("one")
    world.publish("one", "two", timeout=6)
    for _ in range(3):
        await asyncio.sleep(0.2)
        for name in ("one", "two"):
            await client.until(name)
    world.publish("two")
    await asyncio.sleep(0.5)
    world.publish("two", path={"safe_regex": {"regex": "("}})
    async with asyncio.timeout(PATIENCE):
        while not world.observer.rejections:
            await asyncio.sleep(0.05)
    world.publish("one")
    for target in TARGETS:
        await client.until("one", target)
    await client.ask(close=TARGETS[0])
    await asyncio.sleep(1.0)
    world.publish("one", targets=TARGETS[1:])
    await asyncio.sleep(1.0)
    world.publish("two")
    for target in TARGETS[::-1]:
        await client.until("two", target)
    discovery.close()
    await server.stop(0)
    world.publish("one")
    discovery, server = await world.serve()
    for target in TARGETS:
        await client.until("one", target)
    await client.end()
    discovery.close()
    await server.stop(0)


async def main(name: str, out: Path, program: list[str]) -> None:
    """Record a client."""
    record = Record()
    service.StateOfTheWorld = recorded(record)  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), record)
        await world.open()
        world.publish("one")
        xds = {"server_uri": f"unix://{folder}/xds.sock", "channel_creds": [{"type": "insecure"}]}
        bootstrap = {"xds_servers": [{**xds, "server_features": ["xds_v3"]}], "node": {"id": "web-v1"}}
        process = await asyncio.create_subprocess_exec(
            *program,
            env={**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        await scenario(world, Client(process))
    lines = ",\n".join(json.dumps(step) for step in record.steps)
    out.write_text(f'{{"client": {json.dumps(name)}, "steps": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
