"""The line for policyd's questions to an agent: what goes over it, and that nothing is left where it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from policyd._pb import agent_pb2, agent_pb2_grpc
from proxy.control import Unreachable, questions


class Asking(agent_pb2_grpc.InspectionsServicer):
    """Asks one question, and ends the line once it was answered."""

    def __init__(self) -> None:
        self.shown: list[bytes] = []

    async def Inspect(self, request_iterator: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:  # noqa: N802
        yield agent_pb2.Look(number=7, instance="web-1", kind="clusters")
        async for one in request_iterator:
            self.shown.append(one.piece)
            return


async def test_a_line_that_policyd_ends_leaves_nothing_that_waits() -> None:
    asking, server = Asking(), grpc.aio.server()
    agent_pb2_grpc.add_InspectionsServicer_to_server(asking, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    answers: asyncio.Queue[agent_pb2.Shown] = asyncio.Queue()
    numbers: list[int] = []

    async def answer(channel: grpc.aio.Channel) -> None:
        async for look in questions(channel, answers):
            numbers.append(look.number)
            await answers.put(agent_pb2.Shown(number=look.number, piece=b"held", last=True))

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        before = asyncio.all_tasks()
        with pytest.raises(Unreachable, match="policyd ended the questions"):
            await answer(channel)
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - before
    await server.stop(None)

    assert (numbers, asking.shown) == ([7], [b"held"])
    assert [one for one in left if not one.done() and "server" not in repr(one.get_coro())] == []
