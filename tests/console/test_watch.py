"""Looks: the last ones are kept all, older ones now and then, and memory has a bound."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from policyd.console.source import Seen
from policyd.console.watch import APART_SECONDS, MAX_EDGES, NEWEST, OLDEST_SECONDS, Watch, kept
from policyd.errors import NotRunning
from policyd.telemetry.graph import Counts, Edge


def seen(at: float, edges: int = 1) -> Seen:
    return Seen({Edge(f"a{number}", "b", "none"): Counts() for number in range(edges)}, {}, (), at)


@pytest.mark.parametrize("edges", [5, 400])
def test_a_day_of_looks_is_kept_ever_thinner(edges: int) -> None:
    looks: list[Seen] = []
    first = seen(0.0, edges)
    for at in range(0, 100_000, 10):
        looks = kept([*looks, replace(first, at=float(at))])

    times = [one.at for one in looks]
    assert times[-NEWEST:] == [float(at) for at in range(100_000 - 10 * NEWEST, 100_000, 10)]
    assert times[0] >= 99_990 - OLDEST_SECONDS
    assert times[0] < 99_990 * 0.3, "most of the day is there, however many edges there are"
    older = times[:-NEWEST]
    assert all(b - a >= APART_SECONDS for a, b in pairwise(older))
    assert edges * len(looks) <= MAX_EDGES


def test_the_bound_is_of_edges_and_two_looks_are_always_kept() -> None:
    many = MAX_EDGES // 4
    looks = kept([seen(float(at), many) for at in range(10)])
    assert 2 <= len(looks) <= 4
    assert len(kept([seen(float(at), MAX_EDGES) for at in range(5)])) == 2


class Sights:
    """What can be seen, or why nothing can."""

    def __init__(self) -> None:
        self.at = 0.0
        self.trouble = ""

    def __call__(self) -> Seen:
        if self.trouble:
            raise NotRunning(self.trouble)
        self.at += 5.0
        return seen(self.at)


async def test_a_range_that_ended_is_told_from_the_looks_before_its_end() -> None:
    sights = Sights()
    watch = Watch(sights, clock=lambda: sights.at)
    for _ in range(10):
        await watch.look()  # at 5, 10 and so on to 50

    def told(seconds: float, ended: float) -> tuple[float, float]:
        stretch = watch.stretch(seconds, ended)
        assert stretch is not None
        return stretch.before.at, stretch.now.at

    assert told(10, 0) == (40, 50)
    assert told(10, 20) == (20, 30)
    assert told(10, 22) == (15, 25)
    assert told(1_000, 20) == (5, 30)
    assert told(10, 1_000) == (5, 10), "before all looks: the first two"


async def test_a_range_is_told_from_the_look_before_it_or_the_oldest() -> None:
    sights = Sights()
    watch = Watch(sights)
    assert watch.stretch(10) is None
    for _ in range(6):
        await watch.look()

    found = watch.stretch(10)
    assert found is not None
    assert (found.before.at, found.now.at, found.seconds) == (20.0, 30.0, 10.0)
    longest = watch.stretch(3_600)
    assert longest is not None
    assert longest.seconds == 25.0


async def test_a_look_that_fails_keeps_those_before_and_says_why() -> None:
    sights = Sights()
    watch = Watch(sights)
    await watch.look()
    await watch.look()
    number = watch.number
    sights.trouble = "nothing is running"
    await watch.look()

    assert watch.trouble == "nothing is running"
    assert watch.number == number
    sights.trouble = ""
    await watch.look()
    assert (watch.trouble, watch.number == number) == ("", False)


async def test_who_waits_is_told_of_the_next_look() -> None:
    watch = Watch(Sights())
    waiting = [asyncio.create_task(watch.next()) for _ in range(3)]
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(20):
        await asyncio.gather(*waiting)
    assert watch.watchers == 0
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
