"""What every port has: who pings an idle connection as Envoys do keeps it."""

from __future__ import annotations

import asyncio
import struct

import grpc

from policyd.server.transport import PINGS

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ACK = 1
MORE_THAN_GRPC_FORGIVES = 6


def frame(kind: int, payload: bytes = b"") -> bytes:
    """A frame of the connection itself."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, 0)) + bytes(4) + payload


async def answer_to_a_ping(reader: asyncio.StreamReader) -> int:
    """The kind of the frame that answers."""
    while True:
        head = await reader.readexactly(9)
        await reader.readexactly(int.from_bytes(head[:3], "big"))
        if head[3] == GOAWAY or (head[3] == PING and head[4] == ACK):
            return head[3]


async def test_a_connection_on_which_nothing_is_under_way_may_be_pinged() -> None:
    """gRPC allows one such ping in two hours unless told otherwise, whatever interval it is given."""
    shortly = [(name, 1 if name.endswith("_ms") else value) for name, value in PINGS]
    server = grpc.aio.server(options=shortly)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(PREFACE + frame(SETTINGS))
        answers = []
        async with asyncio.timeout(10):
            for number in range(MORE_THAN_GRPC_FORGIVES):
                writer.write(frame(PING, struct.pack(">Q", number)))
                answers.append(await answer_to_a_ping(reader))
                await asyncio.sleep(0.01)  # ten times the interval, which is what is asked about
    finally:
        writer.close()
        await server.stop(None)

    assert answers == [PING] * MORE_THAN_GRPC_FORGIVES
