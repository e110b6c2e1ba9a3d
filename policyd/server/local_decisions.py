"""Puts on record what sidecars decided by themselves, as agents forward it; compares the sample, and says what is lost.

Law: a batch is acknowledged once all of it is in the journal, and what was acknowledged is not put there again. An
agent speaks for the instances that it runs. What cannot be read is counted as lost, and said.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol

import grpc
import structlog
from google.protobuf.message import DecodeError

from policyd import envoy_api
from policyd._pb import agent_pb2, agent_pb2_grpc
from policyd.audit.record import Entry
from policyd.authz.local_record import Compared, Reader, Told
from policyd.authz.record import Include
from policyd.authz.ruling import Ruling
from policyd.errors import IncompleteRequest, JournalError, StateError
from policyd.mesh.model import Listener, Mesh
from policyd.sources.state import write_private
from policyd.spiffe import SpiffeId

MAX_RULINGS: Final = 16  # by which what comes late can still be told in full
MAX_SPOOLS: Final = 4_096
MAX_TOLD: Final = 4_096  # messages of a batch
MAX_NAME: Final = 64
MAX_WHY: Final = 200
MESSAGE_BYTES: Final = 8 << 20

Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here
Keep = Callable[[Sequence[Entry]], int]  # how many have no line; raises JournalError

_log = structlog.get_logger("policyd.server")


class Counts(Protocol):
    """What is counted: names.LOCAL_DECISIONS and the two beside it."""

    def decided_by_proxy(self, decision: str, /) -> None:
        """One is on record."""

    def local_lost(self, count: int, /) -> None:
        """So many are not."""

    def compared(self, *, differs: bool) -> None:
        """One was made by policyd too."""


class Rulings:
    """The last rulings by their revisions; safe for threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Ruling] = OrderedDict()
        self._lock = Lock()

    def know(self, ruling: Ruling) -> None:
        """It comes into force."""
        with self._lock:
            self._known[ruling.revision] = ruling
            self._known.move_to_end(ruling.revision)
            while len(self._known) > MAX_RULINGS:
                self._known.popitem(last=False)

    def of(self, revision: str) -> Ruling | None:
        """The ruling of a revision, None where it is no longer known."""
        return self._known.get(revision)


