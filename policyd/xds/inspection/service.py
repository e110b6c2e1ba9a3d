"""The lines on which agents show what their Envoys hold (proto/policyd/v1/agent.proto, Inspections).

Law: an agent shows only what it was asked, on its own line, in time and within bounds; a line that breaks this ends,
and no other notices. Only agents that run an instance are asked about it, which the caller has looked up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from policyd._pb import agent_pb2, agent_pb2_grpc
from policyd.errors import PolicydError, StreamError

KINDS: Final = ("listeners", "routes", "clusters", "endpoints", "secrets")
SHOWN: Final = (*KINDS, "metrics")  # the last is what an Envoy counts of requests, in Prometheus' form
SECONDS: Final = 15.0  # for one answer
MAX_HELD: Final = 12 << 20  # bytes, compressed; an administration reply takes 16 MiB
MAX_WAITING: Final = 4  # questions of one line that have no answer yet

Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here


class NotShown(PolicydError):
    """An agent that does not show what it was asked for."""

    code = "not_shown"


@dataclass(eq=False)
class _Line:
    """One agent's open line."""

    questions: asyncio.Queue[agent_pb2.Look | None] = field(default_factory=asyncio.Queue)
    waiting: dict[int, _Answer] = field(default_factory=dict)
    asked: int = 0

    def end(self, why: str) -> None:
        """Have the line ended, and everybody who waits on it told."""
        self.questions.put_nowait(None)
        for answer in self.waiting.values():
            answer.fail(why)


@dataclass(eq=False)
class _Answer:
    """What has come of one answer."""

    done: asyncio.Future[bytes]
    pieces: bytearray = field(default_factory=bytearray)

    def fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(NotShown(why))

    def take(self, shown: agent_pb2.Shown) -> None:
        if shown.problem:
            self.fail(shown.problem[:500])
            return
        if len(self.pieces) + len(shown.piece) > MAX_HELD:
            self.fail(f"more than {MAX_HELD:,} bytes")
            return
        self.pieces += shown.piece
        if shown.last and not self.done.done():
            self.done.set_result(bytes(self.pieces))


class InspectionsService(agent_pb2_grpc.InspectionsServicer):
    """Served beside the Agents service; `admit` gives the name of the agent that calls, or ends the call.

    `ask` is called in the service's own event loop.
    """

    def __init__(self, admit: Callable[[Context], Any], seconds: float = SECONDS) -> None:
        self._admit = admit
        self._seconds = seconds
        self._lines: dict[str, _Line] = {}

    def close(self) -> None:
        """End every line; agents come back."""
        for line in self._lines.values():
            line.end("policyd is shutting down")

    async def ask(self, agent: str, instance: str, kind: str) -> bytes:
        """What the Envoy of an instance holds of a kind, as its agent shows it (zlib); raises NotShown."""
        line = self._lines.get(agent)
        if line is None:
            raise NotShown(f"the agent `{agent}`, which runs `{instance}`, is not connected", remedy="start it again")
        if len(line.waiting) >= MAX_WAITING:
            raise NotShown(f"the agent `{agent}` has {MAX_WAITING} questions to answer already", remedy="ask again")
        line.asked += 1
        number = line.asked
        answer = line.waiting[number] = _Answer(asyncio.get_running_loop().create_future())
        line.questions.put_nowait(agent_pb2.Look(number=number, instance=instance, kind=kind))
        try:
            async with asyncio.timeout(self._seconds):
                return await answer.done
        except TimeoutError:
            raise NotShown(f"the agent `{agent}` did not answer within {self._seconds:g} s") from None
        finally:
            del line.waiting[number]

    async def Inspect(  # noqa: N802
        self, requests: AsyncIterator[agent_pb2.Shown], context: Context
    ) -> AsyncIterator[agent_pb2.Look]:
        """An agent's line: questions go out, what is shown comes in."""
        agent = await self._admit(context)
        line = _Line()
        if before := self._lines.get(agent):
            before.end(f"the agent `{agent}` opened another line")
        self._lines[agent] = line
        taking = asyncio.ensure_future(self._take(requests, line))
        taking.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            while (question := await line.questions.get()) is not None:
                yield question
            if taking.done() and (error := taking.exception()) is not None:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            taking.cancel()
            line.end(f"the agent `{agent}` has gone")
            if self._lines.get(agent) is line:
                del self._lines[agent]

    async def _take(self, requests: AsyncIterator[agent_pb2.Shown], line: _Line) -> None:
        """Take what is shown until the agent ends the line, or breaks its rules."""
        try:
            async for shown in requests:
                if shown.number > line.asked:
                    raise StreamError("an answer to nothing that was asked")
                answer = line.waiting.get(shown.number)  # None: whoever asked has gone
                if answer is not None:
                    answer.take(shown)
        finally:
            line.questions.put_nowait(None)
