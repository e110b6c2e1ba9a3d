"""Questions that are asked at the same time go in one call: of a small one, the call is most of what it costs.

Law: each has its own answer, in the order in which they were asked; what fails for a call fails for all in it. At most
one call is under way, and those who come meanwhile are the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class _Asked(Generic[Question, Answer]):
    question: Question
    answer: asyncio.Future[Answer]


class Together(Generic[Question, Answer]):
    """Asks by `send`, which answers at most so many questions, one for one."""

    def __init__(self, send: Callable[[list[Question]], Awaitable[Sequence[Answer]]], most: int) -> None:
        self._send = send
        self._most = most
        self._waiting: deque[_Asked[Question, Answer]] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """The answer, or what `send` raised."""
        asked: _Asked[Question, Answer] = _Asked(question, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._go_on())
        return await asked.answer

    async def close(self) -> None:
        """Let go of the call that is under way; who waits for an answer is cancelled."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait((self._sending,))
        self._let_go()  # a task that is cancelled before its first step does nothing at all

    async def _go_on(self) -> None:
        taken: list[_Asked[Question, Answer]] = []
        try:
            while True:
                await asyncio.sleep(0)  # who has just heard an answer may ask again
                if not self._waiting:
                    return
                taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                await self._ask(taken)
        except asyncio.CancelledError:
            self._let_go(taken)
            raise

    def _let_go(self, taken: Sequence[_Asked[Question, Answer]] = ()) -> None:
        for one in (*taken, *self._waiting):
            one.answer.cancel()
        self._waiting.clear()

    async def _ask(self, taken: Sequence[_Asked[Question, Answer]]) -> None:
        wanted = [one for one in taken if not one.answer.done()]
        if not wanted:
            return
        try:
            answers = await self._send([one.question for one in wanted])
            answered = list(zip(wanted, answers, strict=True))
        except Exception as error:  # noqa: BLE001  # it is told to whoever waits
            for one in wanted:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        for one, answer in answered:
            if not one.answer.done():
                one.answer.set_result(answer)
