"""The agent: becomes somebody, runs its session until it is stopped, and cleans up.

Law: however `run` ends, no Envoy and no runtime file is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from policyd.envoy_api import EnvoyApi
from proxy.asking import asking
from proxy.book import Book
from proxy.control import Control
from proxy.dns.server import Resolver
from proxy.entry import Entry, enter
from proxy.events import write_status
from proxy.fleet import Fleet
from proxy.forwarding import Forwarding
from proxy.fullness import fullness
from proxy.join import Joined
from proxy.leaving import Leaving
from proxy.memory import give_back
from proxy.outside import Outside
from proxy.probes import Probes
from proxy.scrape import MetricsServer, Where, collect
from proxy.series import series
from proxy.session import Session
from proxy.sidecar import Settings
from proxy.speech import USUAL, Speech, Wanted
from proxy.tally import Tally
from proxy.workload_server import SOCKET, Place, WorkloadServer

STATUS_FILE = "status.json"
SPOOLS = "decisions"
STATUS_PAUSE = 0.05  # seconds; changes that come together are written together
QUIET = 3.0  # seconds without a change, after which memory is given back


class Agent:
    """Call `run` once; `stop` ends it with draining, called twice at once."""

    def __init__(
        self,
        entry: Entry,
        settings: Settings,
        api: EnvoyApi,
        outside: Outside,
        metrics: Where,
        place: Place | None = None,
        speech: Speech | None = None,
    ) -> None:
        self._entry = entry
        self._where = metrics
        self._metrics = MetricsServer(self._page)
        self._place = place or Place(settings.runtime / SOCKET, settings.runtime)
        self._settings = settings
        self._api = api
        self._outside = outside
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self._status_due: asyncio.TimerHandle | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._session: Session | None = None
        self._fleet: Fleet | None = None
        self._leaving: Leaving | None = None
        self._book = Book(outside)
        self._speech = speech

    def stop(self) -> None:
        """End every Envoy, then `run`."""
        if self._stopping.is_set() and self._fleet is not None:
            self._fleet.stop()
        self._stopping.set()

    async def run(self) -> None:
        """Return when stopped; raises PolicydError when the agent is nobody."""
        book = self._book
        workloads = WorkloadServer(self._place, book, self._outside, self._api)
        try:
            await workloads.start()  # who asks before anybody is known is told to try again
            joined = await self._enter()
            if joined is not None:
                await self._work(joined, book)
        finally:
            await workloads.stop()
        if self._failure is not None:
            raise self._failure

    async def _work(self, joined: Joined, book: Book) -> None:
        """Be `joined` until stopped."""
        control = Control(joined.server)
        book.use(control)
        forwarding = Forwarding(self._spools(), self._outside)
        fleet = self._fleet = Fleet(self._settings, control, self._api, self._outside, self._changed, forwarding.of)
        probes = Probes(asking(commands=self._settings.probe_commands), control.report, self._outside)
        resolver = Resolver(self._outside.say, self._settings.resolv_conf)
        session = self._session = Session(
            joined, self._entry.state, control, fleet, probes, book, resolver, self._outside, self._changed, self._speak
        )
        leaving = self._leaving = Leaving(control.leave, self._outside)
        growing = (
            series(fleet.status, self._outside.say),
            fullness(fleet.status, self._outside.say, self._settings.memory),
        )
        bound = await self._metrics.start(self._where)
        self._outside.say("agent.metrics", address=str(bound))
        tasks = [
            self._guarded(work)
            for work in (
                session.renew(),
                session.watch(),
                session.work(),
                session.tell(),
                probes.report(),
                leaving.run(),
                *(each.watch(self._outside.sleep) for each in growing),
                forwarding.run(control),
                Tally(fleet.deciding, self._outside).run(),
            )
        ]
        self._changed()
        try:
            await self._stopping.wait()
            await leaving.leave()
        finally:
            await probes.end()
            await self._metrics.stop()
            try:
                await self._end(tasks, fleet, control, forwarding)
            finally:
                await resolver.end()  # what is under way until then looks up names

    async def _enter(self) -> Joined | None:
        """Who this agent is; None when it was stopped before it knew."""
        entering = asyncio.ensure_future(enter(self._entry, self._outside))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((entering, stopping), return_when=asyncio.FIRST_COMPLETED)
            return entering.result() if entering.done() else None
        finally:
            entering.cancel()
            stopping.cancel()

    def _guarded(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task whose unforeseen end is the agent's end."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._look_at)
        return task

    def _look_at(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failure = failure
            self._stopping.set()

    def _spools(self) -> Path:
        """Where decisions wait for policyd; without a folder of the agent's own they end with it."""
        state = self._entry.state
        return (state.folder if state is not None else self._settings.runtime) / SPOOLS

    async def _end(
        self, tasks: list[asyncio.Task[None]], fleet: Fleet, control: Control, forwarding: Forwarding
    ) -> None:
        self._outside.say("agent.stopping")
        fleet.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await fleet.end()
        await forwarding.finish(control)
        await control.close()
        for timer in (self._status_due, self._quiet):
            if timer is not None:
                timer.cancel()
        self._session = None
        (self._settings.runtime / STATUS_FILE).unlink(missing_ok=True)
        self._outside.say("agent.stopped")

    def _speak(self, levels: Wanted) -> None:
        """Say so much from now on."""
        if self._speech is not None:
            self._speech.level = levels.agent or USUAL
        if self._fleet is not None:
            self._fleet.speak(levels.envoys)

    def _changed(self) -> None:
        loop = asyncio.get_running_loop()
        if self._session is not None:
            self._session.look()
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = loop.call_later(QUIET, give_back)
        if self._fleet is not None and self._leaving is not None:
            # an application without an Envoy goes on serving while its agent is away
            self._leaving.look(one for one in self._fleet.status() if not one.grpc_bootstrap)
        if self._status_due is None:
            self._status_due = loop.call_later(STATUS_PAUSE, self._write_status)

    async def _page(self, everything: bool) -> str:
        """What Prometheus is told."""
        self._outside.say("agent.collected", everything=everything)
        session, fleet = self._session, self._fleet
        sidecars = fleet.status() if fleet else []
        connected, pages = (session.connected, session.pages) if session is not None else (False, ())
        return await collect(
            sidecars, connected=connected, everything=everything, pages=pages, workloads=self._book.expiries()
        )

    def _write_status(self) -> None:
        self._status_due = None
        if self._session is None or self._fleet is None:
            return
        sidecars = [asdict(each) for each in self._fleet.status()]
        agent = {**self._session.status(), "metrics": str(self._metrics.address)}
        with suppress(OSError):  # nothing that is served depends on this file
            write_status(self._settings.runtime / STATUS_FILE, agent, sidecars)
