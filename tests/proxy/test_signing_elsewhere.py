"""Keys are certified where policyd says so, and where that is out of reach, where it is asked all else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from policyd.envoy_api import shared
from policyd.errors import IssuanceDenied
from policyd.spiffe import SpiffeId
from proxy.bootstrap import Endpoint
from proxy.control import Control, Unreachable
from proxy.identity import make_key, request
from proxy.join import join
from tests.fakes.control_plane import ControlPlane

NOWHERE = Endpoint("127.0.0.1", 1)
WEB = SpiffeId.workload("cluster.local", "default", "web")


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    made = ControlPlane(shared())
    await made.start()
    yield made
    await made.stop()


@asynccontextmanager
async def control(plane: ControlPlane, at: Endpoint, signing: Endpoint | None) -> AsyncIterator[Control]:
    """An agent's line to the service `at` there, with keys certified at `signing`."""
    joined = await join(plane.token(), datetime.now(UTC))
    made = Control(str(at))
    made.sign_at(signing)  # before there is an identity: kept until there is
    made.use(joined.svid, joined.bundle)
    try:
        yield made
    finally:
        await made.close()


def plane_of(plane: ControlPlane) -> Endpoint:
    return Endpoint("127.0.0.1", plane.agents_port)


async def signed(control: Control) -> int:
    chain, _ = await control.sign(WEB, request(make_key()))
    return len(chain)


async def test_keys_are_certified_where_policyd_says(plane: ControlPlane) -> None:
    async with control(plane, NOWHERE, plane_of(plane)) as asked:
        assert (await signed(asked), plane.signed) == (2, [str(WEB)])
        asked.sign_at(NOWHERE)
        with pytest.raises(Unreachable):
            await signed(asked)


async def test_keys_of_the_same_time_are_certified_in_one_call_and_each_for_itself(plane: ControlPlane) -> None:
    denied = SpiffeId.workload("cluster.local", "default", "nobody")
    plane.denied.add(str(denied))
    async with control(plane, NOWHERE, plane_of(plane)) as asked:
        orders = [asked.sign(one, request(make_key())) for one in (WEB, denied, WEB)]
        first, second, third = await asyncio.gather(*orders, return_exceptions=True)
    assert [len(one[0]) for one in (first, third) if isinstance(one, tuple)] == [2, 2]
    assert isinstance(second, IssuanceDenied)
    assert plane.signed == [str(WEB), str(WEB)]


async def test_who_signs_refuses_for_all(plane: ControlPlane) -> None:
    plane.denied.add(str(WEB))
    async with control(plane, NOWHERE, plane_of(plane)) as asked:
        with pytest.raises(IssuanceDenied):
            await signed(asked)


@pytest.mark.parametrize("signing", [None, NOWHERE], ids=["nowhere else", "out of reach"])
async def test_else_the_agents_service_signs(plane: ControlPlane, signing: Endpoint | None) -> None:
    async with control(plane, plane_of(plane), signing) as asked:
        assert await signed(asked) == 2


async def test_who_becomes_another_meanwhile_is_certified_on_the_connection_of_now(plane: ControlPlane) -> None:
    joined = await join(plane.token(), datetime.now(UTC))
    async with nobody() as silent:
        asked = Control(str(plane_of(plane)))
        asked.sign_at(silent.address)
        asked.use(joined.svid, joined.bundle)
        waiting = asyncio.create_task(signed(asked))
        await silent.called.wait()
        asked.use(joined.svid, joined.bundle)
        silent.hang_up()
        assert await waiting == 2
        await asked.close()


async def test_a_connection_that_is_closed_before_the_reply_is_no_end_of_who_waits(plane: ControlPlane) -> None:
    async with nobody() as silent, control(plane, silent.address, None) as asked:
        waiting = asyncio.create_task(asked.report({}))
        await silent.called.wait()
        await asked.close()
        with pytest.raises(Unreachable, match="closed before policyd answered"):
            await waiting


class Silent:
    """Takes connections, says nothing, and hangs up when it is told to."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self._lines: list[asyncio.StreamWriter] = []
        self._over = False

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.address = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
        return server

    async def _take(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._over:
            writer.close()
        self._lines.append(writer)
        self.called.set()

    def hang_up(self) -> None:
        self._over = True
        for line in self._lines:
            line.close()


@asynccontextmanager
async def nobody() -> AsyncIterator[Silent]:
    silent = Silent()
    server = await silent.start()
    try:
        yield silent
    finally:
        silent.hang_up()
        server.close()
