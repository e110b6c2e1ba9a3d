"""The state-of-the-world variant on a socket: spoken by hand, and by gRPC's own client, which is the arbiter."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from policyd import envoy_api
from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE
from policyd.xds import v2, wire
from policyd.xds.cache import SnapshotCache
from policyd.xds.service import MAX_OF_ONE, METHOD, SERVICE, WHOLE_METHOD
from policyd.xds.snapshot import Snapshot, check_snapshot, make_snapshot, resource
from tests.fakes.xds_observer import FakeObserver
from tests.xds.envoy_process import eventually
from tests.xds.unguarded import unguarded

HTTP: dict[str, Any] = {
    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "rds": {"config_source": {"ads": {}, "resource_api_version": "V3"}, "route_config_name": "greeter"},
    "http_filters": [
        {
            "name": "router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }
    ],
}


class Setup:
    """The service on a Unix socket, and servers that each answer with their own name."""

    def __init__(self, folder: Path) -> None:
        self.target = f"unix:{folder / 'xds.sock'}"
        self.cache, self.observer = SnapshotCache(), FakeObserver()
        self.service = unguarded(self.cache, self.observer)
        self.ports: dict[str, int] = {}

    def leading_to(self, name: str) -> Snapshot:
        """What a client of `xds:///greeter` needs; its calls go to one of the servers."""
        routes = [{"match": {"prefix": ""}, "route": {"cluster": name}}]
        address = {"socket_address": {"address": "127.0.0.1", "port_value": self.ports[name]}}
        endpoint = {"endpoint": {"address": address}, "load_balancing_weight": 1}
        place = {"locality": {"zone": "here"}, "load_balancing_weight": 1, "lb_endpoints": [endpoint]}
        eds = {"eds_config": {"ads": {}, "resource_api_version": "V3"}}
        hosts = [{"name": "all", "domains": ["*"], "routes": routes}]
        made = (
            resource(LISTENER, "greeter", {"name": "greeter", "api_listener": {"api_listener": HTTP}}),
            resource(ROUTE, "greeter", {"name": "greeter", "virtual_hosts": hosts}),
            resource(CLUSTER, name, {"name": name, "type": "EDS", "eds_cluster_config": eds}),
            resource(ENDPOINT, name, {"cluster_name": name, "endpoints": [place]}),
        )
        return check_snapshot(make_snapshot(made))

    def states(self) -> dict[str, str]:
        return {one.type: one.state for proxy in self.service.statuses() for one in proxy.types}


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    made = Setup(tmp_path)
    servers = [grpc.aio.server() for _ in range(3)]
    for name, server in zip(("one", "two"), servers[1:], strict=True):

        async def hello(request: bytes, context: Any, name: str = name) -> bytes:
            return name.encode()

        method: Any = grpc.unary_unary_rpc_method_handler(hello)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Greeter", {"Hello": method}),))
        made.ports[name] = server.add_insecure_port("127.0.0.1:0")
    servers[0].add_generic_rpc_handlers((made.service.handler(),))
    servers[0].add_insecure_port(made.target)
    for server in servers:
        await server.start()
    yield made
    made.service.close()
    for server in servers:
        await server.stop(0)


async def test_a_grpc_client_is_led_to_its_server_and_elsewhere_after_a_change(setup: Setup) -> None:
    setup.cache.set_all({"reviews-1": setup.leading_to("one")})
    bootstrap = {
        "xds_servers": [
            {
                "server_uri": setup.target,
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3"],
            }
        ],
        "node": {"id": "reviews-1"},
    }
    client = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parent / "grpc_client.py"),
        "xds:///greeter",
        "/test.Greeter/Hello",
        *("one", "two"),
        env={**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert client.stdout is not None
    try:
        assert await asyncio.wait_for(client.stdout.readline(), 60) == b"one\n"
        setup.cache.set_all({"reviews-1": setup.leading_to("two")})
        assert await asyncio.wait_for(client.stdout.readline(), 60) == b"two\n"
        assert await asyncio.wait_for(client.wait(), 60) == 0
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()
    assert setup.observer.rejections == []
    assert {kind for _, kind in setup.observer.pushes} == {"listeners", "routes", "clusters", "endpoints"}


class Spoken:
    """One stream, spoken by hand."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call: Any = channel.stream_stream(f"/{SERVICE}/{WHOLE_METHOD}")()

    async def say(self, **fields: Any) -> None:
        await self.call.write(envoy_api.pack(wire.WISH, fields))

    async def hear(self) -> tuple[str, list[str]]:
        """The nonce, and the names of what came."""
        data = await asyncio.wait_for(self.call.read(), 30)
        assert data is not grpc.aio.EOF, await self.call.details()
        message = envoy_api.to_dict(envoy_api.message(wire.WHOLE).FromString(data))
        return message["nonce"], [one.get("name") or one["cluster_name"] for one in message.get("resources", [])]


