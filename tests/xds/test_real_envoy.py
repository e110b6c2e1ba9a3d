"""The service and the real Envoy: what Envoy was measured to do is met here again."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc.aio
import httpx
import pytest

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE, TYPE_PREFIX
from policyd.xds.cache import SnapshotCache
from policyd.xds.resources import listeners
from policyd.xds.snapshot import Resource, Snapshot, check_snapshot, make_snapshot, resource
from policyd.xds.status import ProxyStatus, troubles
from tests.fakes.xds_observer import FakeObserver
from tests.ports import free_port
from tests.xds.envoy_process import EnvoyProcess, bootstrap, eventually
from tests.xds.unguarded import unguarded

pytestmark = pytest.mark.e2e

NODE = "reviews-1"
HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ADS = {"resource_api_version": "V3", "ads": {}}


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def listener(name: str, port: int, **routes: Any) -> Resource:
    router = {"@type": TYPE_PREFIX + "envoy.extensions.filters.http.router.v3.Router"}
    manager = {
        "@type": TYPE_PREFIX + HCM,
        "stat_prefix": name,
        "http_filters": [{"name": "router", "typed_config": router}],
        **routes,
    }
    chains = [{"filters": [{"name": "http", "typed_config": manager}]}]
    return resource(LISTENER, name, listeners.listener(name, "127.0.0.1", port, chains[0], "INBOUND"))


def says(text: str) -> dict[str, Any]:
    """A route that answers everything with a text."""
    return {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": text}}}


def hosts(*routes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "all", "domains": ["*"], "routes": list(routes)}]


def cluster(timeout: str = "1s", name: str = "app", **more: Any) -> Resource:
    fields = {"name": name, "type": "EDS", "eds_cluster_config": {"eds_config": ADS}, "connect_timeout": timeout}
    return resource(CLUSTER, name, fields | more)


class Mesh:
    """A proxy with a front listener, whose routes lead to an application that is its other listener."""

    def __init__(self) -> None:
        self.front, self.app = free_port(), free_port()

    def snapshot(self, text: str = "one", to: Resource | None = None, app: str = "app", said: str = "") -> Snapshot:
        to = to or cluster()
        answer = hosts(says(said or "the app"))
        places = [{"lb_endpoints": [{"endpoint": {"address": address(self.app)}}]}]
        to_app = {"match": {"prefix": "/app"}, "route": {"cluster": to.name}}
        parts = (
            to,
            resource(ENDPOINT, to.name, {"cluster_name": to.name, "endpoints": places}),
            listener("front", self.front, rds={"route_config_name": "front", "config_source": ADS}),
            listener(app, self.app, route_config={"name": "app", "virtual_hosts": answer}),
            resource(ROUTE, "front", {"name": "front", "virtual_hosts": hosts(to_app, says(text))}),
        )
        return check_snapshot(make_snapshot(parts))

    async def get(self, path: str = "/") -> str:
        return await self._get(f"http://127.0.0.1:{self.front}{path}")

    async def get_app(self) -> str:
        return await self._get(f"http://127.0.0.1:{self.app}")

    async def _get(self, url: str) -> str:
        async with httpx.AsyncClient() as client:
            return (await client.get(url)).text


class Control:
    """The service on Envoy's socket, without TLS; whoever connects is taken for the workload."""

    def __init__(self, cache: SnapshotCache) -> None:
        self.observer = FakeObserver()
        self.service = unguarded(cache, self.observer)

    def status(self) -> ProxyStatus:
        (only,) = self.service.statuses()
        return only

    async def all_are(self, *states: str) -> bool:
        statuses = self.service.statuses()
        return len(statuses) == 1 and tuple(one.state for one in statuses[0].types) == states


@asynccontextmanager
async def serving(envoy: EnvoyProcess, cache: SnapshotCache) -> AsyncIterator[Control]:
    control = Control(cache)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((control.service.handler(),))
    server.add_insecure_port(f"unix:{envoy.xds}")
    await server.start()
    try:
        yield control
    finally:
        control.service.close()
        await server.stop(1)


SYNCED = ("synced",) * 4


async def test_it_becomes_live_and_follows_changes() -> None:
    mesh, cache = Mesh(), SnapshotCache()
    cache.set_all({NODE: mesh.snapshot("one")})
    async with EnvoyProcess(NODE) as envoy, serving(envoy, cache) as control:
        await eventually(envoy.live, "live")
        await eventually(lambda: control.all_are(*SYNCED), "all synced")
        assert (await mesh.get(), await mesh.get("/app")) == ("one", "the app")
        assert control.status().envoy_version == "1.40.0"
        assert [one.resources for one in control.status().types] == [1, 1, 2, 1]

        cache.set_all({NODE: mesh.snapshot("two")})
        took = await eventually(lambda: says_now(mesh, "two"), "the new text")
        assert took < 1
        assert control.observer.pushes[-1] == (NODE, "routes")


