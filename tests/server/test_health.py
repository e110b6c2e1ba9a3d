"""`grpc.health.v1` over mutual TLS, asked by a real client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Literal

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from policyd.ca.server_identity import ServerIdentity
from policyd.server import health
from policyd.server.health import Health
from policyd.spiffe import SpiffeId
from tests.ca.samples import REVIEWS, Office, a_key, an_authority
from tests.fakes.clock import FakeClock

Kind = Literal["streams", "decisions"]
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
NAMED = (("grpc.ssl_target_name_override", "policyd"), ("grpc.use_local_subchannel_pool", 1))
BOTH = pytest.mark.parametrize("kind", ["streams", "decisions"])


class Ports:
    """A port of streams and one of decisions, whose server is ready unless `trouble` says why not."""

    def __init__(self) -> None:
        self.trouble = ""
        self.clock = FakeClock(datetime.now(UTC))  # TLS looks at the machine's clock
        self.office = Office(an_authority(self.clock()), clock=self.clock)
        self.health = Health(["shop.Books"], lambda: self.trouble, self.clock)
        self._shown = ServerIdentity(self.office.issuer, self.clock).current()
        self._threads = ThreadPoolExecutor(1)
        self._streams = grpc.aio.server()
        self._decisions = grpc.server(self._threads)
        self._at: dict[Kind, int] = {}

    async def start(self) -> None:
        self._streams.add_generic_rpc_handlers((self.health.handler(),))
        self._decisions.add_generic_rpc_handlers((self.health.blocking_handler(),))
        pair = [(self._shown.key, self._shown.chain)]
        tls = grpc.ssl_server_credentials(pair, self._shown.roots, require_client_auth=True)
        self._at = {
            "streams": self._streams.add_secure_port("127.0.0.1:0", tls),
            "decisions": self._decisions.add_secure_port("127.0.0.1:0", tls),
        }
        await self._streams.start()
        self._decisions.start()

    async def stop(self) -> None:
        await self._streams.stop(None)
        self._decisions.stop(None).wait()
        self._threads.shutdown()

    def channel(self, kind: Kind, who: SpiffeId | None = REVIEWS) -> grpc.aio.Channel:
        """A connection of somebody with a certificate for `who`, or without any."""
        credentials = grpc.ssl_channel_credentials(self._shown.roots, *(self._certificate(who) if who else ()))
        return grpc.aio.secure_channel(f"127.0.0.1:{self._at[kind]}", credentials, NAMED)

    def _certificate(self, who: SpiffeId) -> tuple[bytes, bytes]:
        key = a_key()
        svid = self.office.authority.sign(who, key.public_key(), now=self.clock(), random=lambda size: b"\x01" * size)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return pem, b"".join(one.public_bytes(Encoding.PEM) for one in (svid.leaf, svid.intermediate))


@pytest.fixture
async def ports() -> AsyncIterator[Ports]:
    made = Ports()
    await made.start()
    yield made
    await made.stop()


async def check(ports: Ports, kind: Kind, service: str = "", who: SpiffeId | None = REVIEWS) -> Any:
    """The status, or the code with which the call ended."""
    async with ports.channel(kind, who) as channel:
        try:
            return (await HealthStub(channel).Check(HealthCheckRequest(service=service), timeout=5)).status
        except grpc.aio.AioRpcError as error:
            return error.code()


@BOTH
@pytest.mark.parametrize("service", ["", "shop.Books", "grpc.health.v1.Health"])
async def test_the_port_and_each_of_its_services_serve_while_the_server_is_ready(
    ports: Ports, kind: Kind, service: str
) -> None:
    assert await check(ports, kind, service) == SERVING
    ports.trouble = "the disk is full"
    assert await check(ports, kind, service) == NOT_SERVING
    ports.trouble = ""
    assert await check(ports, kind, service) == SERVING


@BOTH
async def test_a_service_of_another_port_is_not_found(ports: Ports, kind: Kind) -> None:
    assert await check(ports, kind, "shop.Cups") is grpc.StatusCode.NOT_FOUND


@BOTH
async def test_who_is_about_to_end_does_not_serve(ports: Ports, kind: Kind) -> None:
    ports.health.end()
    assert await check(ports, kind) == NOT_SERVING


@BOTH
async def test_only_who_has_an_identity_is_told(ports: Ports, kind: Kind) -> None:
    assert await check(ports, kind, who=None) is grpc.StatusCode.UNAVAILABLE


@BOTH
async def test_a_connection_that_outlives_its_certificate_is_told_nothing(ports: Ports, kind: Kind) -> None:
    async with ports.channel(kind) as channel:
        stub = HealthStub(channel)
        assert (await stub.Check(HealthCheckRequest(), timeout=5)).status == SERVING
        ports.clock.advance(3700)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Check(HealthCheckRequest(), timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def heard(watch: Any) -> Any:
    """What a watcher hears next, None where the stream has ended."""
    reply = await asyncio.wait_for(watch.read(), 5)
    return None if reply is grpc.aio.EOF else reply.status


async def test_a_watcher_hears_each_change_and_the_end(ports: Ports) -> None:
    async with ports.channel("streams") as channel:
        watch = HealthStub(channel).Watch(HealthCheckRequest(service="shop.Books"))
        assert await heard(watch) == SERVING
        ports.trouble = "a change is refused"
        assert await heard(watch) == NOT_SERVING
        ports.trouble = ""
        assert await heard(watch) == SERVING
        ports.health.end()
        assert [await heard(watch), await heard(watch)] == [NOT_SERVING, None]


async def test_a_watcher_of_nothing_hears_that_there_is_nothing(ports: Ports) -> None:
    async with ports.channel("streams") as channel:
        watch = HealthStub(channel).Watch(HealthCheckRequest(service="shop.Cups"))
        assert [await heard(watch), await heard(watch)] == [HealthCheckResponse.SERVICE_UNKNOWN, None]


async def test_watchers_are_bounded_and_one_that_leaves_makes_room(ports: Ports) -> None:
    async with ports.channel("streams") as channel:
        watches = [HealthStub(channel).Watch(HealthCheckRequest()) for _ in range(health.MAX_WATCHES)]
        assert [await heard(watch) for watch in watches] == [SERVING] * health.MAX_WATCHES
        assert not await is_let_in(channel)
        watches[0].cancel()
        async with asyncio.timeout(5):
            while not await is_let_in(channel):
                pass


async def is_let_in(channel: grpc.aio.Channel) -> bool:
    watch = HealthStub(channel).Watch(HealthCheckRequest())
    try:
        return await heard(watch) == SERVING
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False


async def test_no_thread_of_decisions_is_given_to_a_watcher(ports: Ports) -> None:
    async with ports.channel("decisions") as channel:
        watch = HealthStub(channel).Watch(HealthCheckRequest())
        assert await watch.code() is grpc.StatusCode.UNIMPLEMENTED
