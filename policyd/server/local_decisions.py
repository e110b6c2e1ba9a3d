"""Puts on record what sidecars decided by themselves, as agents forward it; compares the sample, and says what is lost.

Law: a batch is acknowledged once all of it is in the journal, and what is there is not put there again, also where a
crash kept its place from being noted. An agent speaks for the instances that it runs. What cannot be read is counted as
lost, and said.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol

import grpc
import msgspec
import structlog

from policyd._pb import agent_pb2, agent_pb2_grpc
from policyd.audit.read import Line
from policyd.audit.record import Entry
from policyd.audit.stencil import EPOCH, MICROSECOND, Own, Stencil
from policyd.authz.local_record import Compared, Foreign, Reader, Silent, Told
from policyd.authz.record import Include
from policyd.authz.ruling import Ruling
from policyd.decision_line import END
from policyd.errors import IncompleteRequest, JournalError, StateError
from policyd.mesh.model import Mesh
from policyd.server.on_record import OnRecord
from policyd.sources.state import write_private
from policyd.spiffe import SpiffeId

MAX_RULINGS: Final = 16  # by which what comes late can still be told in full
MAX_OF_AGENT: Final = 4_096  # spools of an agent, one for each instance that it runs
MAX_SPOOLS: Final = 16_384
MAX_TOLD: Final = 4_096  # messages of a batch
MAX_LINES: Final = 16_384  # of a message: an agent reads a mebibyte at once
MAX_NAME: Final = 64
MAX_SEQ: Final = 1 << 62  # far from where numbers of a message, or of JSON, end
MAX_WHY: Final = 200

Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here

_log = structlog.get_logger("policyd.server")


class Counts(Protocol):
    """What is counted: names.LOCAL_DECISIONS and the two beside it."""

    def decided_by_proxy(self, decision: str, revision: str, count: int, /) -> None:
        """So many are on record, under a revision."""

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
    """How far each spool is on record, in a file; what it says is never more than what is there.

    An agent that has too many has its own forgotten, those first that have rested longest. Where there are too many in
    all, that is whichever has the most.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept: OrderedDict[str, OrderedDict[str, int]] = OrderedDict()  # by agent
        self._count = 0
        try:
            read_: dict[str, Any] = json.loads(file.read_bytes())
            for spool, seq in read_.items():
                agent, _, name = spool.partition("/")  # which no agent's name has
                if not 0 <= int(seq) <= MAX_SEQ + MAX_TOLD:
                    raise ValueError
                self._put(agent, name, int(seq))
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, AttributeError):
            raise StateError(
                f"`{file}` is broken", remedy="remove it: some local decisions may be recorded twice"
            ) from None

    def of(self, agent: str, name: str) -> int:
        """The number of the last one of an agent's spool, 0 where there is none."""
        own = self._kept.get(agent)
        return own.get(name, 0) if own else 0

    def reach(self, agent: str, name: str, seq: int) -> None:
        """All up to `seq` is on record; raises StateError."""
        self._put(agent, name, seq)
        places = {f"{agent}/{name}": seq for agent, own in self._kept.items() for name, seq in own.items()}
        try:
            write_private(self._file, msgspec.json.encode(places))
        except OSError as error:
            raise StateError(f"`{self._file}` cannot be written: {error.strerror}") from error

    def _put(self, agent: str, name: str, seq: int) -> None:
        own = self._kept.setdefault(agent, OrderedDict())
        self._count += name not in own
        own[name] = seq
        own.move_to_end(name)
        self._kept.move_to_end(agent)
        if len(own) > MAX_OF_AGENT:
            self._forget_one(own)
        if self._count > MAX_SPOOLS:
            self._forget_one(max(self._kept.values(), key=len))  # of equals, who has rested longest

    def _forget_one(self, of: OrderedDict[str, int]) -> None:
        of.popitem(last=False)
        self._count -= 1


class Records(Protocol):
    """Where records are kept; policyd.audit.journal.Journal is one."""

    def stencil(self, entry: Entry, /) -> Stencil:
        """Of an entry; raises JournalError."""

    def keep_filled(self, filled: Sequence[tuple[Stencil, Own]], /) -> None:
        """Keep all of them, or raise JournalError."""


@dataclass(slots=True)
class _Heard:
    """What a batch tells, in its order; nothing of it holds until it is on record. `message` is what is heard now."""

    instance: str
    spool: str
    message: int
    filled: list[tuple[Stencil, Own]] = field(default_factory=list)
    decided: Counter[tuple[str, str]] = field(default_factory=Counter)
    compared: list[bool] = field(default_factory=list)
    lost: int = 0
    alarms: list[dict[str, Any]] = field(default_factory=list)
    distrusted: list[tuple[SpiffeId, str]] = field(default_factory=list)


