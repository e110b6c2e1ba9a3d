"""Renewal: when it is due, and what happens while policyd is away."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from policyd.spiffe import SpiffeId
from proxy.control import Unreachable
from proxy.identity import Bundle, Svid
from proxy.outside import Outside
from proxy.renew import TAINT_SPREAD, keep_fresh
from proxy.tainted import Tainted
from tests.fakes.clock import FakeClock

WEB = SpiffeId.workload("cluster.local", "default", "web")
BUNDLE = Bundle("cluster.local", (b"",))


class Enough(Exception):
    """Ends the endless loop."""


class World:
    """A clock that waiting moves, an issuer that fails `failures` times, and what came of it."""

    def __init__(self, failures: int = 0, rounds: int = 3) -> None:
        self.clock, self.failures, self.rounds = FakeClock(), failures, rounds
        self.start = self.clock.now
        self.tainted = Tainted()
        self.asked: list[float] = []
        self.delivered: list[int] = []
        self.said: list[dict[str, Any]] = []
        self.outside = Outside(self._say, self.clock, lambda: 0.0, self._sleep, lambda: 0.0)

    def _say(self, event: str, **facts: Any) -> None:
        self.said.append({"event": event, **facts})

    async def _sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 30.0
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    async def get(self) -> tuple[Svid, Bundle]:
        self.asked.append((self.clock() - self.start).total_seconds())
        if len(self.delivered) == self.rounds:
            raise Enough
        if self.failures:
            self.failures -= 1
            raise Unreachable("policyd does not answer")
        return self.svid(), BUNDLE

    def _deliver(self, svid: Svid, _: Bundle) -> None:
        self.delivered.append(svid.serial)

    def svid(self) -> Svid:
        return Svid(WEB, b"", (), self.clock(), self.clock() + timedelta(hours=1), len(self.delivered))

    async def run(self, held: Svid | None = None) -> None:
        with pytest.raises(Enough):
            await keep_fresh(WEB, held, self.get, self._deliver, self.outside, self.tainted)


async def test_the_first_comes_at_once_and_the_next_at_half_of_life() -> None:
    world = World()
    await world.run()
    assert world.asked == [0.0, 1800.0, 3600.0, 5400.0]
    assert world.delivered == [0, 1, 2]


async def test_one_that_is_held_is_renewed_when_due() -> None:
    world = World(rounds=1)
    await world.run(world.svid())
    assert world.asked[0] == 1800.0


async def test_failures_are_said_and_tried_again_with_growing_waits() -> None:
    world = World(failures=4, rounds=1)
    await world.run()
    assert world.asked[:5] == [0.0, 0.25, 0.75, 1.75, 3.75]
    assert world.said[0] == {
        "event": "identity.failed",
        "spiffe_id": str(WEB),
        "code": "unreachable",
        "reason": "policyd does not answer",
        "again_in": 0.2,
    }
    assert world.delivered == [0]


async def test_it_goes_on_asking_after_the_end_and_says_that_it_is_over() -> None:
    world = World(failures=200, rounds=1)
    await world.run(world.svid())
    assert (world.said[0]["expired"], world.said[-1]["expired"]) == (False, True)
    assert world.delivered == [0]


async def test_what_is_tainted_is_renewed_at_once_and_not_all_at_the_same_moment() -> None:
    world = World(rounds=1)
    held = replace(world.svid(), chain=(b"leaf", b"old"))
    world.tainted.hear([hashlib.sha256(b"old").digest()])
    await world.run(held)
    assert world.asked[0] == TAINT_SPREAD / 2  # in the middle, as nothing spreads it here


async def test_what_another_authority_signed_waits_for_its_time() -> None:
    world = World(rounds=1)
    world.tainted.hear([hashlib.sha256(b"another").digest(), hashlib.sha256(b"leaf").digest()])
    await world.run(replace(world.svid(), chain=(b"leaf", b"old")))
    assert world.asked[0] == 1800.0


async def test_a_word_that_comes_while_it_waits_is_heard() -> None:
    tainted = Tainted()
    waiting = asyncio.ensure_future(tainted.changed())
    await asyncio.sleep(0)
    tainted.hear([])
    await asyncio.sleep(0)
    assert not waiting.done()
    tainted.hear([b"x" * 32])
    await asyncio.wait_for(waiting, 10)
