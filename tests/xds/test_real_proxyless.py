"""gRPC's own clients and servers, with what policyd makes of a mesh for them: routes, mutual TLS, and who may call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from policyd.authz.ruling import make_ruling
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema, parse_schema
from policyd.local.guarding import guarded
from policyd.xds.cache import SnapshotCache
from policyd.xds.resources.build import build_snapshots
from tests.fakes.xds_observer import FakeObserver
from tests.ports import free_port
from tests.xds.grpc_processes import Processes
from tests.xds.resources.folders import CONTROL, mesh_of
from tests.xds.unguarded import unguarded

TARGET = "greeter.default.svc.cluster.local:50051"
HELLO, SECRET, ANY = "/test.Greeter/Hello", "/test.Greeter/Secret", "/test.Greeter/Any"
DENIED = "PERMISSION_DENIED: Unauthorized RPC rejected"
WORKLOADS = """\
workloads:
  greeter-v1: {service: greeter, port: 50051, protocol: grpc, proxyless: true, labels: {version: v1}, inboundPort: %d}
  greeter-v2: {service: greeter, port: 50051, protocol: grpc, proxyless: true, labels: {version: v2}, inboundPort: %d,
    weight: 3, locality: eu/a}
  web-v1: {service: web, port: 50051, protocol: grpc, proxyless: true}
  other-v1: {service: other, port: 50051, protocol: grpc, proxyless: true}
"""
SUBSETS = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: greeter}
spec:
  host: greeter
  trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}, connectionPool: {http: {http2MaxRequests: 100}}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - name: v2
    labels: {version: v2}
    trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user, ringHash: {minimumRingSize: 16}}}}
"""
RULES = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: greeter}
spec:
  hosts: [greeter]
  http:
  - match: [{headers: {x-user: {exact: tester}}}]
    route: [{destination: {host: greeter, subset: v2}}]
  - match: [{headers: {x-fail: {}}}]
    route: [{destination: {host: greeter}}]
    fault: {abort: {grpcStatus: RESOURCE_EXHAUSTED, percentage: {value: 100}}}
  - match: [{uri: {regex: "/test[.]Greeter/Any"}, method: {exact: POST}, withoutHeaders: {x-none: {}}}]
    route: [{destination: {host: greeter}}]
    timeout: 20s
    retries: {attempts: 3, retryOn: "unavailable,internal", backoff: 0.1s}
  - route:
    - {destination: {host: greeter, subset: v1}, weight: %d}
    - {destination: {host: greeter, subset: v2}, weight: %d}
"""
POLICIES = """\
@id("greet")
permit (
    principal == Workload::"spiffe://cluster.local/ns/default/sa/web",
    action == Action::"POST",
    resource == Service::"greeter.default"
) when { ["/test.Greeter/Hello", "/test.Greeter/Any"].contains(context.request.path) };
"""


class World:
    """The discovery service for a mesh, on a Unix socket, and gRPC's processes that are told of it."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        self.schema = schema
        self.target = f"unix:{folder / 'xds.sock'}"
        self.cache, self.observer = SnapshotCache(), FakeObserver()
        self.service = unguarded(self.cache, self.observer)
        self.processes = Processes(folder, self.target)
        self.ports = (free_port(), free_port())

    def publish(self, policies: str, rules: str) -> None:
        """Put a mesh in force."""
        mesh = mesh_of({"workloads.yaml": WORKLOADS % self.ports, "mesh/a.yaml": SUBSETS, "mesh/b.yaml": rules})
        ruling = make_ruling(mesh, load_policies({"it.cedar": policies}, self.schema), self.schema)
        found = guarded(ruling)
        assert found.refused == ()
        self.cache.set_all(dict(build_snapshots(mesh, CONTROL, guards=found.guards).check()))


async def call(
    caller: asyncio.subprocess.Process,
    path: str = HELLO,
    target: str = TARGET,
    metadata: Mapping[str, str] | None = None,
) -> str:
    """What a caller gets."""
    assert caller.stdin is not None
    assert caller.stdout is not None
    asked = {"target": target, "path": path, "metadata": dict(metadata or {})}
    caller.stdin.write(json.dumps(asked).encode() + b"\n")
    said = await asyncio.wait_for(caller.stdout.readline(), 60)
    assert said, "the caller ended"
    return said.decode().strip()


async def until(wanted: str, caller: asyncio.subprocess.Process, **asked: Any) -> None:
    """Call until that is what a caller gets."""
    async with asyncio.timeout(90):
        while await call(caller, **asked) != wanted:
            await asyncio.sleep(0.05)


@pytest.fixture
async def world(tmp_path: Path, root: Path) -> AsyncIterator[World]:
    made = World(tmp_path, parse_schema((root / "policies/mesh.cedarschema").read_text()))
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((made.service.handler(),))
    server.add_insecure_port(made.target)
    await server.start()
    yield made
    await made.processes.end()
    made.service.close()
    await server.stop(0)


async def test_clients_and_servers_of_grpc_keep_what_a_mesh_declares(world: World) -> None:
    world.publish(POLICIES, RULES % (1, 0))
    for number, port in enumerate(world.ports, 1):
        await world.processes.start("grpc_server.py", f"greeter-v{number}", f"127.0.0.1:{port}", f"v{number}")
    web, other = (
        await world.processes.start("grpc_caller.py", "web-v1"),
        await world.processes.start("grpc_caller.py", "other-v1"),
    )

    await until("v1", web)
    await until("v2", web, metadata={"x-user": "tester"})
    assert await call(web, SECRET) == DENIED
    await until(DENIED, other)
    assert (await call(web, metadata={"x-fail": "yes"})).startswith("RESOURCE_EXHAUSTED")
    for one in ("v1", "v2"):  # each gets its weight's share
        await until(one, web, path=ANY)
    world.publish(POLICIES, RULES % (0, 1))
    await until("v2", web)
    world.publish(POLICIES.replace("sa/web", "sa/other"), RULES % (1, 0))
    await until(DENIED, web)
    await until("v1", other)

    assert world.observer.rejections == []
