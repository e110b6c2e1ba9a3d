"""Speaks Envoy's access log protocol to an agent, at a pace: what many sidecars of a node would tell it at once.

The entries are an Envoy's own, read from the agent's spool; each is told again with an id and a time of its own, in
messages as long as Envoy's. An Envoy that decides as often needs more than the cores of a small machine for itself.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import count, cycle
from pathlib import Path
from typing import Final, NamedTuple

import grpc

from policyd._pb import agent_pb2
from policyd._pb.logged_pb2 import LoggedBy, LoggedEntry, LoggedMessage
from policyd.xds.resources.deciding import BUFFER_BYTES
from proxy.decided import METHOD, SERVICE
from proxy.spool import Spool

ID_LENGTH: Final = 36


class Told(NamedTuple):
    """How many decisions were told, and in how many seconds."""

    decisions: int
    seconds: float


def kinds(spool: Path) -> list[LoggedEntry]:
    """One entry of each path that was asked for, from what a spool still has on disk of what it has sent."""
    found: dict[bytes, LoggedEntry] = {}
    for body in _frames(spool):
        logged = LoggedMessage.FromString(agent_pb2.Told.FromString(body).logged)
        entries = map(LoggedEntry.FromString, logged.http_logs.log_entry)
        found |= {entry.request.path: entry for entry in entries}
    return list(found.values())


def _frames(spool: Path) -> Iterator[bytes]:
    """All frames of its segments; the spool itself forgets at once what policyd has."""
    opened = Spool(spool)
    try:
        yield from opened.read(1 << 30)[1]
    finally:
        opened.close()


def tell(socket: Path, listener: str, told: Sequence[LoggedEntry], per_second: int, seconds: int) -> Told:
    """Tell so many each second, in turn of each kind."""
    return asyncio.run(_tell(socket, listener, told, per_second, seconds))


async def _tell(socket: Path, listener: str, told: Sequence[LoggedEntry], per_second: int, seconds: int) -> Told:
    wanted, sent, began = per_second * seconds, 0, time.monotonic()
    made = _messages(listener, told, wanted)

    async def paced() -> AsyncIterator[bytes]:
        nonlocal sent
        for message, size in made:
            await asyncio.sleep(began + sent / per_second - time.monotonic())
            sent += size
            yield message

    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        call = channel.stream_unary(f"/{SERVICE}/{METHOD}")
        await call(paced())
    return Told(sent, time.monotonic() - began)


def _messages(listener: str, told: Sequence[LoggedEntry], wanted: int) -> Iterator[tuple[bytes, int]]:
    """Messages and how many entries each has; the first says which listener it is."""
    numbers, turn = count(), cycle(told)
    message, size = LoggedMessage(identifier=LoggedBy(log_name=listener)), 0
    for entry in turn:
        body = _afresh(entry, next(numbers))
        message.http_logs.log_entry.append(body)
        size += len(body)
        wanted -= 1
        if size >= BUFFER_BYTES or not wanted:
            yield message.SerializeToString(), len(message.http_logs.log_entry)
            message, size = LoggedMessage(), 0
        if not wanted:
            return


def _afresh(entry: LoggedEntry, number: int) -> bytes:
    """The entry of another request alike."""
    common, now = entry.common_properties, time.time_ns()
    common.start_time.seconds, common.start_time.nanos = divmod(now, 1_000_000_000)
    [kept] = common.filter_state_objects
    own = str(uuid.UUID(int=number, version=4))
    common.filter_state_objects[0] = kept[:-ID_LENGTH] + own.encode()
    entry.request.request_id = own
    return entry.SerializeToString()