class LocalDecisions(agent_pb2_grpc.DecisionsServicer):
    """The service. `runs` gives the agent that calls about an instance, or ends the call; `journal` keeps.

    `earlier` are the lines of the journal at this start, the newest first. `distrust` is told of a workload whose
    sidecar decided otherwise than policyd, or tells nothing of its decisions, under which revision; `in_force` gives
    the mesh and the revision of now.
    """

    def __init__(
        self,
        runs: Callable[[Context, str], Awaitable[str]],
        *,
        in_force: Callable[[], tuple[Mesh, str]],
        rulings: Rulings,
        positions: Positions,
        journal: Records,
        earlier: Callable[[], Iterable[Line]],
        counts: Counts,
        clock: Callable[[], datetime],
        distrust: Callable[[SpiffeId, str], object],
        include: Include,
    ) -> None:
        self._runs = runs
        self._in_force = in_force
        self._positions = positions
        self._journal = journal
        self._on_record = OnRecord(earlier)
        self._counts = counts
        self._clock = clock
        self._distrust = distrust
        self._reader = Reader(rulings.of, include, journal.stencil)
        self._one_at_a_time = asyncio.Lock()

    async def Keep(self, request: agent_pb2.Batch, context: Context) -> agent_pb2.Kept:  # noqa: N802
        """Put a batch on record."""
        agent = await self._runs(context, request.instance)
        is_one = 0 < request.seq <= MAX_SEQ and len(request.told) <= MAX_TOLD
        if not is_one or not 0 < len(request.spool) <= MAX_NAME:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this is no batch of a spool")
        async with self._one_at_a_time:
            try:
                kept = await asyncio.to_thread(self._take, agent, request)
            except (JournalError, StateError) as error:
                _log.error("local.not_kept", agent=agent, error=str(error))
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the journal takes no record now")
        return agent_pb2.Kept(seq=kept)

    def _take(self, agent: str, batch: agent_pb2.Batch) -> int:
        """Put what is new in a batch on record, all of it or nothing; the number of its last one."""
        spool = f"{agent}/{batch.spool}"
        reached = self._positions.of(agent, batch.spool)
        heard = _Heard(batch.instance, spool, batch.seq)
        if batch.seq > reached + 1 and reached:
            self._lose(heard, 0, f"the agent's spool has a gap: {reached} is followed by {batch.seq}")
        known = max(0, reached + 1 - batch.seq)
        for message, told in enumerate(batch.told[known:], batch.seq + known):
            heard.message = message
            self._hear(heard, told)
        self._journal.keep_filled(self._on_record.new_of(heard.filled))
        last = max(reached, batch.seq + len(batch.told) - 1)
        try:
            self._say(heard)
        finally:  # neither keeps the other from being done: what is on record comes no more
            if last > reached:
                self._positions.reach(agent, batch.spool, last)
        return last

    def _hear(self, heard: _Heard, told: agent_pb2.Told) -> None:
        """Take down what one message tells."""
        mesh, revision = self._in_force()
        if told.lost or told.why:
            self._lose(heard, told.lost, told.why)
        if told.silent and heard.instance in mesh.instances:
            heard.distrusted.append((mesh.instances[heard.instance].workload, revision))
        if not told.lines:
            if not told.lost and not told.why:
                self._lose(heard, 0, "an agent of another version has told of some in a form of its own")
            return
        if (count := told.lines.count(END)) > MAX_LINES:
            self._lose(heard, count, f"a message has at most {MAX_LINES} lines")
        else:
            self._read(heard, told.lines)

    def _read(self, heard: _Heard, lines: bytes) -> None:
        """Take down what lines tell."""
        (mesh, revision), now = self._in_force(), self._clock()
        unfit, foreign, micros = 0, Counter[str](), (now - EPOCH) // MICROSECOND
        for line in lines.removesuffix(END).split(END):
            try:
                one = self._reader.read(line, heard.instance, mesh, micros)
            except Foreign as error:
                foreign[str(error)] += 1
                continue
            except (IncompleteRequest, JournalError) as error:
                unfit += 1
                if isinstance(error, Silent) and heard.instance in mesh.instances:
                    heard.distrusted.append((mesh.instances[heard.instance].workload, revision))
                continue
            heard.filled.append((one.stencil, one.own))
            heard.decided[one.stencil.entry.decision or "", one.stencil.entry.revision] += 1
            if one.compared is not None:
                self._compare(heard, one, one.compared)
        for why, count in foreign.items():
            self._lose(heard, count, why)
        if unfit:
            self._lose(heard, unfit, "they tell of no decision, or of no usable request")

    def _compare(self, heard: _Heard, one: Told, compared: Compared) -> None:
        """Both answers, on record where they are not the same."""
        heard.compared.append(compared.differs)
        if not compared.differs:
            return
        said = {
            "decision_id": one.own.decision_id,
            "local": compared.local,
            "central": compared.central,
            "listener": one.listener.name,
            "workload": str(one.listener.owner),
        }
        revision = one.stencil.entry.revision
        self._note(heard, {"operation": "local.differs", **said}, revision)
        heard.distrusted.append((one.listener.owner, revision))

    def _lose(self, heard: _Heard, count: int, why: str) -> None:
        """Decisions of the instance are not on record (`count` 0: nobody knows how many)."""
        text = "".join(letter if letter.isprintable() else " " for letter in why[:MAX_WHY])
        said = {"instance": heard.instance, "lost": count, "reason": text}
        self._note(heard, {"operation": "local.gap", **said, "spool": heard.spool, "message": heard.message})
        heard.lost += count

    def _note(self, heard: _Heard, detail: dict[str, Any], revision: str = "") -> None:
        now = self._clock()
        entry = Entry(time=now, kind="operation", decision="error", revision=revision, detail=detail)
        heard.filled.append((self._journal.stencil(entry), Own((now - EPOCH) // MICROSECOND)))
        heard.alarms.append(detail)

    def _say(self, heard: _Heard) -> None:
        """What is on record now counts, and is told where it is an alarm; who is to fall back does."""
        for (decision, revision), count in heard.decided.items():
            self._counts.decided_by_proxy(decision, revision, count)
        for differs in heard.compared:
            self._counts.compared(differs=differs)
        if heard.lost:
            self._counts.local_lost(heard.lost)
        for detail in heard.alarms:
            _log.error(detail["operation"], **{name: one for name, one in detail.items() if name != "operation"})
        for workload, revision in dict.fromkeys(heard.distrusted):
            self._distrust(workload, revision)
