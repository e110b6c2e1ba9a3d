"""The service on a socket: who is let in, what they get, and how streams end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from policyd import envoy_api
from policyd.envoy_api import CLUSTER, LISTENER, SECRET
from policyd.errors import IdentityError
from policyd.spiffe import SpiffeId
from policyd.xds import wire
from policyd.xds.cache import SnapshotCache
from policyd.xds.service import METHOD, SERVICE, DiscoveryService, peer_of
from policyd.xds.snapshot import Snapshot, make_snapshot, resource
from policyd.xds.status import ProxyStatus, TypeStatus
from tests.fakes.toy_ca import ToyCa
from tests.fakes.xds_observer import FakeObserver
from tests.xds.envoy_process import eventually

REVIEWS = SpiffeId.workload("cluster.local", "default", "reviews")
RATINGS = SpiffeId.workload("cluster.local", "default", "ratings")
INSTANCES = {"reviews-1": REVIEWS, "ratings-1": RATINGS}
Context = Any


def authorize(peer: SpiffeId, node_id: str) -> None:
    if INSTANCES.get(node_id) != peer:
        raise IdentityError(f"`{peer}` has no instance `{node_id}`")


def clusters(**timeouts: str) -> Snapshot:
    fields = {name: {"name": name, "connect_timeout": timeout} for name, timeout in timeouts.items()}
    return make_snapshot(resource(CLUSTER, name, one) for name, one in fields.items())


def secrets(**keys: str) -> Snapshot:
    """Secrets, each with something of its own."""
    bodies = {name: {"name": name, "generic_secret": {"secret": {"inline_string": key}}} for name, key in keys.items()}
    return make_snapshot(resource(SECRET, name, one) for name, one in bodies.items())


class Proxy:
    """One stream, spoken by hand."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call: Any = channel.stream_stream(f"/{SERVICE}/{METHOD}")()

    async def say(self, **fields: Any) -> None:
        await self.call.write(envoy_api.pack(wire.REQUEST, fields))

    async def hello(self, node_id: str = "reviews-1", type_url: str = CLUSTER) -> None:
        await self.say(node={"id": node_id}, type_url=type_url)

    async def hear(self) -> tuple[str, dict[str, str], list[str]]:
        """The nonce, connect timeout by cluster, and names removed."""
        message = await self._message()
        parts = [one["resource"] for one in message.get("resources", [])]
        return (
            message["nonce"],
            {one["name"]: one["connect_timeout"] for one in parts},
            message.get("removed_resources", []),
        )

    async def nonce(self) -> str:
        """That of the next response, whatever it holds."""
        return str((await self._message())["nonce"])

    async def _message(self) -> dict[str, Any]:
        data = await asyncio.wait_for(self.call.read(), 5)
        assert data is not grpc.aio.EOF, await self.call.details()
        return envoy_api.to_dict(envoy_api.message(wire.RESPONSE).FromString(data))

    async def end(self) -> tuple[grpc.StatusCode, str]:
        """How the server ended the stream."""
        code = await asyncio.wait_for(self.call.code(), 5)
        return code, await self.call.details()


class Setup:
    """A service on a Unix socket; each connection is taken for `who`."""

    def __init__(self, path: str, who: Callable[[Context], SpiffeId]) -> None:
        self.target = f"unix:{path}"
        self.cache = SnapshotCache()
        self.observer = FakeObserver()
        self.who = who
        self.service = DiscoveryService(
            self.cache,
            authorize,
            self.observer,
            clock=time.monotonic,
            wall=lambda: time.monotonic() + 1_000_000,
            peer=self._peer,
            quiet=0.01,
        )

    def _peer(self, context: Context) -> SpiffeId:
        return self.who(context)


@pytest.fixture
async def setup(tmp_path: Any) -> AsyncIterator[Setup]:
    made = Setup(str(tmp_path / "xds.sock"), lambda context: REVIEWS)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((made.service.handler(),))
    server.add_insecure_port(made.target)
    await server.start()
    yield made
    made.service.close()
    await server.stop(0)


@asynccontextmanager
async def proxy(setup: Setup) -> AsyncIterator[Proxy]:
    async with grpc.aio.insecure_channel(setup.target) as channel:
        yield Proxy(channel)


