"""The conversation on one open stream: requests as they come, and what becomes due, written at the proxy's pace.

Law: a proxy gets the Snapshot of its node, and whether it still may be that node is asked at each change; what to send
is decided by `stream`. All of it but `changed` belongs to the service's event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from policyd.errors import PolicydError, StreamError
from policyd.spiffe import SpiffeId
from policyd.xds import stream, wire
from policyd.xds.cache import SnapshotCache
from policyd.xds.due import Due
from policyd.xds.snapshot import SHORT_NAMES, kind
from policyd.xds.stream import Push, Request, StreamState
from policyd.xds.variants import Said, Variant

Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here
Authorize = Callable[[SpiffeId, str], None]


class Observer(Protocol):
    """Who hears what happens: metrics and logs. `kind` is one of `clusters`, `endpoints` and so on."""

    def pushed(self, node_id: str, kind: str) -> None:
        """A response was sent."""

    def rejected(self, node_id: str, kind: str, text: str) -> None:
        """A proxy rejected one, with this text of its own."""

    def converged(self, seconds: float) -> None:
        """A proxy has confirmed all that a change brought it, so long after the change."""

    def connections(self, count: int) -> None:
        """So many proxies are connected now."""


@dataclass(frozen=True, slots=True)
class Around:
    """What all conversations of a service have in common; `due` tells each one of changes, after a quiet moment."""

    cache: SnapshotCache
    authorize: Authorize
    observer: Observer
    clock: Callable[[], float]
    due: Due[Conversation]


@dataclass(eq=False)
class Conversation:
    """With `peer`, as `node`, `since` a moment of the service's clock; `reading` is the stream's own task."""

    around: Around
    node: wire.Node
    peer: SpiffeId
    since: float
    variant: Variant
    context: Context
    reading: asyncio.Task[Any]
    state: StreamState = field(default_factory=stream.start)
    outbox: deque[Said] = field(default_factory=deque)  # what is to be written
    writing: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None  # of what is to be sent later though nothing happens
    is_due: bool = False  # what changed is to be sent now
    has_left: bool = False
    ended: tuple[grpc.StatusCode, str] | None = None  # by us, and why
    changed_at: float | None = None  # when something changed that it has not answered

    def end(self, why: str, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        """Have the stream ended by its own task."""
        if self.ended is None:
            self.ended = (code, why)
            self.reading.cancel()

    def changed(self, loop: asyncio.AbstractEventLoop) -> None:
        """Something changed for its node; from any thread."""
        if self.changed_at is None:
            self.changed_at = self.around.clock()
        self.around.due.note(self, loop)

    def become_due(self) -> None:
        """Send what changed, once the event loop comes to it."""
        self.is_due = True
        asyncio.get_running_loop().call_soon(self._update)  # each by itself: nobody waits for all

    def leave(self) -> None:
        """It has ended: nothing is sent any more."""
        self.has_left = True
        if self.timer is not None:
            self.timer.cancel()
        self.outbox.clear()

    async def run(self, request: Request | None) -> None:
        """Take requests as they come, the first one as given, until either side ends the stream.

        Changes come without this task. Raises StreamError.
        """
        self._receive(request)
        while (data := await self.context.read()) is not grpc.aio.EOF:
            self._receive(self.variant.read(data)[0])

    def _receive(self, request: Request | None) -> None:
        if request is None:
            return
        if request.type_url not in SHORT_NAMES:
            raise StreamError(f"`{request.type_url[:200]}` is no type that policyd serves")
        answered = stream.answered(self.state, request)
        snapshot = self.around.cache.get(self.node.id)
        self.state, pushes = stream.receive(self.state, request, snapshot, self.around.clock())
        if answered and request.error is not None:
            text = stream.words(answered, request.error)
            self.around.observer.rejected(self.node.id, kind(request.type_url), text)
        self._send(pushes)
        if answered and not pushes:
            self._note_converged(counts=request.error is None)

    def _note_converged(self, *, counts: bool) -> None:
        """Where nothing is on its way to a proxy any more, the last change has arrived, or was refused."""
        waits = self.is_due or self.around.due.awaits(self)
        if self.changed_at is None or waits or any(one.pending for one in self.state.types.values()):
            return
        if counts:
            self.around.observer.converged(self.around.clock() - self.changed_at)
        self.changed_at = None

    def _update(self) -> None:
        """Send what has become due: after a change, a rejection's wait, or a reconnect's grace."""
        if self.ended is not None or self.has_left:
            return
        try:
            if self.is_due:
                self.is_due = False
                self.around.authorize(self.peer, self.node.id)
        except PolicydError as error:
            self.end(error.message, grpc.StatusCode.PERMISSION_DENIED)
            return
        snapshot = self.around.cache.get(self.node.id)
        if snapshot is not None:
            self.state, pushes = stream.update(self.state, snapshot, self.around.clock())
            self._send(pushes)
            if not pushes:  # the change was of no concern to it
                self._note_converged(counts=False)

    def _send(self, pushes: tuple[Push, ...]) -> None:
        """Have it written, and look again when something else is due."""
        loop, now = asyncio.get_running_loop(), self.around.clock()
        self.outbox.extend(map(self.variant.say, pushes))
        if self.outbox and self.writing is None:
            self.writing = loop.create_task(self._write())
        if self.timer is not None:
            self.timer.cancel()
        due = stream.due(self.state, now)
        self.timer = None if due is None else loop.call_later(max(0.0, due - now), self._update)

    async def _write(self) -> None:
        """Pass on what is to be sent, at the proxy's pace."""
        try:
            while self.outbox:
                said = self.outbox.popleft()
                self.around.observer.pushed(self.node.id, kind(said.type_url))
                await self.context.write(self.variant.write(said))
        except grpc.aio.BaseError:  # it has gone, as the task that reads is told too
            self.outbox.clear()
        finally:
            self.writing = None
