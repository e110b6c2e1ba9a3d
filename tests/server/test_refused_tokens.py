"""Streams of refused tokens: kept for who may tell of them, slowed and ended for all others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from policyd import envoy_api
from policyd.audit.record import Entry
from policyd.errors import IdentityError, JournalError
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh
from policyd.mesh.placement import assumed
from policyd.server.refused_tokens import MAX_RATE, METHOD, SERVICE, RefusedTokens
from policyd.sources.files import read_folder
from policyd.spiffe import SpiffeId
from tests.authz.checks import PAGE, REVIEWS
from tests.authz.test_refused_tokens import ID, believing, log
from tests.fakes.clock import FakeClock

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def mesh(root: Path) -> Mesh:
    """Bookinfo, whose reviews-v1 takes tokens."""
    declaration = declare(read_folder(root / "examples/bookinfo").texts)
    return believing(build(declaration, "cluster.local", assumed(declaration)))


class Told:
    """The service on a loopback port, as `peer` calls it, and what it kept."""

    def __init__(self, mesh: Mesh) -> None:
        self.kept: list[Entry] = []
        self.broken = False
        self.peer: SpiffeId | None = REVIEWS
        self.clock = FakeClock()
        self.service = RefusedTokens(
            lambda: (mesh, "abc"), self._keep, clock=lambda: self.clock().timestamp(), wall=lambda: NOW, peer=self._who
        )
        self.server = grpc.aio.server()

    def _who(self, _: Any) -> SpiffeId:
        if self.peer is None:
            raise IdentityError("nobody")
        return self.peer

    async def _keep(self, entry: Entry) -> None:
        if self.broken:
            raise JournalError("no space left on the device")
        self.kept.append(entry)

    async def start(self) -> grpc.aio.Channel:
        self.server.add_generic_rpc_handlers((self.service.handler(),))
        port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}")


def message(count: int = 1, name: str = "reviews-v1/inbound") -> bytes:
    fields = {"identifier": {"log_name": name}, "http_logs": {"log_entry": [{}] * count}}
    made = envoy_api.build("envoy.service.accesslog.v3.StreamAccessLogsMessage", fields)
    for one in made.http_logs.log_entry:
        one.CopyFrom(log())
    body: bytes = made.SerializeToString()
    return body


async def say(channel: grpc.aio.Channel, *bodies: bytes) -> grpc.StatusCode:
    """How a stream of these messages ends."""

    async def all_of() -> AsyncIterator[bytes]:
        for body in bodies:
            yield body

    call = channel.stream_unary(f"/{SERVICE}/{METHOD}")(all_of())
    return grpc.StatusCode(await call.code())


async def test_what_a_proxy_tells_is_kept(mesh: Mesh) -> None:
    told = Told(mesh)
    async with await told.start() as channel:
        # the name comes with the first message only
        assert await say(channel, message(2), message(1, "")) == grpc.StatusCode.OK
    assert [(one.decision_id, one.revision) for one in told.kept] == [(ID, "abc")] * 3
    await told.server.stop(0)


@pytest.mark.parametrize(
    ("peer", "body", "code"),
    [
        (PAGE, message(), grpc.StatusCode.PERMISSION_DENIED),
        (REVIEWS, message(name="ratings-v1/inbound"), grpc.StatusCode.PERMISSION_DENIED),
        (REVIEWS, message(name=""), grpc.StatusCode.PERMISSION_DENIED),
        (REVIEWS, b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        (None, message(), grpc.StatusCode.UNAUTHENTICATED),
    ],
)
async def test_others_are_not_listened_to(mesh: Mesh, peer: SpiffeId | None, body: bytes, code: Any) -> None:
    told = Told(mesh)
    told.peer = peer
    async with await told.start() as channel:
        assert await say(channel, body) == code
    assert told.kept == []
    await told.server.stop(0)


async def test_a_journal_that_is_full_ends_no_stream(mesh: Mesh) -> None:
    told = Told(mesh)
    told.broken = True
    async with await told.start() as channel:
        assert await say(channel, message(), message()) == grpc.StatusCode.OK
    await told.server.stop(0)


async def test_who_tells_too_much_waits_and_an_end_ends_the_waiting(mesh: Mesh) -> None:
    told = Told(mesh)
    async with await told.start() as channel:
        saying = asyncio.ensure_future(say(channel, message(MAX_RATE.burst), message(5)))
        while len(told.kept) < MAX_RATE.burst:
            await asyncio.sleep(0.01)
        assert not saying.done()
        told.clock.advance(1.2 / MAX_RATE.per_second)
        while len(told.kept) < MAX_RATE.burst + 1:
            await asyncio.sleep(0.01)
        told.service.close()
        await saying
    await told.server.stop(0)


async def test_the_end_of_the_server_ends_a_stream_that_says_nothing(mesh: Mesh) -> None:
    told = Told(mesh)
    async with await told.start() as channel:
        call = channel.stream_unary(f"/{SERVICE}/{METHOD}")()
        await call.write(message())
        while not told.kept:
            await asyncio.sleep(0.01)
        told.service.close()
        assert grpc.StatusCode(await call.code()) == grpc.StatusCode.OK
    await told.server.stop(0)