async def test_it_follows_changes_in_the_state_of_the_world_variant_too() -> None:
    mesh, cache = Mesh(), SnapshotCache()
    cache.set_all({NODE: mesh.snapshot("one")})
    envoy = EnvoyProcess(NODE)
    envoy.use(bootstrap(NODE, envoy.admin, envoy.xds, "GRPC"))
    async with envoy, serving(envoy, cache) as control:
        await eventually(envoy.live, "live")
        await eventually(lambda: control.all_are(*SYNCED), "all synced")
        assert (await mesh.get(), await mesh.get("/app")) == ("one", "the app")
        assert [one.resources for one in control.status().types] == [1, 1, 2, 1]

        cache.set_all({NODE: mesh.snapshot("two")})
        await eventually(lambda: says_now(mesh, "two"), "the new text")


async def says_now(mesh: Mesh, text: str) -> bool:
    return await mesh.get() == text


async def test_a_changed_cluster_is_warm_at_once() -> None:
    mesh, cache = Mesh(), SnapshotCache()
    cache.set_all({NODE: mesh.snapshot()})
    async with EnvoyProcess(NODE) as envoy, serving(envoy, cache) as control:
        await eventually(lambda: control.all_are(*SYNCED), "all synced")
        for timeout in ("2s", "3s"):
            control.observer.pushes.clear()
            cache.set_all({NODE: mesh.snapshot(to=cluster(timeout))})
            await eventually(lambda: pushed(control, "clusters"), "the push")
            assert await eventually(lambda: control.all_are(*SYNCED), "all synced again") < 1
            assert control.observer.pushes == [(NODE, "clusters"), (NODE, "endpoints")]


async def pushed(control: Control, kind: str) -> bool:
    return (NODE, kind) in control.observer.pushes


async def test_its_own_words_are_kept_when_it_rejects_and_newer_content_mends_it() -> None:
    mesh, cache = Mesh(), SnapshotCache()
    cache.set_all({NODE: mesh.snapshot()})
    bad = cluster(name="new", lb_policy="CLUSTER_PROVIDED")
    async with EnvoyProcess(NODE) as envoy, serving(envoy, cache) as control:
        await eventually(lambda: control.all_are(*SYNCED), "all synced")
        cache.set_all({NODE: mesh.snapshot("two", bad)})
        await eventually(lambda: control.all_are("rejected", "sent", "synced", "sent"), "a rejection")
        assert "cluster provided LB specified" in control.status().types[0].rejection
        assert [(node, kind) for node, kind, _ in control.observer.rejections] == [(NODE, "clusters")]
        assert await mesh.get() == "one"

        cache.set_all({NODE: mesh.snapshot("three")})
        await eventually(lambda: says_now(mesh, "three"), "the route after it")
        await eventually(lambda: control.all_are(*SYNCED), "all synced again")


async def test_after_a_restart_of_the_server_it_comes_back_and_gets_what_changed() -> None:
    mesh, cache = Mesh(), SnapshotCache()
    cache.set_all({NODE: mesh.snapshot("one")})
    async with EnvoyProcess(NODE) as envoy:
        async with serving(envoy, cache) as control:
            await eventually(lambda: control.all_are(*SYNCED), "all synced")
        assert await mesh.get("/app") == "the app"

        async with serving(envoy, cache) as control:
            await eventually(lambda: control.all_are(*SYNCED), "all synced again")
            assert control.observer.pushes == []

        cache.set_all({NODE: mesh.snapshot("two", cluster("2s"))})
        async with serving(envoy, cache) as control:
            took = await eventually(lambda: says_now(mesh, "two"), "the new text")
            await eventually(lambda: control.all_are(*SYNCED), "all synced once more")
            assert took < 5
            assert await mesh.get("/app") == "the app"


def taken_by_another(port: int) -> socket.socket:
    """A program that listens there, and would share the port with whoever else would."""
    other = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        other.setsockopt(socket.SOL_SOCKET, option, 1)
    other.bind(("127.0.0.1", port))
    other.listen()
    return other


async def test_a_port_that_another_program_has_open_is_named_and_opened_once_it_is_free() -> None:
    mesh, cache = Mesh(), SnapshotCache()
    cache.set_all({NODE: mesh.snapshot("one")})
    async with EnvoyProcess(NODE) as envoy, serving(envoy, cache) as control:
        with taken_by_another(mesh.front):
            await eventually(lambda: control.all_are("synced", "synced", "rejected", "synced"), "a rejection")
            assert list(troubles([control.status()])) == [
                f"`{NODE}` cannot open 127.0.0.1:{mesh.front}, which another program has open; "
                "end that one, and it is opened within a minute"
            ]
            assert await mesh.get_app() == "the app", "what else there is, is opened"
        await eventually(lambda: control.all_are(*SYNCED), "all synced")
        assert await mesh.get() == "one"


async def test_a_port_passes_from_a_listener_to_the_next() -> None:
    mesh, cache = Mesh(), SnapshotCache()
    cache.set_all({NODE: mesh.snapshot()})
    async with EnvoyProcess(NODE) as envoy, serving(envoy, cache) as control:
        await eventually(lambda: control.all_are(*SYNCED), "all synced")
        for name, said in (("app", "changed"), ("next", "of another name"), ("app", "back")):
            cache.set_all({NODE: mesh.snapshot(app=name, said=said)})
            await eventually(lambda said=said: app_says(mesh, said), said)
            assert control.observer.rejections == []


async def app_says(mesh: Mesh, text: str) -> bool:
    with suppress(httpx.TransportError):
        return await mesh.get_app() == text
    return False
