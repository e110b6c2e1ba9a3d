"""Questions of the same time in one call: each its own answer, whatever comes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from proxy.together import Together


class Far:
    """Answers with the double, when it is let; refuses what is negative, and all where one is above a hundred."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def send(self, asked: list[int]) -> Sequence[int | ValueError]:
        self.calls.append(asked)
        await self.open.wait()
        if max(asked) > 100:
            raise OverflowError(asked)
        return [2 * one if one >= 0 else ValueError(one) for one in asked]


async def test_what_is_asked_at_the_same_time_goes_in_one_call_and_the_rest_in_the_next() -> None:
    far = Far()
    together = Together(far.send, 3)
    assert await asyncio.gather(*map(together.ask, range(5))) == [0, 2, 4, 6, 8]
    assert far.calls == [[0, 1, 2], [3, 4]]


async def test_those_who_come_while_a_call_is_under_way_are_the_next_one() -> None:
    far = Far()
    together = Together(far.send, 10)
    far.open.clear()
    first = asyncio.create_task(together.ask(1))
    while not far.calls:
        await asyncio.sleep(0)
    others = [asyncio.create_task(together.ask(number)) for number in (2, 3)]
    far.open.set()
    assert await asyncio.gather(first, *others) == [2, 4, 6]
    assert far.calls == [[1], [2, 3]]


async def test_who_asks_again_on_hearing_an_answer_is_in_the_next_call() -> None:
    far = Far()
    together = Together(far.send, 10)

    async def asks_twice(number: int) -> None:
        await together.ask(number)
        await together.ask(number + 10)

    await asyncio.gather(*map(asks_twice, range(3)))
    assert far.calls == [[0, 1, 2], [10, 11, 12]]


async def test_each_has_its_own_answer_and_what_fails_for_a_call_fails_for_all_in_it() -> None:
    together = Together(Far().send, 2)
    found = await asyncio.gather(*map(together.ask, (1, -1, 101, 2, 3)), return_exceptions=True)
    assert list(map(repr, found)) == ["2", "ValueError(-1)", "OverflowError([101, 2])", "OverflowError([101, 2])", "6"]


async def test_what_nobody_waits_for_any_more_is_not_asked() -> None:
    far = Far()
    together = Together(far.send, 10)
    gone, there = asyncio.create_task(together.ask(1)), asyncio.create_task(together.ask(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert await there == 4
    assert far.calls == [[2]]


async def test_closing_ends_the_wait_of_all() -> None:
    far = Far()
    together = Together(far.send, 1)
    far.open.clear()
    waiting = [asyncio.create_task(together.ask(number)) for number in (1, 2)]
    while not far.calls:
        await asyncio.sleep(0)
    await together.close()
    for one in waiting:
        with pytest.raises(asyncio.CancelledError):
            await one
    await together.close()


async def test_closing_ends_the_wait_of_those_who_have_only_just_asked() -> None:
    together = Together(Far().send, 1)
    waiting = asyncio.create_task(together.ask(1))
    await asyncio.sleep(0)  # it has asked, and nothing is sent yet
    await together.close()
    done, _ = await asyncio.wait([waiting], timeout=5)
    assert [one.cancelled() for one in done] == [True]


async def test_an_answer_too_few_fails_for_all_in_the_call_and_those_after_it_are_asked() -> None:
    async def one_less(asked: list[int]) -> Sequence[int]:
        return asked[1:] if len(asked) > 1 else asked

    together = Together(one_less, 2)
    found = asyncio.gather(*map(together.ask, range(3)), return_exceptions=True)
    first, second, third = await asyncio.wait_for(found, 5)
    assert (type(first), type(second), third) == (ValueError, ValueError, 2)
