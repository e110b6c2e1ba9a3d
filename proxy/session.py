"""What an agent does once it is somebody: renew itself, watch what it is to run, apply it.

Law: what policyd said last stays in force while policyd is away. A new identity or bundle means a new connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from policyd import __version__
from policyd._pb import agent_pb2
from policyd.envoy_api import ENVOY_VERSION
from policyd.errors import PolicydError, StateError
from proxy.application_page import PagePlace
from proxy.assignment import Assigned, assigned_of
from proxy.backoff import backoff
from proxy.book import Book
from proxy.control import Control, Holding
from proxy.dns.server import Resolver
from proxy.events import stamp
from proxy.fleet import Fleet
from proxy.identity import Bundle, Svid
from proxy.inspections import Inspections
from proxy.join import Joined, come_back
from proxy.outside import Outside
from proxy.probes import Probes
from proxy.renew import keep_fresh, obtain
from proxy.sidecar import Running
from proxy.speech import AS_STARTED, Wanted
from proxy.state import StateFolder
from proxy.tainted import serials, signers

FIRST_WAIT, MOST_WAIT = 0.1, 5.0  # between two attempts to reach policyd
LOOK_EVERY = 5.0  # seconds, where nothing says that what is held has changed
TELL_PAUSE = 0.05


class Session:
    """Run `renew`, `watch`, `work` and `tell`, all endless, in tasks; `changed` is called when `status` did."""

    def __init__(
        self, joined: Joined, state: StateFolder | None, control: Control, fleet: Fleet, probes: Probes, book: Book,
        resolver: Resolver, outside: Outside, changed: Callable[[], None],
        speak: Callable[[Wanted], None] = lambda levels: None,
    ) -> None:  # fmt: skip
        self._joined = joined
        self._state = state
        self._control = control
        self._fleet = fleet
        self._probes = probes
        self._book = book
        self._resolver = resolver
        self._outside = outside
        self._changed = changed
        self._speak = speak
        self._levels = AS_STARTED
        self._wanted: asyncio.Queue[Assigned] = asyncio.Queue(maxsize=1)
        self._reconnect = asyncio.Event()
        self._connected = False
        self._told: Holding | None = None
        self._news = asyncio.Event()
        self.pages: tuple[PagePlace, ...] = ()  # where applications show their metrics
        control.use(joined.svid, joined.bundle)

    async def renew(self) -> None:
        """Keep the agent's own SVID fresh."""
        svid = self._joined.svid
        await keep_fresh(svid.id, svid, self._obtain, self._renewed, self._outside, self._control.tainted)

    async def _obtain(self) -> tuple[Svid, Bundle]:
        """The agent's own next SVID: by the one that it has, and once that has ended by its key alone."""
        now = self._outside.clock()
        if now < self._joined.svid.not_after:
            return await obtain(self._control, self._joined.svid.id, self._outside.clock)
        back = await come_back(self._joined, now)
        self._outside.say("agent.came_back", spiffe_id=str(back.svid.id), expires=stamp(back.svid.not_after))
        return back.svid, back.bundle

    async def watch(self) -> None:
        """Hear what is to run, over one connection after another."""
        failures = 0
        while True:
            self._reconnect.clear()
            listening = asyncio.create_task(self._listen())
            answering = asyncio.create_task(Inspections(self._control, self._fleet.admin, self._outside).run())
            replaced = asyncio.create_task(self._reconnect.wait())
            try:
                await asyncio.wait((listening, replaced), return_when=asyncio.FIRST_COMPLETED)
                error = listening.exception() if listening.done() else None
            finally:
                for task in (listening, answering, replaced):
                    task.cancel()
            failures = 0 if self._connected else failures
            if error is not None:
                failures += 1
                await self._pause(error, failures)

    async def work(self) -> None:
        """Apply the newest assignment, again and again."""
        while True:
            assigned = await self._wanted.get()
            self._hear_levels(assigned.levels)
            self._trust(assigned.bundle, assigned.federated, assigned.crls)
            self._control.tainted.hear(assigned.tainted, serials(assigned.crls))
            self._book.hear(assigned.registered, assigned.bundle, assigned.federated, assigned.tainted, assigned.crls)
            self._control.sign_at(assigned.signing)
            self._outside.say("agent.assigned", instances=[spec.instance for spec in assigned.sidecars])
            self._probes.apply(assigned.probes)
            self.pages = assigned.pages
            await self._resolver.serve(assigned.captured)
            await self._fleet.apply(Running(spec, assigned.xds, assigned.server) for spec in assigned.sidecars)

    def _hear_levels(self, levels: Wanted) -> None:
        """Say so much from now on, and that it is so, if it is news."""
        if levels != self._levels:
            self._levels = levels
            self._outside.say("agent.speaks", agent=levels.agent, envoys=levels.envoys)
            self._speak(levels)

    async def tell(self) -> None:
        """Tell policyd what is held, soon after it changed and after each new connection."""
        failures = 0
        while True:
            await self._some_news()
            holding = self._holding()
            if not self._connected or holding == self._told:
                continue
            try:
                await self._control.hold(holding)
            except PolicydError:
                failures += 1
                await self._outside.sleep(backoff(failures, self._outside.spread(), first=FIRST_WAIT, most=MOST_WAIT))
                self._news.set()
            else:
                failures, self._told = 0, holding
                self._outside.say("agent.tells", sequence=holding.sequence, behind=holding.behind)

    def look(self) -> None:
        """Something has changed of what is held."""
        self._news.set()

    @property
    def connected(self) -> bool:
        """Whether policyd is there."""
        return self._connected

    def status(self) -> dict[str, Any]:
        """The agent itself, as status.json shows it."""
        svid = self._joined.svid
        return {
            "spiffe_id": str(svid.id),
            "svid_expires": stamp(svid.not_after),
            "server": self._control.address,
            "connected": self._connected,
            "version": __version__,
            "envoy_version": ENVOY_VERSION,
        }

    async def _some_news(self) -> None:
        """Wait for a change, or look by oneself; changes that come together are told together."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY):
                await self._news.wait()
        await asyncio.sleep(TELL_PAUSE)
        self._news.clear()

    def _holding(self) -> Holding:
        sequence = self._joined.bundle.sequence
        used = signers(self._joined.svid) | self._fleet.signers() | self._book.signers()
        return Holding(sequence, self._fleet.behind(sequence), used)

    async def _listen(self) -> None:
        async for message in self._control.watch(__version__, ENVOY_VERSION):
            self._hear(message)

    async def _pause(self, error: BaseException, failures: int) -> None:
        if not isinstance(error, PolicydError):
            raise error
        wait = backoff(failures, self._outside.spread(), first=FIRST_WAIT, most=MOST_WAIT)
        self._connected = False
        self._outside.say("agent.disconnected", code=error.code, reason=str(error), again_in=round(wait, 2))
        self._changed()
        await self._outside.sleep(wait)

    def _hear(self, message: agent_pb2.Assignment) -> None:
        if not self._connected:
            self._connected, self._told = True, None
            self._news.set()
            self._outside.say("agent.connected", server=self._control.address)
            self._changed()
        try:
            assigned = assigned_of(message, self._joined.svid.id.trust_domain)
        except PolicydError as error:
            self._outside.say("agent.assignment_refused", code=error.code, reason=str(error))
            return
        if self._wanted.full():
            self._wanted.get_nowait()  # only the newest counts
        self._wanted.put_nowait(assigned)

    def _renewed(self, svid: Svid, bundle: Bundle) -> None:
        self._become(svid, bundle)
        self._outside.say("agent.renewed", spiffe_id=str(svid.id), expires=stamp(svid.not_after))

    def _trust(self, bundle: Bundle, federated: tuple[Bundle, ...], crls: tuple[bytes, ...]) -> None:
        if bundle.sequence > self._joined.bundle.sequence:
            self._become(self._joined.svid, bundle)
            self._outside.say("agent.bundle", sequence=bundle.sequence, roots=len(bundle.roots))
        self._fleet.trust(bundle, federated, crls)

    def _become(self, svid: Svid, bundle: Bundle) -> None:
        """Take a new SVID or bundle into use: on disk, then on a new connection."""
        newest = max(bundle, self._joined.bundle, key=lambda each: each.sequence)
        self._joined = replace(self._joined, svid=svid, bundle=newest)
        if self._state is not None:
            try:
                self._state.save(self._joined)
            except StateError as error:
                self._outside.say("agent.state_unusable", code=error.code, reason=str(error))
        self._control.use(svid, newest)
        self._reconnect.set()
        self._changed()
