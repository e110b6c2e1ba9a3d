"""Applications are asked as long as the mesh wants it, and policyd hears all that is believed of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from proxy.control import Unreachable
from proxy.health import Probe, TcpSocket
from proxy.outside import Outside
from proxy.probes import Probes

WEB = Probe("web-1", TcpSocket("127.0.0.1", 1), failure_threshold=1, initial_delay=7, period=11)
API = replace(WEB, instance="api-1")
PATIENCE = 20.0


class World:
    """Applications that answer as `whys` says, and a policyd that hears, or is away."""

    def __init__(self) -> None:
        self.whys: dict[str, str] = {}
        self.asked: list[str] = []
        self.slept: list[float] = []
        self.heard: list[Mapping[str, tuple[bool, str]]] = []
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.away = False
        outside = Outside(
            lambda event, **facts: self.said.append((event, facts)), lambda: datetime.now(UTC), lambda: 0.0, self._sleep
        )
        self.probes = Probes(self._ask, self._tell, outside)

    async def _ask(self, probe: Probe) -> str:
        self.asked.append(probe.instance)
        return self.whys.get(probe.instance, "")

    async def _tell(self, told: Mapping[str, tuple[bool, str]]) -> None:
        if self.away:
            raise Unreachable("policyd does not answer")
        self.heard.append(dict(told))

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0.001)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.005)


async def test_an_application_is_asked_after_its_delay_and_then_again_and_again() -> None:
    world = World()
    world.probes.apply([WEB])
    await world.until(lambda: len(world.asked) >= 3)
    await world.probes.end()
    assert world.slept[0] == 7
    assert set(world.slept[1:]) == {11}


async def test_policyd_hears_all_that_is_believed_after_a_change() -> None:
    world = World()
    world.whys["api-1"] = "the answer is 500"
    reporting = asyncio.create_task(world.probes.report())
    world.probes.apply([WEB, API])
    both = {"web-1": (True, ""), "api-1": (False, "the answer is 500")}
    await world.until(lambda: both in world.heard)
    world.whys["web-1"] = "gone"
    await world.until(lambda: world.heard[-1] == {**both, "web-1": (False, "gone")})
    world.whys = {}
    await world.until(lambda: world.heard[-1] == {"web-1": (True, ""), "api-1": (True, "")})
    reporting.cancel()
    await world.probes.end()
    assert ("instance.unhealthy", {"instance": "web-1", "reason": "gone"}) in world.said
    assert world.said[-1][0] == "instance.healthy"


async def test_what_could_not_be_told_is_told_again() -> None:
    world = World()
    world.away = True
    reporting = asyncio.create_task(world.probes.report())
    world.probes.apply([WEB])
    await world.until(lambda: any(event == "agent.report_failed" for event, _ in world.said))
    world.away = False
    await world.until(lambda: world.heard)
    reporting.cancel()
    await world.probes.end()
    assert world.heard[0] == {"web-1": (True, "")}


async def test_who_is_asked_otherwise_keeps_what_is_believed_and_who_is_asked_no_more_is_forgotten() -> None:
    world = World()
    world.probes.apply([WEB, API])
    await world.until(lambda: len(world.probes.told()) == 2)
    world.probes.apply([replace(WEB, period=2)])
    assert world.probes.told() == {"web-1": (True, "")}
    world.asked.clear()
    await world.until(lambda: len(world.asked) >= 3)
    await world.probes.end()
    assert set(world.asked) == {"web-1"}