async def test_what_is_known_of_such_a_client_is_shown_and_its_rejections_too(setup: Setup) -> None:
    setup.cache.set_all({"reviews-1": setup.leading_to("one")})
    async with grpc.aio.insecure_channel(setup.target) as channel:
        client = Spoken(channel)
        await client.say(node={"id": "reviews-1"}, type_url=LISTENER, resource_names=["greeter"])
        nonce, names = await client.hear()
        assert names == ["greeter"]
        await client.say(type_url=LISTENER, resource_names=["greeter"], response_nonce=nonce)
        await client.say(type_url=ROUTE)  # nothing yet, and no error
        await client.say(type_url=CLUSTER, resource_names=["one"])
        nonce, names = await client.hear()
        assert names == ["one"]
        refused = {"response_nonce": nonce, "error_detail": {"message": "bad `one`"}}
        await client.say(type_url=CLUSTER, resource_names=["one"], **refused)

        async def shown() -> bool:
            return setup.states().items() >= {"clusters": "rejected", "listeners": "synced"}.items()

        await eventually(shown, "it is shown")
        assert setup.observer.rejections == [("reviews-1", "clusters", "bad `one`")]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"type_url": CLUSTER}, "the first request of a stream names its node"),
        ({"node": {"id": "a"}, "type_url": "x", "resource_names": ["n"]}, "`x` is no type that policyd serves"),
        (
            {"node": {"id": "a"}, "type_url": CLUSTER, "resource_names": ["n" * 1025]},
            "a name longer than 1024 characters",
        ),
        (
            {"node": {"id": "a"}, "type_url": CLUSTER, "resource_names": [f"{n}" for n in range(20_001)]},
            "more than 20000 names of one type",
        ),
    ],
)
async def test_a_request_that_makes_no_sense_ends_the_stream(
    setup: Setup, fields: dict[str, Any], problem: str
) -> None:
    async with grpc.aio.insecure_channel(setup.target) as channel:
        client = Spoken(channel)
        await client.say(**fields)
        assert await asyncio.wait_for(client.call.code(), 30) == grpc.StatusCode.INVALID_ARGUMENT
        assert await client.call.details() == problem


async def test_an_application_has_a_stream_for_each_of_its_targets_and_is_shown_once(setup: Setup) -> None:
    setup.cache.set_all({"reviews-1": setup.leading_to("one")})
    async with grpc.aio.insecure_channel(setup.target) as channel:
        first, second = Spoken(channel), Spoken(channel)
        for client in (first, second):
            await client.say(node={"id": "reviews-1"}, type_url=CLUSTER, resource_names=["one"])
        nonce, _ = await first.hear()
        await first.say(type_url=CLUSTER, resource_names=["one"], response_nonce=nonce)
        nonce, _ = await second.hear()
        refused = {"response_nonce": nonce, "error_detail": {"message": "bad"}}
        await second.say(type_url=CLUSTER, resource_names=["one"], **refused)

        async def shown() -> bool:
            return setup.states()["clusters"] == "rejected"

        await eventually(shown, "what one of them rejected is shown")
        assert [proxy.instance for proxy in setup.service.statuses()] == ["reviews-1"]
        await first.say(type_url=ENDPOINT, resource_names=["one"])
        assert (await first.hear())[1] == ["one"]


async def test_a_client_of_an_older_version_is_told_that_there_is_no_such_service(setup: Setup) -> None:
    async with grpc.aio.insecure_channel(setup.target) as channel:
        older: Any = channel.stream_stream(f"/{SERVICE.replace('.v3.', '.v2.')}/{WHOLE_METHOD}")()
        assert await asyncio.wait_for(older.code(), 30) is grpc.StatusCode.UNIMPLEMENTED


async def test_streams_of_one_application_are_bounded_and_an_envoy_in_its_place_has_the_only_one(setup: Setup) -> None:
    hello = {"node": {"id": "reviews-1"}, "type_url": CLUSTER, "resource_names": ["one"]}
    setup.cache.set_all({"reviews-1": setup.leading_to("one")})
    async with grpc.aio.insecure_channel(setup.target) as channel:
        every = [Spoken(channel) for _ in range(MAX_OF_ONE)]
        for client in every:
            await client.say(**hello)
            await client.hear()
        over = Spoken(channel)
        await over.say(**hello)
        assert await asyncio.wait_for(over.call.code(), 30) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await over.call.details() == f"`reviews-1` has {MAX_OF_ONE} streams already"
        envoy: Any = channel.stream_stream(f"/{SERVICE}/{METHOD}")()
        await envoy.write(envoy_api.pack(wire.REQUEST, {"node": {"id": "reviews-1"}, "type_url": CLUSTER}))
        assert await asyncio.wait_for(envoy.read(), 30) is not grpc.aio.EOF
        for client in every:
            assert await asyncio.wait_for(client.call.code(), 30) is grpc.StatusCode.UNAVAILABLE
        assert setup.observer.counts[-1] == 1


@pytest.mark.parametrize("method", [METHOD, WHOLE_METHOD])
async def test_a_client_that_speaks_v2_is_told_what_to_say_instead(setup: Setup, method: str) -> None:
    setup.cache.set_all({"reviews-1": setup.leading_to("one")})
    async with grpc.aio.insecure_channel(setup.target) as channel:
        call: Any = channel.stream_stream(f"/{v2.SERVICE}/{method}")()
        assert await asyncio.wait_for(call.code(), 30) == grpc.StatusCode.UNIMPLEMENTED
        assert await call.details() == (
            "policyd speaks xDS v3 alone; have the client say `transport_api_version: V3` (gRPC: `xds_v3`)"
        )
    assert setup.service.statuses() == ()


async def test_a_client_that_asks_on_a_stream_of_v3_for_what_is_of_v2_is_told_so(setup: Setup) -> None:
    async with grpc.aio.insecure_channel(setup.target) as channel:
        client = Spoken(channel)
        await client.say(node={"id": "reviews-1"}, type_url="type.googleapis.com/envoy.api.v2.Listener")
        assert await asyncio.wait_for(client.call.code(), 30) == grpc.StatusCode.INVALID_ARGUMENT
        assert await client.call.details() == (
            "`type.googleapis.com/envoy.api.v2.Listener` is no type that policyd serves"
        )
