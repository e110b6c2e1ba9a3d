"""The way of local decisions from the agent's spools to policyd: batches, each acknowledged before it is forgotten.

Law: what policyd has not acknowledged is sent again, as long as it takes, and in order.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from policyd._pb import agent_pb2
from policyd.errors import PolicydError, StateError
from proxy.backoff import backoff
from proxy.control import Control, Unreachable
from proxy.decided import SPOILED, Decided, Wake
from proxy.outside import Outside
from proxy.spool import MAX_BYTES, Spool

FIRST_WAIT, MOST_WAIT = 0.2, 5.0  # between two attempts
AWAY: Final = 6  # attempts in a row, some seconds: an agent that stood still has to find policyd again
GATHER: Final = 0.1  # seconds for which more may come, once something has: each batch costs policyd a sync
BATCH_BYTES: Final = 1 << 20
LAST_SECONDS: Final = 3.0  # how long an ending agent tries to get rid of the rest
INSTANCE: Final = "instance"


class Forwarding:
    """The spools of all instances of an agent, in `folder`; `run`, endless, in a task, and `finish` once at the end.

    `max_bytes` is a spool's bound.
    """

    def __init__(self, folder: Path, outside: Outside, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._outside = outside
        self._wake = Wake()
        self._all: dict[str, Decided] = {}
        self._reopen()

    def of(self, instance: str) -> Decided:
        """What becomes of an instance's decisions."""
        found = self._all.get(instance)
        if found is None:
            opened = partial(self._opened, instance)
            found = self._all[instance] = Decided(instance, opened, self._outside, self._wake)
        return found

    def waiting(self) -> int:
        """How many frames policyd has not acknowledged."""
        return sum(len(one.spool) for one in self._all.values() if one.spool is not None)

    async def run(self, control: Control) -> None:
        """Send what there is, again and again."""
        failures = 0
        while True:
            try:
                await self._send(control)
                failures = 0
            except (PolicydError, OSError) as error:
                failures += 1
                if failures == 1:
                    self._outside.say("agent.decisions_wait", reason=str(error)[:300], frames=self.waiting())
                if failures == AWAY:
                    for one in self._all.values():
                        one.away = True
                wait = backoff(failures, self._outside.spread(), first=FIRST_WAIT, most=MOST_WAIT)
                await self._outside.sleep(wait)
                continue
            await self._wake.wait()
            await self._outside.sleep(GATHER)

    async def finish(self, control: Control) -> None:
        """Send the rest, for a moment; what stays is sent by the next agent with this folder."""
        for one in self._all.values():
            one.done()
        with suppress(PolicydError, OSError, TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                await self._send(control)
        for one in self._all.values():
            if one.spool is not None:
                one.spool.close()

    async def _send(self, control: Control) -> None:
        """All that there is; what keeps one instance's from being sent is raised once the others' is."""
        failed: PolicydError | OSError | None = None
        for one in tuple(self._all.values()):
            try:
                await self._send_of(one, control)
            except Unreachable:
                raise
            except (PolicydError, OSError) as error:
                failed = failed or error
        if failed is not None:
            raise failed

    async def _send_of(self, one: Decided, control: Control) -> None:
        spool = one.spool
        while spool is not None and len(spool):
            seq, frames = spool.read(BATCH_BYTES)
            if spool.spoiled:
                spool.spoiled = 0
                one.lose(0, SPOILED)
            if frames:
                told = [agent_pb2.Told.FromString(body) for body in frames]
                batch = agent_pb2.Batch(instance=one.instance, spool=spool.name, seq=seq, told=told)
                spool.kept(await control.keep(batch))
                one.away = False

    def _opened(self, instance: str) -> Spool:
        folder = self._folder / hashlib.sha256(instance.encode()).hexdigest()[:16]
        spool = Spool(folder, self._max_bytes)
        for name in spool.foreign:
            self._outside.say("agent.spool_foreign", instance=instance, file=str(folder / name))
        with suppress(OSError):
            (folder / INSTANCE).write_text(instance, "utf-8")
        return spool

    def _reopen(self) -> None:
        """What an earlier agent left."""
        for instance in self._left():
            try:
                self.of(instance).left(self._opened(instance))
            except StateError as error:
                self._outside.say("agent.state_unusable", code=error.code, reason=str(error))

    def _left(self) -> Iterator[str]:
        for file in sorted(self._folder.glob(f"*/{INSTANCE}")):
            with suppress(OSError, UnicodeDecodeError):
                yield file.read_text("utf-8")
