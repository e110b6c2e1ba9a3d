"""The link: what goes down arrives, what comes up is looked at, and the end of one side is seen by the other."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from types import MappingProxyType

import pytest

from policyd.server.link import (
    MAX_UP_BYTES,
    Ended,
    InForce,
    Listen,
    Listening,
    LowerEnd,
    Opened,
    Speak,
    Trouble,
    Up,
    pack,
    read_up,
)


@asynccontextmanager
async def upper(ours: socket.socket) -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("message", [Listening(), Opened(), InForce(7, "r1"), Trouble("the disk is full"), Trouble("")])
async def test_what_is_said_below_is_heard_above(message: Up) -> None:
    ours, theirs = socket.socketpair()
    async with upper(ours) as reader:
        with closing(LowerEnd(theirs.detach())) as lower:
            lower.say(message)
        assert await read_up(reader) == message


@pytest.mark.parametrize(
    "bytes_",
    [
        b"",
        b"\0\0",
        struct.pack(">I", 5) + b"{}",
        struct.pack(">I", 2) + b"{}",
        struct.pack(">I", 16) + b'{"type":"Forge"}',
        struct.pack(">I", MAX_UP_BYTES + 1),
        struct.pack(">I", 3) + b"\x80\x04.",  # a pickle
    ],
)
async def test_what_makes_no_sense_from_below_is_the_end_of_the_link(bytes_: bytes) -> None:
    ours, theirs = socket.socketpair()
    async with upper(ours) as reader:
        theirs.sendall(bytes_)
        theirs.close()
        assert await read_up(reader) is None


def test_messages_from_above_arrive_whole_and_in_order_and_idle_time_is_told() -> None:
    ours, theirs = socket.socketpair()
    idle: list[bool] = []

    def speak() -> None:
        idle.append(True)
        ours.sendall(pack(Speak("debug")) + pack(Listen()))

    with closing(LowerEnd(theirs.detach())) as lower:
        assert lower.receive(speak, 0.01) == Speak("debug")
        assert lower.receive(speak, 0.01) == Listen()
        assert idle == [True]
        ours.close()
        with pytest.raises(Ended):
            lower.receive(speak, 0.01)


def test_who_speaks_to_nobody_is_not_told() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with closing(LowerEnd(theirs.detach())) as lower:
        lower.say(Opened())


def test_a_read_only_mapping_goes_down_as_one() -> None:
    import pickle

    nothing = MappingProxyType({"a": "b"})
    assert pickle.loads(pack(nothing)[4:]) == nothing  # type: ignore[arg-type]
