"""The agent's line for questions: policyd asks what an Envoy holds, and is shown it in bounded pieces.

Law: only what this agent runs is looked at; a question that cannot be answered is answered with why, and never ends the
line. Whatever happens here, what the agent runs goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

from policyd._pb import agent_pb2
from policyd.errors import EnvoyError, PolicydError
from proxy.backoff import backoff
from proxy.control import Control
from proxy.look import look
from proxy.outside import Outside
from proxy.scrape import counted

PIECE: Final = 256 << 10  # bytes
FIRST_WAIT, MOST_WAIT = 1.0, 30.0  # between two attempts to open the line

Admin = Callable[[str], Path | None]  # the administration socket of an instance, None where it does not run here


class Inspections:
    """Call `run`, endless, in a task."""

    def __init__(self, control: Control, admin: Admin, outside: Outside) -> None:
        self._control = control
        self._admin = admin
        self._outside = outside

    async def run(self) -> None:
        """Keep a line open, and answer what comes on it."""
        failures = 0
        while True:
            try:
                async for _ in self._answered():
                    failures = 0
            except PolicydError as error:
                failures += 1
                wait = backoff(failures, self._outside.spread(), first=FIRST_WAIT, most=MOST_WAIT)
                if failures == 1:
                    self._outside.say("agent.inspections_ended", code=error.code, reason=str(error))
                await self._outside.sleep(wait)

    async def _answered(self) -> AsyncIterator[int]:
        """Give the number of each question that was answered; raises what ends the line."""
        answers: asyncio.Queue[agent_pb2.Shown] = asyncio.Queue(maxsize=4)  # so that a slow line holds nothing back
        await answers.put(agent_pb2.Shown())
        async for question in self._control.inspect(answers):
            for answer in await self._answer(question):
                await answers.put(answer)
            yield question.number

    async def _answer(self, question: agent_pb2.Look) -> Iterator[agent_pb2.Shown]:
        socket = self._admin(question.instance)
        self._outside.say("agent.shows", instance=question.instance[:80], kind=question.kind[:40])
        try:
            if socket is None:
                raise EnvoyError(f"no Envoy of `{question.instance[:80]}` runs here")
            by = counted(socket, question.instance) if question.kind == "metrics" else look(socket, question.kind)
            held = await by
        except EnvoyError as error:
            return iter([agent_pb2.Shown(number=question.number, last=True, problem=str(error)[:500])])
        return _pieces(question.number, held)


def _pieces(number: int, held: bytes) -> Iterator[agent_pb2.Shown]:
    for start in range(0, max(len(held), 1), PIECE):
        piece = held[start : start + PIECE]
        yield agent_pb2.Shown(number=number, piece=piece, last=start + PIECE >= len(held))
