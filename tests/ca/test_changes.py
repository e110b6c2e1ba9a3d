"""Whoever waits for a change hears of it, even if it came just before."""

from __future__ import annotations

import asyncio

from policyd.ca.changes import Changes


async def test_all_who_wait_are_woken() -> None:
    changes = Changes()
    waiting = [asyncio.create_task(changes.after(0)) for _ in range(3)]
    await asyncio.sleep(0)
    changes.announce()
    assert await asyncio.gather(*waiting) == [1, 1, 1]


async def test_a_change_before_the_wait_is_not_missed() -> None:
    changes = Changes()
    seen = changes.number
    changes.announce()
    changes.announce()
    assert await asyncio.wait_for(changes.after(seen), 1) == 2


async def test_without_a_change_there_is_nothing_to_hear() -> None:
    changes = Changes()
    changes.announce()
    waiting = asyncio.create_task(changes.after(changes.number))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
