"""Agents' lines: questions out, bounded answers in, and what ends a line."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from policyd._pb import agent_pb2, agent_pb2_grpc
from policyd.xds.inspection.service import MAX_HELD, MAX_WAITING, InspectionsService, NotShown

Look, Shown = agent_pb2.Look, agent_pb2.Shown


class Agent:
    """The other end of a line."""

    def __init__(self, stub: Any) -> None:
        self.call = stub.Inspect()

    async def begin(self) -> None:
        await self.call.write(Shown())

    async def asked(self) -> Look:
        async with asyncio.timeout(10):
            return await self.call.read()

    async def shows(self, number: int, *pieces: bytes, problem: str = "") -> None:
        for at, piece in enumerate(pieces or (b"",)):
            await self.call.write(Shown(number=number, piece=piece, last=at >= len(pieces) - 1, problem=problem))


class Served:
    """The service on a socket, and agents that come to it; who calls is told by the call's own metadata."""

    def __init__(self, service: InspectionsService, stub: Any) -> None:
        self.service, self._stub = service, stub

    async def agent(self) -> Agent:
        agent = Agent(self._stub)
        await agent.begin()
        await self.until_open("a1")
        return agent

    async def until_open(self, name: str) -> None:
        async with asyncio.timeout(10):
            while name not in self.service._lines:
                await asyncio.sleep(0.01)

    def ask(self, kind: str = "routes") -> asyncio.Task[bytes]:
        return asyncio.create_task(self.service.ask("a1", "web-1", kind))


@asynccontextmanager
async def serving(seconds: float = 10.0) -> AsyncIterator[Served]:
    async def admit(_context: Any) -> str:
        return "a1"

    service = InspectionsService(admit, seconds)
    server = grpc.aio.server()
    agent_pb2_grpc.add_InspectionsServicer_to_server(service, server)
    with tempfile.TemporaryDirectory(prefix="t") as short:
        server.add_insecure_port(f"unix:{short}/agents.sock")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{short}/agents.sock") as channel:
            yield Served(service, agent_pb2_grpc.InspectionsStub(channel))
            service.close()
        await server.stop(1)


async def failure(task: asyncio.Task[bytes]) -> str:
    with pytest.raises(NotShown) as refused:
        async with asyncio.timeout(10):
            await task
    return str(refused.value)


async def test_a_question_is_answered_in_pieces() -> None:
    async with serving() as served:
        agent = await served.agent()
        asking = served.ask()
        assert await agent.asked() == Look(number=1, instance="web-1", kind="routes")

        await agent.shows(1, b"one ", b"two")

        assert await asking == b"one two"


async def test_questions_are_told_apart() -> None:
    async with serving() as served:
        agent = await served.agent()
        first, second = served.ask("routes"), served.ask("clusters")
        assert [(await agent.asked()).kind, (await agent.asked()).kind] == ["routes", "clusters"]

        await agent.shows(2, b"second")
        await agent.shows(1, b"first")

        assert (await first, await second) == (b"first", b"second")


async def test_what_an_agent_cannot_show_it_says() -> None:
    async with serving() as served:
        agent = await served.agent()
        asking = served.ask()
        await agent.asked()
        await agent.shows(1, problem="no Envoy of `web-1` runs here")

        assert await failure(asking) == "no Envoy of `web-1` runs here"


async def test_without_its_agent_nothing_is_shown() -> None:
    async with serving() as served:
        message = "the agent `a1`, which runs `web-1`, is not connected; start it again"
        assert await failure(served.ask()) == message


async def test_an_agent_that_goes_leaves_nobody_waiting() -> None:
    async with serving() as served:
        agent = await served.agent()
        asking = served.ask()
        await agent.asked()
        agent.call.cancel()

        assert await failure(asking) == "the agent `a1` has gone"


async def test_a_slow_agent_is_not_waited_for_for_ever() -> None:
    async with serving(seconds=0.1) as served:
        await served.agent()

        assert await failure(served.ask()) == "the agent `a1` did not answer within 0.1 s"


async def test_an_answer_to_nothing_ends_the_line() -> None:
    async with serving() as served:
        agent = await served.agent()
        await agent.shows(7, b"lies")

        async with asyncio.timeout(10):
            assert await agent.call.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert await agent.call.details() == "an answer to nothing that was asked"


async def test_too_much_is_refused() -> None:
    async with serving() as served:
        agent = await served.agent()
        asking = served.ask()
        await agent.asked()
        await agent.shows(1, *[b"x" * (1 << 20)] * (MAX_HELD // (1 << 20) + 1))

        assert await failure(asking) == f"more than {MAX_HELD:,} bytes"


async def test_questions_do_not_pile_up() -> None:
    async with serving() as served:
        await served.agent()
        asked = [served.ask() for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)

        assert await failure(served.ask()) == f"the agent `a1` has {MAX_WAITING} questions to answer already; ask again"
        for one in asked:
            one.cancel()


async def test_of_two_lines_of_an_agent_the_newer_one_counts() -> None:
    async with serving() as served:
        old = await served.agent()
        asking = served.ask()
        await old.asked()
        new = Agent(served._stub)
        await new.begin()

        assert await failure(asking) == "the agent `a1` opened another line"