async def test_it_sends_the_nodes_snapshot_and_then_what_changes(setup: Setup) -> None:
    setup.cache.set_all({"reviews-1": clusters(a="1s", b="1s"), "ratings-1": clusters(z="1s")})
    async with proxy(setup) as one:
        await one.hello()
        nonce, sent, _ = await one.hear()
        assert sent == {"a": "1s", "b": "1s"}
        await one.say(type_url=CLUSTER, response_nonce=nonce)
        setup.cache.set_all({"reviews-1": clusters(a="2s", b="1s")})
        assert (await one.hear())[1:] == ({"a": "2s"}, [])
        assert setup.observer.pushes == [("reviews-1", "clusters")] * 2


async def test_changes_in_a_row_become_one_push(setup: Setup) -> None:
    setup.cache.set_all({"reviews-1": clusters(a="1s")})
    async with proxy(setup) as one:
        await one.hello()
        await one.say(type_url=CLUSTER, response_nonce=(await one.hear())[0])
        await eventually(lambda: all_synced(setup), "the first is accepted")
        for seconds in range(2, 30):
            setup.cache.set_all({"reviews-1": clusters(a=f"{seconds}s")})
        assert (await one.hear())[1] == {"a": "29s"}


async def all_synced(setup: Setup, place: int = 0) -> bool:
    return [one.types[place].state for one in setup.service.statuses()] == ["synced"]


async def test_how_long_a_change_takes_is_told_once_it_is_confirmed_and_nothing_else_waits(setup: Setup) -> None:
    setup.cache.set_all({"reviews-1": clusters(a="1s")})
    async with proxy(setup) as one:
        await one.hello()
        await one.say(type_url=CLUSTER, response_nonce=(await one.hear())[0])
        await eventually(lambda: all_synced(setup), "the first is accepted")
        assert setup.observer.convergences == []  # nothing had changed
        began = time.monotonic()
        setup.cache.set_all({"reviews-1": clusters(a="2s")})
        nonce = (await one.hear())[0]
        assert setup.observer.convergences == []
        await one.say(type_url=CLUSTER, response_nonce=nonce)
        await eventually(lambda: converged(setup, 1), "it is confirmed")
        assert 0 < setup.observer.convergences[0] <= time.monotonic() - began
        # what is refused has not arrived
        setup.cache.set_all({"reviews-1": clusters(a="3s")})
        await one.say(type_url=CLUSTER, response_nonce=(await one.hear())[0], error_detail={"message": "no"})
        await eventually(lambda: rejected(setup), "rejected")
        setup.cache.set_all({"reviews-1": clusters(a="4s")})
        await one.say(type_url=CLUSTER, response_nonce=(await one.hear())[0])
        await eventually(lambda: converged(setup, 2), "the next is confirmed")


async def test_nobody_waits_for_what_a_proxy_has_refused_and_no_later_change_takes_longer_for_it(setup: Setup) -> None:
    setup.cache.set_all({"reviews-1": secrets(a="1")})
    async with proxy(setup) as one:
        await one.hello(type_url=SECRET)
        await one.say(type_url=SECRET, response_nonce=await one.nonce())
        await eventually(lambda: all_synced(setup, -1), "the first is accepted")
        setup.cache.set_all({"reviews-1": secrets(a="2")})
        nonce = await one.nonce()
        assert setup.service.is_behind()
        await one.say(type_url=SECRET, response_nonce=nonce, error_detail={"message": "no"})
        await eventually(lambda: up_to_date(setup), "nothing is under way")
        assert (len(setup.observer.rejections), setup.observer.convergences) == (1, [])
        began = time.monotonic()
        setup.cache.set_all({"reviews-1": secrets(a="3")})
        await one.say(type_url=SECRET, response_nonce=await one.nonce())
        await eventually(lambda: converged(setup, 1), "the next is confirmed")
        assert setup.observer.convergences[0] <= time.monotonic() - began


async def up_to_date(setup: Setup) -> bool:
    return not setup.service.is_behind()


async def converged(setup: Setup, count: int) -> bool:
    return len(setup.observer.convergences) == count


async def test_one_without_a_snapshot_waits_for_it(setup: Setup) -> None:
    async with proxy(setup) as one:
        await one.hello()
        await eventually(lambda: connected(setup, 1), "connected")
        setup.cache.set_all({"reviews-1": clusters(a="1s")})
        assert (await one.hear())[1] == {"a": "1s"}


