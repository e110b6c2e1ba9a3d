"""What one Envoy decides by itself, as its access log tells it: taken, counted, put into the spool, sent to policyd.

Law: the agent reads no more of what is told than how much it is, and changes nothing of it but this: what a token says
stays here, but for whose it is and the claims that policies read. What is lost on the way is said on the same way, as
soon as something gets through again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import grpc

from policyd._pb import agent_pb2
from policyd._pb.logged_pb2 import LoggedEntry, LoggedMessage, LoggedMetadata
from policyd.errors import StateError
from policyd.names import METADATA_TOKENS
from proxy.outside import Outside
from proxy.spool import Spool

SERVICE: Final = "envoy.service.accesslog.v3.AccessLogService"
METHOD: Final = "StreamAccessLogs"
MAX_NAME: Final = 300
NEARLY: Final = 500_000  # microseconds by which entries of a batch may be out of order
_TOKENS: Final = METADATA_TOKENS.encode()
FULL: Final = "the agent's spool is full"
NO_DISK: Final = "the agent's disk takes no more"
CRASHED: Final = "its Envoy has ended by itself, and may not have told its last decisions"
KILLED: Final = "its agent has ended by itself, and its Envoy with it, which may not have told its last decisions"
UNASKED: Final = "its Envoy has ended and had not said how many decisions it made: it may not have told its last"
NOT_TOLD: Final = "Envoy counts more decisions than it told"
SILENT: Final = "Envoy counts decisions and has told none of them: is it as new as policyd?"
DROPPED: Final = "Envoy has dropped them, as they were not taken soon enough"


@dataclass(slots=True)
class Lost:
    """How many decisions are not on record, and why the first of them."""

    count: int = 0
    why: str = ""
    silent: bool = False


class Decided:
    """The decisions of one instance's Envoy; `opened` gives its spool, `changed` is called when it has something."""

    def __init__(
        self, instance: str, opened: Callable[[], Spool], outside: Outside, changed: Callable[[], None]
    ) -> None:
        self.instance = instance
        self.spool: Spool | None = None  # none until something is told
        self._opened = opened
        self.process = 0  # which Envoy it is, counted
        self.arrived = 0  # entries of this Envoy, whether they could be kept or not
        self.missed = 0  # and those that it has counted and not told,
        self.dropped = 0  # of which it says itself that it has dropped them
        self._runs = False
        self._say = outside.say
        self._changed = changed
        self._lost = Lost()
        self._moment = 0  # microseconds of the clock; 0: nobody asks
        self._later = 0

    def watch(self, moment: int) -> None:
        """Tell apart from now on what ended after a moment."""
        self._moment, self._later = moment, 0

    @property
    def before(self) -> int:
        """How many have been told that had ended at the moment, as far as each says when."""
        return self.arrived - self._later

    def fresh(self) -> None:
        """Another Envoy starts, which counts from 0."""
        self.process, self.arrived, self.missed, self.dropped = self.process + 1, 0, 0, 0
        self._runs = True

    def crashed(self) -> None:
        """Its Envoy has ended by itself: what it had not told yet is gone, and nobody knows how much that is."""
        self._gone(CRASHED)

    def ended(self, counted: int | None) -> None:
        """It was ended, and had counted so many decisions, None if it did not say; called after a crash says nothing.

        All that it had told has been taken.
        """
        if counted is None or not self._runs:
            self._gone(UNASKED)
            return
        if (missing := counted - self.arrived - self.missed) > 0:
            self.missed += missing
            self.lose(missing, NOT_TOLD)
        self._over()

    def _gone(self, why: str) -> None:
        if self._runs and self.arrived:
            self._lost.why = self._lost.why or why
            self._confess()
        self._over()

    def _over(self) -> None:
        """Nobody tells any more; what is still to be said stays marked, for the next agent."""
        self._runs = False
        if self.spool is not None and not self._lost.why:
            self.spool.over()

    def left(self, spool: Spool) -> None:
        """An earlier agent has left this; if it did not end it, that is said as of an Envoy that has `crashed`."""
        self.spool = spool
        if spool.was_cut:
            self._lost.why = self._lost.why or KILLED
            self._confess()
            if not self._lost.why:  # it is said, and not before
                spool.over()

    def look_at(self, entries: Sequence[bytes]) -> None:
        """Count those that ended after the moment, if there is one; a batch begins with what ended first, or nearly."""
        if not self._moment or not entries:
            return
        if ended_at(entries[0]) > self._moment + NEARLY:
            self._later += len(entries)
        else:
            self._later += sum(ended_at(one) > self._moment for one in entries)

    def take(self, listener: str, logged: bytes, count: int) -> None:
        """Put what was told into the spool."""
        self.arrived += count
        if self._lost.why:
            self._confess()
        if why := self._add(agent_pb2.Told(listener=listener, logged=logged)):
            self.lose(count, why)
        self._changed()

    def lose(self, count: int, why: str) -> None:
        """So many are not on record."""
        if not self._lost.why:
            self._say("sidecar.decisions_lost", instance=self.instance, reason=why)
            self._lost.why = why
        self._lost.count += count
        self._confess()

    def miss(self, count: int, why: str) -> None:
        """Its Envoy has counted so many and will not tell them."""
        self.missed += count
        self._lost.silent = not self.arrived
        self.lose(count, why)

    def done(self) -> None:
        """Its agent ends, and no Envoy tells any more: what is still to be said is, whether there is room or not."""
        if self._lost.why:
            self._confess(beyond=True)
        self._over()

    def _confess(self, *, beyond: bool = False) -> None:
        """Say what was lost, in its place among what is told."""
        told = agent_pb2.Told(lost=self._lost.count, why=self._lost.why, silent=self._lost.silent)
        if not self._add(told, beyond=beyond):
            self._lost = Lost()
            self._changed()

    def _add(self, told: agent_pb2.Told, *, beyond: bool = False) -> str:
        try:
            if self.spool is None:
                self.spool = self._opened()
            if told.logged:
                self.spool.telling()
            return "" if self.spool.add(told.SerializeToString(), beyond=beyond) is not None else FULL
        except (OSError, StateError):
            return NO_DISK


