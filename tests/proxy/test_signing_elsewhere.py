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
