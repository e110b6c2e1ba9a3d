"""Who answers is put in force as it changes, and known to the next start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from policyd.mesh.health import LASTS, SILENT, UNHEARD
from policyd.mesh.model import Mesh
from policyd.server.liveness import Liveness
from policyd.spiffe import SpiffeId
from tests.mesh.test_health import MESH

PATIENCE = 20.0


class World:
    """A mesh in force, a clock, and what was counted."""

    def __init__(self, file: Path) -> None:
        self.now = 0.0
        self.mesh = MESH
        self.changes = 0
        self.count = -1
        self.revoked: set[SpiffeId] = set()
        self.liveness = Liveness(file, clock=lambda: self.now, metrics=self, revoked=lambda: frozenset(self.revoked))

    def instances_unhealthy(self, count: int) -> None:
        self.count = count

    async def changed(self) -> None:
        self.changes += 1
        self.mesh = self.liveness.applied(self.mesh)

    @property
    def out(self) -> set[str]:
        return {name for name, one in self.mesh.instances.items() if not one.healthy}

    @property
    def troubles(self) -> Mapping[str, str]:
        return self.liveness.troubles(self.mesh)

    def start(self) -> asyncio.Task[None]:
        def mesh() -> Mesh:
            return self.mesh

        return asyncio.create_task(self.liveness.run(mesh, self.changed))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


BOTH = {"api-v1": (True, ""), "api-v2": (True, "")}


async def test_nobody_is_led_to_an_instance_whose_identity_is_revoked(tmp_path: Path) -> None:
    world = World(tmp_path / "health.json")
    running = world.start()
    world.liveness.hear(BOTH)
    await until(lambda: not world.out and world.count == 0)
    identity = world.mesh.instances["api-v1"].workload
    world.revoked.add(identity)
    world.liveness.wake()
    bearers = {name for name, one in world.mesh.instances.items() if one.workload == identity}
    await until(lambda: world.out == bearers)
    assert set(world.troubles.values()) == {"its identity is revoked"}
    world.revoked.clear()
    world.liveness.wake()
    await until(lambda: not world.out)
    running.cancel()


async def test_what_is_said_is_put_in_force_once(tmp_path: Path) -> None:
    world = World(tmp_path / "health.json")
    running = world.start()
    await until(lambda: world.out == {"api-v1", "api-v2"})
    assert world.troubles == {"api-v1": UNHEARD, "api-v2": UNHEARD}
    world.liveness.hear(BOTH)
    await until(lambda: not world.out and world.count == 0)
    world.liveness.hear({"api-v1": (True, ""), "api-v2": (False, "the answer is 500")})
    await until(lambda: world.out == {"api-v2"} and world.count == 1)
    before = world.changes
    world.liveness.hear({"api-v1": (True, "")})
    world.liveness.wake()
    await until(lambda: not world.liveness._woken.is_set())
    assert world.changes == before
    running.cancel()


async def test_who_says_that_it_ends_is_answered_when_nobody_is_led_there(tmp_path: Path) -> None:
    world = World(tmp_path / "health.json")
    assert not await world.liveness.turn(["web-v1"], [])  # nothing is in force yet
    running = world.start()
    world.liveness.hear(BOTH)
    await until(lambda: world.count == 0)
    assert await world.liveness.turn(["web-v1", "api-v1"], [])
    assert world.out == {"web-v1", "api-v1"}
    assert not await world.liveness.turn(["web-v1"], [])
    await world.liveness.turn([], ["web-v1", "api-v1"])
    assert not world.out
    running.cancel()


async def test_silence_takes_an_instance_out(tmp_path: Path) -> None:
    world = World(tmp_path / "health.json")
    running = world.start()
    world.liveness.hear(BOTH)
    await until(lambda: world.changes == 0 and world.count == 0)
    world.now = LASTS
    world.liveness.wake()
    await until(lambda: world.out == {"api-v1", "api-v2"})
    assert world.troubles == {"api-v1": SILENT, "api-v2": SILENT}
    running.cancel()


async def test_a_server_that_starts_again_knows_who_answered(tmp_path: Path) -> None:
    file = tmp_path / "health.json"
    world = World(file)
    running = world.start()
    world.liveness.hear({"api-v1": (True, ""), "api-v2": (False, "no")})
    await until(file.exists)
    running.cancel()

    again = World(file)
    assert again.troubles == {"api-v2": UNHEARD}
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"healthy": 3}', '{"healthy": [1, {}]}', "\xff"])
def test_what_is_broken_is_as_if_it_were_not_there(tmp_path: Path, text: str) -> None:
    file = tmp_path / "health.json"
    file.write_text(text, encoding="latin-1")
    assert set(World(file).troubles) == {"api-v1", "api-v2"}
