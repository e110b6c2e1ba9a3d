"""policyd hears which sidecars are to end, and which serve; nothing there holds up an end for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any

from proxy.control import Unreachable
from proxy.events import SidecarStatus
from proxy.leaving import Leaving
from proxy.outside import Outside

PATIENCE = 20.0


class World:
    """A policyd that hears, or is away."""

    def __init__(self) -> None:
        self.heard: list[tuple[list[str], list[str]]] = []
        self.said: list[str] = []
        self.away = False
        outside = Outside(
            lambda event, **_: self.said.append(event), lambda: datetime.now(UTC), lambda: 0.0, self._sleep
        )
        self.leaving = Leaving(self._tell, outside)

    async def _tell(self, leaving: Collection[str], back: Collection[str]) -> None:
        if self.away:
            raise Unreachable("policyd does not answer")
        self.heard.append((list(leaving), list(back)))

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)

    def look(self, **states: str) -> None:
        self.leaving.look([status(name, state) for name, state in states.items()])


def status(instance: str, state: str) -> SidecarStatus:
    return SidecarStatus(instance, "spiffe://x/y", "web.default", state, 0, 1, None, None, "", "")


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


async def test_who_has_become_ready_is_told_of_once() -> None:
    world = World()
    running = asyncio.create_task(world.leaving.run())
    world.look(a="starting", b="starting")
    world.look(a="ready", b="ready")
    await until(lambda: world.heard == [([], ["a", "b"])])
    world.look(a="ready", b="crashed")
    world.look(a="ready", b="ready")
    await until(lambda: world.heard[1:] == [([], ["b"])])
    running.cancel()


async def test_what_did_not_arrive_is_told_again_while_it_is_true() -> None:
    world = World()
    world.away = True
    running = asyncio.create_task(world.leaving.run())
    world.look(a="ready", b="ready")
    for _ in range(20):
        await asyncio.sleep(0)
    world.look(a="ready", b="crashed")
    world.away = False
    await until(lambda: world.heard == [([], ["a"])])
    running.cancel()


async def test_only_who_serves_leaves() -> None:
    world = World()
    world.look(a="starting")
    await world.leaving.leave()
    assert world.heard == []
    world.look(a="ready", b="crashed", c="ready")
    await world.leaving.leave()
    assert world.heard == [(["a", "c"], [])]
    assert world.said == ["agent.left"]


async def test_an_agent_ends_where_policyd_is_away_too() -> None:
    world = World()
    world.look(a="ready")
    world.away = True
    await world.leaving.leave()
    assert world.said == ["agent.not_left"]
