"""A root is rotated while an agent is away: how it comes back, and when it has to join anew; and a crash in between."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from policyd._pb import admin_pb2 as pb
from policyd._pb import rotation_pb2, rotation_pb2_grpc
from policyd.join_token import JoinToken, parse_token
from proxy.control import Control, Holding, Unreachable
from proxy.identity import Bundle, Svid
from proxy.join import Joined, join
from proxy.outside import utc_now
from proxy.renew import obtain
from proxy.tainted import signers
from tests.server.served import Served, process, serving


@asynccontextmanager
async def rotation(served: Served) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"unix:{served.facts['admin_socket']}") as channel:
        yield rotation_pb2_grpc.RotationStub(channel)


async def step(served: Served, name: str, what: str = "", without: str = "", *, early: bool = False) -> list[str]:
    """Make a step; the states of the generations after it."""
    request = rotation_pb2.RotationStepRequest(step=name, what=what, without=[without] if without else [], early=early)
    async with rotation(served) as stub:
        return [one.state for one in (await stub.RotationStep(request)).generations]


async def refused(served: Served, name: str) -> str:
    """Why a step is not made."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await step(served, name, early=True)
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    return str(raised.value.details())


async def token(served: Served, agent: str) -> JoinToken:
    async with served.admin() as admin:
        request = pb.CreateTokenRequest(agent=agent, workloads=["spiffe://cluster.local/ns/default/sa/web"])
        return parse_token((await admin.CreateToken(request)).token)


@asynccontextmanager
async def line(joined: Joined) -> AsyncIterator[Control]:
    """An agent's connection with what it holds."""
    control = Control(joined.server)
    control.use(joined.svid, joined.bundle)
    try:
        yield control
    finally:
        await control.close()


async def hold(joined: Joined, bundle: Bundle, svid: Svid) -> None:
    async with line(joined) as control:
        await control.hold(Holding(bundle.sequence, (), signers(svid)))


async def renewed(joined: Joined) -> Joined:
    """Come back with what is held, and have it renewed."""
    async with line(joined) as control:
        svid, bundle = await obtain(control, joined.svid.id, utc_now)
    return Joined(svid, bundle, joined.server)


async def test_an_agent_that_was_away_comes_back_with_what_it_held_until_the_old_root_is_tainted(
    folder: Path, short: Path
) -> None:
    async with serving(folder, short) as served:
        away = await join(await token(served, "laptop"), utc_now())
        never = await join(await token(served, "tablet"), utc_now())
        for one in (away, never):
            await hold(one, one.bundle, one.svid)
        assert await step(served, "prepare", "root") == ["active", "prepared"]
        assert "`laptop`, `tablet` does not trust the new root yet" in await refused(served, "activate")
        back = await renewed(never)
        await hold(back, back.bundle, back.svid)
        assert await step(served, "activate", without="laptop") == ["retired", "active"]

        # it holds the old root alone, verifies policyd by it, and is told of the new one
        assert len(away.bundle.roots) == 1
        home = await renewed(away)
        assert len(home.bundle.roots) == 2
        assert away.bundle.roots[0] in home.bundle.roots
        assert "laptop" in await refused(served, "taint")  # until it has confirmed what it was told
        await hold(home, home.bundle, home.svid)
        assert await step(served, "taint") == ["tainted", "active"]
        assert "still uses what the old key signed" in await refused(served, "revoke")
        for one in (home, back):
            latest = await renewed(one)
            await hold(latest, latest.bundle, latest.svid)
        assert await step(served, "revoke", early=True) == ["active"]
        last = await renewed(latest)
        assert len(last.bundle.roots) == 1
        assert last.bundle.roots != away.bundle.roots


async def test_who_was_away_across_it_all_is_trusted_no_more_and_joins_anew_under_the_new_root(
    folder: Path, short: Path
) -> None:
    async with serving(folder, short) as served:
        away = await join(await token(served, "laptop"), utc_now())
        await hold(away, away.bundle, away.svid)
        await step(served, "prepare", "root")
        for name in ("activate", "taint", "revoke"):
            await step(served, name, without="laptop", early=True)
        # it trusts nothing that policyd shows, and policyd nothing that it shows
        with pytest.raises(Unreachable):
            await renewed(away)
        with pytest.raises(Unreachable):
            await renewed(Joined(away.svid, (await join(await token(served, "other"), utc_now())).bundle, away.server))
        again = await join(await token(served, "laptop"), utc_now())
        assert (again.svid.id, len(again.bundle.roots)) == (away.svid.id, 1)
        assert again.bundle.roots != away.bundle.roots


async def test_a_join_token_pins_the_root_that_policyd_shows_at_every_step(folder: Path, short: Path) -> None:
    async with serving(folder, short) as served:
        steps = [("prepare", "root"), ("activate", ""), ("taint", ""), ("revoke", "")]
        counts = []
        for number, (name, what) in enumerate(steps):
            await step(served, name, what, early=True)
            counts.append(len((await join(await token(served, f"agent-{number}"), utc_now())).bundle.roots))
        assert counts == [2, 2, 2, 1]


async def test_after_kill_9_between_two_steps_the_rotation_goes_on_where_it_was(folder: Path, short: Path) -> None:
    served = Served(folder)
    with process(folder, short) as started:
        await step(served, "prepare", "root")
        await step(served, "activate")
        os.kill(started.pid, signal.SIGKILL)
        await asyncio.to_thread(started.wait, 20)
    served.facts  # noqa: B018 - it is still there, of the process that was killed
    (folder / ".policyd" / "server.json").unlink()
    with process(folder, short):
        async with rotation(served) as stub:
            states = [
                one.state for one in (await stub.RotationStatus(rotation_pb2.RotationStatusRequest())).generations
            ]
        assert states == ["retired", "active"]
        assert len((await join(await token(served, "laptop"), utc_now())).bundle.roots) == 2
        assert await step(served, "abort") == ["active", "prepared"]