async def connected(setup: Setup, count: int) -> bool:
    return len(setup.service.statuses()) == count


async def test_what_is_known_of_a_proxy_is_shown(setup: Setup) -> None:
    setup.cache.set_all({"reviews-1": clusters(a="1s")})
    assert setup.service.statuses() == ()
    async with proxy(setup) as one:
        await one.hello()
        nonce, _, _ = await one.hear()
        await one.say(type_url=CLUSTER, response_nonce=nonce, error_detail={"message": "bad `a`"})
        await eventually(lambda: rejected(setup), "rejected")
        assert setup.observer.rejections == [("reviews-1", "clusters", "bad `a`")]
        (status,) = setup.service.statuses()
        shown = status.types[0]
        assert status == ProxyStatus("reviews-1", str(REVIEWS), True, "", status.connected_at, status.types)
        assert shown == TypeStatus("clusters", "rejected", "bad `a`", shown.changed_at, 0)
        assert 1_000_000 < status.connected_at <= shown.changed_at
    await eventually(lambda: connected(setup, 0), "gone")
    assert (setup.observer.counts[0], setup.observer.counts[-1]) == (1, 0)


async def rejected(setup: Setup) -> bool:
    return bool(setup.observer.rejections)


@pytest.mark.parametrize("node_id", ["ratings-1", "nobody", ""])
async def test_a_proxy_cannot_be_another(setup: Setup, node_id: str) -> None:
    setup.cache.set_all({node_id: clusters(secret="1s")})
    async with proxy(setup) as one:
        await one.hello(node_id)
        assert await one.end() == (grpc.StatusCode.PERMISSION_DENIED, f"`{REVIEWS}` has no instance `{node_id}`")


async def test_one_that_may_no_longer_be_is_let_go(setup: Setup) -> None:
    setup.cache.set_all({"reviews-1": clusters(a="1s")})
    async with proxy(setup) as one:
        await one.hello()
        await one.hear()
        INSTANCES["reviews-1"] = RATINGS
        try:
            setup.cache.set_all({})
            assert (await one.end())[0] == grpc.StatusCode.PERMISSION_DENIED
        finally:
            INSTANCES["reviews-1"] = REVIEWS


async def test_the_newest_stream_of_a_proxy_replaces_the_one_before(setup: Setup) -> None:
    setup.cache.set_all({"reviews-1": clusters(a="1s")})
    async with proxy(setup) as old, proxy(setup) as new:
        await old.hello()
        await old.hear()
        await new.hello()
        await new.hear()
        assert await old.end() == (grpc.StatusCode.UNAVAILABLE, "the proxy opened another stream")
        await eventually(lambda: connected(setup, 1), "one is left")
        setup.cache.set_all({"reviews-1": clusters(a="1s", b="1s")})
        await new.say(type_url=LISTENER)
        assert (await new.hear())[1] in ({}, {"b": "1s"})


async def test_one_that_takes_nothing_keeps_nobody_waiting(setup: Setup) -> None:
    many = {f"c{number}": "1s" for number in range(20_000)}  # more than a connection holds on its way
    setup.cache.set_all({"reviews-1": clusters(**many), "reviews-2": clusters(a="1s")})
    INSTANCES["reviews-2"] = REVIEWS
    try:
        async with proxy(setup) as stuck, proxy(setup) as other:
            await stuck.hello()
            await other.hello("reviews-2")
            await other.say(type_url=CLUSTER, response_nonce=(await other.hear())[0])
            await eventually(lambda: connected(setup, 2), "both are there")
            setup.cache.set_all({"reviews-1": clusters(**many, b="1s"), "reviews-2": clusters(a="2s")})
            assert (await other.hear())[1:] == ({"a": "2s"}, [])
    finally:
        del INSTANCES["reviews-2"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"type_url": CLUSTER}, "the first request of a stream names its node"),
        ({"node": {"id": "reviews-1"}, "type_url": "x"}, "`x` is no type that policyd serves"),
        (
            {"node": {"id": "reviews-1"}, "type_url": CLUSTER, "resource_names_subscribe": ["n" * 1025]},
            "a name longer than 1024 characters",
        ),
    ],
)
async def test_a_request_that_makes_no_sense_ends_the_stream(
    setup: Setup, fields: dict[str, Any], problem: str
) -> None:
    async with proxy(setup) as one:
        await one.say(**fields)
        assert await one.end() == (grpc.StatusCode.INVALID_ARGUMENT, problem)
    await eventually(lambda: connected(setup, 0), "gone")