class Positions:
    """How far each spool is on record, in a file; what it says is never more than what is there."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            read_: dict[str, Any] = json.loads(file.read_bytes())
            self._kept = OrderedDict((str(name), int(seq)) for name, seq in read_.items())
        except FileNotFoundError:
            self._kept = OrderedDict()
        except (OSError, ValueError, TypeError, AttributeError):
            raise StateError(
                f"`{file}` is broken", remedy="remove it: some local decisions may be recorded twice"
            ) from None

    def of(self, spool: str) -> int:
        """The number of the last one, 0 where there is none."""
        return self._kept.get(spool, 0)

    def reach(self, spool: str, seq: int) -> None:
        """All up to `seq` is on record; raises StateError."""
        self._kept[spool] = seq
        self._kept.move_to_end(spool)
        while len(self._kept) > MAX_SPOOLS:
            self._kept.popitem(last=False)
        try:
            write_private(self._file, json.dumps(self._kept).encode())
        except OSError as error:
            raise StateError(f"`{self._file}` cannot be written: {error.strerror}") from error


class LocalDecisions(agent_pb2_grpc.DecisionsServicer):
    """The service. `runs` gives the agent that calls about an instance, or ends the call; `keep` is the journal's.

    `differs` is told of a workload whose sidecar decided otherwise than policyd, under which revision.
    """

    def __init__(
        self,
        runs: Callable[[Context, str], Awaitable[str]],
        *,
        mesh: Callable[[], Mesh],
        rulings: Rulings,
        positions: Positions,
        keep: Keep,
        counts: Counts,
        clock: Callable[[], datetime],
        differs: Callable[[SpiffeId, str], object],
        include: Include,
    ) -> None:
        self._runs = runs
        self._mesh = mesh
        self._positions = positions
        self._keep = keep
        self._counts = counts
        self._clock = clock
        self._differs = differs
        self._reader = Reader(rulings.of, include)
        self._one_at_a_time = asyncio.Lock()
        self._message: Any = envoy_api.message("envoy.service.accesslog.v3.StreamAccessLogsMessage")

    async def Keep(self, request: agent_pb2.Batch, context: Context) -> agent_pb2.Kept:  # noqa: N802
        """Put a batch on record."""
        agent = await self._runs(context, request.instance)
        if not request.seq or len(request.told) > MAX_TOLD or not 0 < len(request.spool) <= MAX_NAME:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this is no batch of a spool")
        async with self._one_at_a_time:
            try:
                kept = await asyncio.to_thread(self._take, agent, request)
            except (JournalError, StateError) as error:
                _log.error("local.not_kept", agent=agent, error=str(error))
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the journal takes no record now")
        return agent_pb2.Kept(seq=kept)

    def _take(self, agent: str, batch: agent_pb2.Batch) -> int:
        spool = f"{agent}/{batch.spool}"
        reached = self._positions.of(spool)
        if batch.seq > reached + 1 and reached:
            self._lost(batch.instance, 0, f"the agent's spool has a gap: {reached} is followed by {batch.seq}")
        last = reached
        try:
            for seq, told in enumerate(batch.told, batch.seq):
                if seq > reached:
                    self._one(batch.instance, told)
                    last = seq
        finally:
            if last > reached:
                self._positions.reach(spool, last)
        return last

    def _one(self, instance: str, told: agent_pb2.Told) -> None:
        """Put on record what one message tells."""
        if told.lost or told.why:
            self._lost(instance, told.lost, told.why)
        if not told.logged:
            return
        mesh, now = self._mesh(), self._clock()
        listener = mesh.listeners.get(told.listener)
        try:
            entries = self._message.FromString(told.logged).http_logs.log_entry
        except DecodeError:
            self._lost(instance, 1, "the agent forwarded what is no message of an access log")
            return
        if listener is None or listener.instance != instance:
            self._lost(instance, len(entries), f"`{told.listener[:80]!a}` is no listener of it any more")
            return
        found: list[Told] = []
        for logged in entries:
            with suppress(IncompleteRequest):
                found.append(self._reader.read(logged, listener, mesh, now))
        unfit = self._keep([one.entry for one in found]) + len(entries) - len(found)
        if unfit:
            self._lost(instance, unfit, "they tell of no decision, or of no usable request")
        for one in found:
            self._count(one, listener)

    def _count(self, one: Told, listener: Listener) -> None:
        self._counts.decided_by_proxy(one.entry.decision or "")
        if one.compared is not None:
            self._counts.compared(differs=one.compared.differs)
            if one.compared.differs:
                self._alarm(one.entry, one.compared, listener)

    def _alarm(self, entry: Entry, compared: Compared, listener: Listener) -> None:
        """Both answers, on record and in the log; who is to fall back does."""
        said: Mapping[str, str] = {
            "decision_id": entry.decision_id,
            "local": compared.local,
            "central": compared.central,
            "listener": listener.name,
            "workload": str(listener.owner),
        }
        _log.error("local.differs", **said)
        detail = {"operation": "local.differs", **said}
        now = self._clock()
        self._keep([Entry(time=now, kind="operation", decision="error", revision=entry.revision, detail=detail)])
        self._differs(listener.owner, entry.revision)

    def _lost(self, instance: str, count: int, why: str) -> None:
        """Say that decisions of an instance are not on record (`count` 0: nobody knows how many)."""
        text = "".join(letter if letter.isprintable() else " " for letter in why[:MAX_WHY])
        detail = {"operation": "local.gap", "instance": instance, "lost": count, "reason": text}
        _log.error("local.gap", instance=instance, lost=count, reason=text)
        self._keep([Entry(time=self._clock(), kind="operation", decision="error", detail=detail)])
        self._counts.local_lost(count)