def ended_at(logged: bytes) -> int:
    """When a request ended, in microseconds; where its entry does not say, as of a tunnel, when it began."""
    common = LoggedEntry.FromString(logged).common_properties
    began, took = common.start_time, common.duration
    return (began.seconds + took.seconds) * 1_000_000 + (began.nanos + took.nanos) // 1000


class Listening:
    """The access log service of one Envoy, on the socket of its secrets."""

    def __init__(self, decided: Decided) -> None:
        self._decided = decided

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler of the service."""
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_unary_rpc_method_handler(self._serve)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})

    async def _serve(self, messages: AsyncIterator[bytes], _context: object) -> bytes:
        return await self.take(messages)

    async def take(self, messages: AsyncIterator[bytes]) -> bytes:
        """Take what a stream tells, until it ends."""
        name = ""
        async for body in messages:
            logged = LoggedMessage.FromString(body)
            if named := logged.HasField("identifier"):  # with the stream's first message: all Envoy can do, 60 KB
                name = logged.identifier.log_name[:MAX_NAME] or name
                logged.ClearField("identifier")
            has_tokens = _TOKENS in body
            if has_tokens:
                _forget_tokens(logged)
            if count := len(logged.http_logs.log_entry):
                self._decided.look_at(logged.http_logs.log_entry)
                self._decided.take(name, logged.SerializeToString() if named or has_tokens else body, count)
        return b""


def _forget_tokens(logged: LoggedMessage) -> None:
    """Take out what Envoy's own filter read in tokens: what policies read of it another one tells besides."""
    for at, body in enumerate(logged.http_logs.log_entry):
        if _TOKENS not in body:
            continue
        entry = LoggedEntry.FromString(body)
        metadata = LoggedMetadata.FromString(entry.common_properties.metadata)
        kept = [one for one in metadata.filter_metadata if one.key != METADATA_TOKENS]
        if len(kept) == len(metadata.filter_metadata):
            continue
        del metadata.filter_metadata[:]
        metadata.filter_metadata.extend(kept)
        entry.common_properties.metadata = metadata.SerializeToString()
        logged.http_logs.log_entry[at] = entry.SerializeToString()


class Wake:
    """An event that may be set from anywhere in the loop, and is waited for by one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def __call__(self) -> None:
        """There is something."""
        self._event.set()

    async def wait(self) -> None:
        """Return when there is."""
        await self._event.wait()
        self._event.clear()