async def test_noise_ends_the_stream_that_makes_it_and_no_other(setup: Setup) -> None:
    setup.cache.set_all({"reviews-1": clusters(a="1s")})
    async with proxy(setup) as good, proxy(setup) as bad:
        await good.hello()
        await good.hear()
        await bad.call.write(b"\xff\xff")
        assert await bad.end() == (grpc.StatusCode.INVALID_ARGUMENT, "what was sent is no DeltaDiscoveryRequest")
        assert await connected(setup, 1)


async def test_who_cannot_be_known_is_not_let_in(setup: Setup) -> None:
    def nobody(context: Context) -> SpiffeId:
        raise IdentityError("the certificate has no SPIFFE ID, or several")

    setup.who = nobody
    async with proxy(setup) as one:
        with suppress(grpc.aio.AioRpcError):  # the end may come before the first word
            await one.hello()
        assert (await one.end())[0] == grpc.StatusCode.UNAUTHENTICATED


async def test_closing_ends_the_streams_and_lets_nobody_in(setup: Setup) -> None:
    setup.cache.set_all({"reviews-1": clusters(a="1s")})
    async with proxy(setup) as one, proxy(setup) as late:
        await one.hello()
        await one.hear()
        setup.service.close()
        assert await one.end() == (grpc.StatusCode.UNAVAILABLE, "policyd is shutting down")
        await late.hello()
        assert (await late.end())[0] == grpc.StatusCode.UNAVAILABLE


def pem_of(ca: ToyCa, *uris: str) -> tuple[bytes, bytes]:
    """A key and a chain with these URIs, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    chain = ca.sign(key.public_key(), uris, dns=["policyd"])
    pem = b"".join(x509.load_der_x509_certificate(one).public_bytes(serialization.Encoding.PEM) for one in chain)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()), pem


@pytest.mark.parametrize(
    ("uris", "code"),
    [
        ((str(REVIEWS),), None),
        ((str(RATINGS),), grpc.StatusCode.PERMISSION_DENIED),
        (("https://example.org/",), grpc.StatusCode.UNAUTHENTICATED),
        ((str(REVIEWS), str(RATINGS)), grpc.StatusCode.UNAUTHENTICATED),
        ((), grpc.StatusCode.UNAUTHENTICATED),
    ],
)
async def test_over_tls_the_certificate_says_who_it_is(
    setup: Setup, uris: tuple[str, ...], code: grpc.StatusCode | None
) -> None:
    ca = ToyCa()
    setup.who = peer_of
    setup.cache.set_all({"reviews-1": clusters(a="1s")})
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((setup.service.handler(),))
    credentials = grpc.ssl_server_credentials(
        [pem_of(ca, str(SpiffeId.server("cluster.local")))], ca.root.pem, require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    key, chain = pem_of(ca, *uris)
    client = grpc.ssl_channel_credentials(ca.root.pem, key, chain)
    options = [("grpc.ssl_target_name_override", "policyd")]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", client, options) as channel:
        one = Proxy(channel)
        if code is None:
            await one.hello()
            assert (await one.hear())[1] == {"a": "1s"}
        else:
            with suppress(grpc.aio.AioRpcError):
                await one.hello()
            assert (await one.end())[0] == code
    await server.stop(0)


def test_a_connection_of_tls_1_2_or_none_is_nobodys() -> None:
    for facts in ({"ssl_tls_version": [b"TLSv1.2"], "peer_spiffe_id": [str(REVIEWS).encode()]}, {}):
        with pytest.raises(IdentityError) as raised:
            peer_of(FakeContext(facts))
        assert raised.value.message == "this connection does not speak TLS 1.3"


class FakeContext:
    """A connection of which this is known."""

    def __init__(self, facts: dict[str, list[bytes]]) -> None:
        self.facts = facts

    def auth_context(self) -> dict[str, list[bytes]]:
        return self.facts
