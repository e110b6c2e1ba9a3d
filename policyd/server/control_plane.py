"""One running control plane: its parts, made in the order in which they need one another."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack
from datetime import UTC, datetime
from typing import Final

import structlog

from policyd import __version__
from policyd.authz.ruling import Ruling
from policyd.config.settings import SETTINGS_FILE, Settings, parse_settings
from policyd.environment import Environment, Level
from policyd.home import HOME
from policyd.mesh.tokens import fetched
from policyd.reload.live import Live, shipped_schemas
from policyd.reload.unread import every_problem
from policyd.server import facts, ground, in_force, joining, listen, operating
from policyd.server.control import control_of
from policyd.server.cores import core_of, usable_cores
from policyd.server.deciders import Deciders
from policyd.server.facts import Facts
from policyd.server.federating import Federating
from policyd.server.health import Health
from policyd.server.in_force import InForce
from policyd.server.issuing import issuing
from policyd.server.journal import make_sealer
from policyd.server.key_fetching import KeyFetching
from policyd.server.last_good import LastGood
from policyd.server.link import Setup
from policyd.server.liveness import Liveness
from policyd.server.local_decisions import Rulings
from policyd.server.mesh_port import mesh_port
from policyd.server.publishing import publish
from policyd.server.speech import Speech
from policyd.server.state import ADMIN_SOCKET, Placer, announced, decision_addresses, runs_on
from policyd.sources.files import Folder, UnreadFolder, watch
from policyd.sources.relations import Relations, beside
from policyd.sources.revision_store import RevisionStore
from policyd.sources.shadow import FolderReader
from policyd.state_paths import StatePaths
from policyd.xds.cache import SnapshotCache

LOOK_AFTER_SECONDS: Final = 5.0
_log = structlog.get_logger("policyd.server")


class ControlPlane:
    """The parts of a control plane and how they hang together.

    It ends when `stop` is set; `deciders` is how many processes decide, None for what the settings say. `good` is what
    to begin with where the folder is bad.
    """

    def __init__(
        self,
        read: FolderReader,
        paths: StatePaths,
        stop: asyncio.Event,
        speech: Speech,
        deciders: int | None = None,
        good: LastGood | None = None,
    ) -> None:
        self._read = read
        self._paths = paths
        self._stop = stop
        self._speech = speech
        self._deciders_wanted = deciders
        self._good = good  # until the folder is
        self._started_at = _now()
        self._loop = asyncio.get_running_loop()

    async def start(self, stack: AsyncExitStack, environment: Environment) -> None:
        """Start everything, in the order in which the parts need one another; raises PolicydError.

        What has to be undone is put on `stack`.
        """
        settings = self._first_settings()
        self._ground = ground.laid(
            stack, self._read.directory, self._paths, settings, environment, _now, self._deciders_wanted
        )
        self._read_folder(environment)
        self._say_start()
        self._in_force.begin()
        self._make_authority()
        await self._start_deciding(stack)
        await self._listen(stack)
        stack.enter_context(self._announced())
        await self._live_on(stack)
        _log.info("server.ready", revision=self._in_force.live.ruling.revision, **self._ground.shown())

    def _first_settings(self) -> Settings:
        settings = parse_settings((self._good.folder if self._good else self._first_folder()).text(SETTINGS_FILE) or "")
        HOME.moved(lambda: settings.trust_domain)
        self._speech.speak(settings)
        return settings

    def _first_folder(self) -> Folder:
        try:
            return self._read()
        except UnreadFolder as error:
            created = Relations(self._paths.relations)
            raise every_problem(error, shipped_schemas(), lambda rest: beside(rest, created.text())) from None

    # ---- a change: what is in force, and how it comes to be

    def _read_folder(self, environment: Environment) -> None:
        base, paths = self._ground, self._paths
        ours = [address.port for address in base.addresses.values()]
        self._cache = SnapshotCache()
        self._rulings = Rulings()
        self._revisions = RevisionStore(paths.revisions, _now, retain=base.settings.audit.retain, version=__version__)
        self._liveness = Liveness(
            paths.health,
            clock=time.monotonic,
            metrics=base.metrics,
            revoked=base.stores.revoked,
            lost=base.stores.serials.lost,
        )
        parts = in_force.Parts(
            read=self._read,
            stores=base.stores,
            placer=Placer(paths, ours, resumed=runs_on(paths), picked_from=environment.ports),
            control=control_of(base.settings, decision_addresses(base.addresses)),
            living=self._liveness.applied,
            rulings=self._rulings,
            revisions=self._revisions,
            cache=self._cache,
            metrics=base.metrics,
            record=base.journal.append,
            decide=self._decide_by,
            taken=self._taken,
            clock=_now,
        )
        self._in_force = InForce(parts, self._good)
        self._keeper = self._in_force.keeper

    def _say_start(self) -> None:
        """On record is with what it starts, and why that is not the folder as it is now."""
        good = self._good
        detail = {} if good is None else {"last_good": good.since.isoformat()}
        self._ground.note("server.start", {"version": __version__, **detail})
        if good is not None:
            _log.warning("server.last_good", since=good.since.isoformat(), revision=self._keeper.live.ruling.revision)

    def _decide_by(self, ruling: Ruling) -> None:
        asyncio.run_coroutine_threadsafe(self._deciders.hand_over(ruling), self._loop).result()

    def _taken(self, live: Live) -> None:
        self._good = None
        self._loop.call_soon_threadsafe(self._put_in_force, live)

    def _put_in_force(self, live: Live) -> None:
        level = self._speech.speak(live.settings)
        self._speaking = self._loop.create_task(self._deciders.speak(level))
        self._in_force.show()
        self._ground.changes.announce()
        self._fetching.wake()
        self._federating.want(live.settings.ca.federation)
        self._liveness.wake()

    # ---- an identity: who signs, and whose bundles are believed

    def _make_authority(self) -> None:
        base = self._ground
        self._issuing = issuing(base, self._keeper, self._present)
        self._sealer = make_sealer(self._paths, base.settings.audit, self._issuing.issuer, _now)
        self._federating = Federating(
            base.stores.federation, base.changes.announce, base.note, failing=base.metrics.federated_failing
        )
        self._federating.want(self._keeper.live.settings.ca.federation)

    def _present(self) -> tuple[str, ...]:
        return self._port.agents.connected()

    # ---- a request: the processes that decide

    async def _start_deciding(self, stack: AsyncExitStack) -> None:
        metrics = self._ground.metrics
        self._deciders = Deciders(self._setups(), metrics.slots, self._issuing.own, metrics)
        await self._deciders.start(stack, self._keeper.live.ruling)

    def _setups(self) -> Iterator[Setup]:
        """One for each decision process."""
        base, cores = self._ground, usable_cores()
        for number, address in enumerate(decision_addresses(base.addresses), 1):
            yield Setup(
                name=f"decide-{number}",
                writer=f"decide-{number}",
                number=number,
                address=address,
                paths=self._paths,
                audit=base.settings.audit,
                core=core_of(number, cores),
                log_json=self._speech.as_json,
                log_level=self._speech.of(base.settings),
            )

    # ---- who is answered: proxies and agents, those who join, who looks, and the owner

    async def _listen(self, stack: AsyncExitStack) -> None:
        base, own, at = self._ground, self._issuing.own, self._ground.addresses
        signing = joining.signing(base, self._in_force, self._issuing.issuer)
        self._port = mesh_port(
            base,
            self._in_force,
            self._issuing,
            signing,
            cache=self._cache,
            rulings=self._rulings,
            liveness=self._liveness,
        )
        self._facts = self._make_facts()
        streams = Health(listen.XDS_SERVICES, self._facts.not_ready, _now)
        await listen.serve_xds(stack, self._port, at["xds"], own, streams)
        attestation = joining.attestation(base, self._in_force, self._issuing.issuer)
        await listen.serve_attestation(stack, attestation, at["attestation"], own)
        base.signing.listen(stack.enter_context(ExitStack()), signing, at["signing"], own)
        await stack.enter_async_context(listen.Running(base.signing.look()))
        await publish(stack, base, self._facts, self._issuing, lambda: self._keeper.live.settings)
        await self._serve_owner(stack)
        stack.callback(streams.end)  # before any port closes

    def _make_facts(self) -> Facts:
        base = self._ground
        return Facts(
            facts.Parts(
                keeper=self._keeper,
                journal=base.journal,
                metrics=base.metrics,
                deciders=self._deciders,
                authority=self._issuing.authority,
                liveness=self._liveness,
                agents=self._port.agents,
                discovery=self._port.discovery,
                sealer=self._sealer,
                begun=lambda: str(self._good or ""),
                fetched=lambda: (*base.stores.key_sets.problems(), *base.stores.federation.problems()),
                export=lambda: base.export().trouble,
            )
        )

    async def _serve_owner(self, stack: AsyncExitStack) -> None:
        base, running, made = self._ground, self._in_force, self._issuing
        services = operating.operating(
            base,
            made,
            self._port,
            self._deciders,
            self._facts,
            changes=operating.changes_of(base, running, self._read, self._facts),
            desk=operating.desk_of(base, running, made, self._federating, self._liveness),
            sent=self._cache.get,
            started_at=self._started_at,
            stop=self._stop.set,
            speak=self._speak,
        )
        await listen.serve_admin(stack, services, base.runtime / ADMIN_SOCKET)

    async def _speak(self, asked: Level | None) -> Level:
        """Log from the level on that is asked for, until the server ends; None: from that of the settings."""
        self._speech.asked = asked
        level = self._speech.speak(self._keeper.live.settings)
        await self._deciders.speak(level)
        return level

    def _announced(self) -> AbstractContextManager[None]:
        base = self._ground
        where = {"pid": os.getpid(), "admin_socket": str(base.runtime / ADMIN_SOCKET), **base.shown()}
        return announced(self._paths, where, lambda: bool(self._port.agents.connected()))

    # ---- what goes on while it runs

    async def _live_on(self, stack: AsyncExitStack) -> None:
        """What is fetched, probed, watched and looked after until the end."""
        self._fetching = KeyFetching(
            self._ground.stores.key_sets,
            wanted=lambda: fetched(self._keeper.live.mesh.request_authentications),
            changed=lambda: asyncio.to_thread(self._keeper.look),
            metrics=self._ground.metrics,
        )
        await stack.enter_async_context(listen.Running(self._fetching.run()))
        await stack.enter_async_context(listen.Running(self._federating.run()))
        await stack.enter_async_context(listen.Running(self._liveness.run(self._in_force.mesh, self._living_changed)))
        await stack.enter_async_context(listen.Running(self._watch()))
        await stack.enter_async_context(listen.Running(self._look_after()))

    async def _living_changed(self) -> None:
        await asyncio.to_thread(self._in_force.renew)
        self._in_force.show()

    async def _watch(self) -> None:
        async for _ in watch(self._read.directory, self._stop, self._read.place):
            await asyncio.to_thread(self._keeper.look)

    async def _look_after(self) -> None:
        """What only time brings: the authority's end comes nearer, old records go."""
        base = self._ground
        while True:
            await self._issuing.authority.turn()
            await self._deciders.refresh()
            await asyncio.to_thread(base.stores.write_counts)
            await asyncio.to_thread(base.journal.turn)
            base.metrics.sealed(await asyncio.to_thread(self._sealer.turn), self._sealer.trouble)
            await asyncio.to_thread(self._revisions.expire)
            await asyncio.to_thread(base.journal.trouble)  # notices a journal that was taken away
            if self._keeper.refused:  # perhaps for want of space, or of a port, that has come since
                await asyncio.to_thread(self._keeper.look)
            await asyncio.sleep(LOOK_AFTER_SECONDS)


def _now() -> datetime:
    return datetime.now(UTC)
