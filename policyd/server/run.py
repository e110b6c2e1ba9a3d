"""One running control plane, from its start to its end."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from policyd import __version__
from policyd.admin.facts import ADDRESSES, Addresses
from policyd.admin.mesh import MeshDesk, MeshParts
from policyd.admin.parts import Parts as AdminParts
from policyd.admin.policies import applied
from policyd.admin.service import AdminService
from policyd.amend import Amender
from policyd.audit.group import Waiting
from policyd.audit.operations import operation
from policyd.audit.record import Entry
from policyd.authz.record import Include
from policyd.authz.ruling import Ruling
from policyd.ca import rotation_desk
from policyd.ca.changes import Changes
from policyd.ca.desk.parts import Parts as DeskParts
from policyd.ca.desk.service import Desk
from policyd.ca.possession import Challenges
from policyd.ca.rotator import Step
from policyd.ca.server_identity import ServerIdentity
from policyd.ca.serving.agents import AgentsService
from policyd.ca.serving.attestation import AttestationService
from policyd.ca.serving.levels import Levels
from policyd.ca.serving.proving import Proving
from policyd.ca.serving.signing import Signing
from policyd.config.settings import SETTINGS_FILE, Settings, parse_settings
from policyd.environment import PASSPHRASE, Environment, Level
from policyd.errors import IdentityError, PolicydError, StateError
from policyd.home import HOME
from policyd.mesh.placement import assumed
from policyd.mesh.tokens import fetched
from policyd.reload import Live, load, shipped_schemas
from policyd.server import authority, facts, in_force, issuing, listen
from policyd.server import deciders as processes
from policyd.server.authority import Authority
from policyd.server.bundle_endpoint import BundleEndpoint, endpoint_identity
from policyd.server.control import control_of
from policyd.server.deciders import Deciders, core_of
from policyd.server.evidence import Believed
from policyd.server.exporting import exporting
from policyd.server.facts import Facts
from policyd.server.federating import Federating
from policyd.server.health import Health
from policyd.server.in_force import InForce
from policyd.server.journal import make_sealer, open_journal
from policyd.server.key_fetching import KeyFetching
from policyd.server.last_good import LastGood, started
from policyd.server.link import Setup
from policyd.server.liveness import Liveness
from policyd.server.local_decisions import LocalDecisions, Rulings
from policyd.server.pausing_tasks import PausingTasks
from policyd.server.push_log import PushLog
from policyd.server.refused_tokens import RefusedTokens
from policyd.server.revoked_lists import RevokedLists
from policyd.server.signing import LINGER_SECONDS, SigningServer
from policyd.server.state import (
    ADMIN_SOCKET,
    Placer,
    choose_ports,
    decision_addresses,
    exclusively,
    runtime_folder,
)
from policyd.server.stores import open_stores
from policyd.server.transport import GRPC
from policyd.sources.files import Folder, watch
from policyd.sources.revision_store import RevisionStore
from policyd.sources.shadow import FolderReader
from policyd.sources.state import prepare_state, write_private
from policyd.spiffe import SpiffeId
from policyd.state_paths import StatePaths
from policyd.svid import bundle, oidc
from policyd.telemetry.http import serve_http
from policyd.telemetry.logs import configure_logs
from policyd.telemetry.metrics import Metrics
from policyd.telemetry.service import TracesService
from policyd.telemetry.traces_window import Window
from policyd.xds.cache import SnapshotCache
from policyd.xds.inspection.service import InspectionsService
from policyd.xds.resources.model import Control
from policyd.xds.service import DiscoveryService, peer_of

LOOK_AFTER_SECONDS: Final = 5.0
LED_SECONDS: Final = 1.5  # an agent that is to end waits no longer for callers' Envoys
LED_LOOK: Final = 0.01
ROLE: Final = "serve"  # in the name of the journal's writer
_log = structlog.get_logger("policyd.server")


def main(
    directory: Path,
    environment: Environment,
    *,
    log_json: bool = False,
    shadow: Path | None = None,
    deciders: int | None = None,
) -> None:
    """Serve `directory` until SIGTERM or SIGINT; raises PolicydError where it cannot start.

    `shadow` is a folder of policies to try beside its own, `deciders` how many processes decide.
    """

    def speak(level: Level) -> None:
        configure_logs(json_lines=log_json or None, level=level)

    speak(environment.log_level or "info")
    os.environ.pop(PASSPHRASE, None)  # nobody whom we start needs it
    os.environ.update(GRPC)
    paths = prepare_state(directory, os.getuid())
    with exclusively(paths):
        speech = Speech(speak, log_json or None, environment.log_level)
        asyncio.run(_serve(FolderReader(directory, shadow), paths, environment, speech, deciders))


async def _serve(
    read: FolderReader, paths: StatePaths, environment: Environment, speech: Speech, deciders: int | None
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def make(good: LastGood | None) -> Server:
        return Server(read, paths, stop, speech, deciders, good)

    async with AsyncExitStack() as stack:
        await started(stack, make, read.directory, paths, environment)
        await stop.wait()
        _log.info("server.stopping")


@dataclass(frozen=True, slots=True)
class Speech:
    """How the processes of a server log: `level` sets that of this one, `as_json` is for the others.

    `asked` wins over the settings, until somebody asks for another.
    """

    level: Callable[[Level], None]
    as_json: bool | None = None
    asked: Level | None = None


class Server:
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
        self._directory = read.directory
        self._deciders_wanted = deciders
        self._cores = processes.cores()
        self._paths = paths
        self._stop = stop
        self._speech = speech
        self._asked_level = speech.asked
        self._good = good  # until the folder is
        self._started_at = _now()
        self._cache = SnapshotCache()
        self._changes = Changes()
        self._levels = Levels(self._changes.announce)
        self._loop = asyncio.get_running_loop()

    async def start(self, stack: AsyncExitStack, environment: Environment) -> None:
        """Start everything, in the order in which the parts need one another; raises PolicydError.

        What has to be undone is put on `stack`.
        """
        settings = parse_settings((self._good.folder if self._good else self._read()).text(SETTINGS_FILE) or "")
        HOME.moved(lambda: settings.trust_domain)
        self._speech.level(self._asked_level or settings.log.level)
        self._runtime = stack.enter_context(runtime_folder(self._directory, environment))
        self._passphrase = issuing.passphrase_of(self._directory, settings, environment)
        self._opened = issuing.open_folders_authority(self._directory, self._paths, settings, self._passphrase, _now)
        self._jwt_keys = issuing.open_jwt_keys(self._paths, self._passphrase, _now)
        self._count = self._deciders_wanted or settings.workers or processes.default_count(len(self._cores))
        self._metrics = Metrics(1 + self._count)
        self._open_journal(stack, settings)
        self._stores = open_stores(stack.enter_context(ExitStack()), self._paths)
        self._read_first(settings, environment)
        self._say_start()
        self._in_force.begin()
        self._make_authority(settings)
        self._federating = Federating(
            self._stores.federation, self._changes.announce, self._note, failing=self._metrics.federated_failing
        )
        self._federating.want(self._keeper.live.settings.ca.federation)
        await self._listen(stack, settings)
        stack.enter_context(self._announced())
        self._fetching = KeyFetching(
            self._stores.key_sets,
            wanted=lambda: fetched(self._keeper.live.mesh.request_authentications),
            changed=lambda: asyncio.to_thread(self._keeper.look),
            metrics=self._metrics,
        )
        await stack.enter_async_context(listen.Running(self._fetching.run()))
        await stack.enter_async_context(listen.Running(self._federating.run()))
        await stack.enter_async_context(listen.Running(self._liveness.run(self._in_force.mesh, self._living_changed)))
        await stack.enter_async_context(listen.Running(self._watch()))
        await stack.enter_async_context(listen.Running(self._look_after()))
        _log.info("server.ready", revision=self._keeper.live.ruling.revision, **self._shown())

    # ---- what is opened and made

    def _open_journal(self, stack: AsyncExitStack, settings: Settings) -> None:
        threads = stack.enter_context(ExitStack())
        self._signing = SigningServer(threads)
        waiting = Waiting(self._signing.pause, LINGER_SECONDS)
        self._journal = stack.enter_context(
            open_journal(self._paths, ROLE, settings.audit, _now, self._metrics, waiting)
        )
        self._signing.records_in(self._journal)
        export, journal = settings.audit.export, self._paths.journal
        self._export_health = stack.enter_context(
            exporting(export, journal, self._directory, __version__, _now, self._metrics)
        )

    def _read_first(self, settings: Settings, environment: Environment) -> None:
        stores, paths = self._stores, self._paths
        self._addresses = choose_ports(
            paths, settings.listen, self._count, settings.ca.bundle_endpoint, picked_from=environment.ports
        )
        # what ran may run on: after a crash (server.json is left), and where agents saw the orderly end.
        # `policyd up` removes both before its first start: nothing of it runs then
        runs_on = paths.server.exists() or paths.left.exists()
        ours = [address.port for address in self._addresses.values()]
        self._liveness = Liveness(
            paths.health,
            clock=time.monotonic,
            metrics=self._metrics,
            revoked=stores.revoked,
            lost=stores.serials.lost,
        )
        self._rulings = Rulings()
        self._revisions = RevisionStore(paths.revisions, _now, retain=settings.audit.retain, version=__version__)
        parts = in_force.Parts(
            read=self._read,
            stores=stores,
            placer=Placer(paths, ours, resumed=runs_on, picked_from=environment.ports),
            control=control_of(settings, decision_addresses(self._addresses)),
            living=self._liveness.applied,
            rulings=self._rulings,
            revisions=self._revisions,
            cache=self._cache,
            metrics=self._metrics,
            record=self._journal.append,
            decide=self._decide_by,
            taken=self._taken,
            clock=_now,
        )
        self._in_force = InForce(parts, self._good)
        self._keeper = self._in_force.keeper

    def _make_authority(self, settings: Settings) -> None:
        self._issuer = issuing.make_issuer(
            self._opened,
            self._jwt_keys,
            self._keeper,
            self._journal,
            _now,
            issued=self._issued,
            revoked=self._stores.revocations.holds,
            revoked_serial=self._stores.serials.holds,
            refused=self._metrics.refused,
        )
        self._rotator = issuing.make_rotator(
            self._opened,
            self._issuer,
            self._paths,
            self._passphrase,
            self._jwt_keys,
            keeper=self._keeper,
            journal=self._journal,
            clock=_now,
            present=self._present,
            holdings=self._stores.holdings.all,
            changed=lambda: self._loop.call_soon_threadsafe(self._authority.changed),
        )
        self._authority = Authority(
            authority.Parts(
                issuer=self._issuer,
                rotator=self._rotator,
                jwt_keys=self._jwt_keys,
                lists=RevokedLists(self._stores.serials.all, _now),
                metrics=self._metrics,
                settings=lambda: self._keeper.live.settings.ca,
                upstream=lambda: issuing.upstream_of(self._directory, self._keeper.live.settings),
                passphrase=self._passphrase,
                credentials=lambda: self._in_force.mesh().credentials,
                present=self._present,
                seen=self._stores.holdings.seen,
                announce=self._changes.announce,
                note=self._note,
                clock=_now,
            )
        )
        self._sealer = make_sealer(self._paths, settings.audit, self._issuer, _now)

    def _make_facts(self) -> Facts:
        return Facts(
            facts.Parts(
                keeper=self._keeper,
                journal=self._journal,
                metrics=self._metrics,
                deciders=self._deciders,
                authority=self._authority,
                liveness=self._liveness,
                agents=self._agents,
                discovery=self._discovery,
                sealer=self._sealer,
                begun=lambda: str(self._good or ""),
                fetched=lambda: (*self._stores.key_sets.problems(), *self._stores.federation.problems()),
                export=lambda: self._export_health().trouble,
            )
        )

    def _say_start(self) -> None:
        """On record is with what it starts, and why that is not the folder as it is now."""
        good = self._good
        detail = {} if good is None else {"last_good": good.since.isoformat()}
        self._note("server.start", {"version": __version__, **detail})
        if good is not None:
            _log.warning("server.last_good", since=good.since.isoformat(), revision=self._keeper.live.ruling.revision)

    async def _listen(self, stack: AsyncExitStack, settings: Settings) -> None:
        identity = ServerIdentity(self._issuer, _now, self._renewal_failed)
        self._deciders = Deciders(self._setups(settings), self._metrics.slots, identity, self._metrics)
        await self._deciders.start(stack, self._keeper.live.ruling)
        self._discovery = DiscoveryService(
            self._cache, self._authorize_proxy, PushLog(self._metrics), clock=time.monotonic, wall=time.time
        )
        signing = Signing(
            self._issuer,
            self._stores.tokens,
            mesh=self._in_force.mesh,
            clock=time.monotonic,
            wall=_now,
            entries=self._stores.entries.all,
        )
        self._agents = self._make_agents(signing)
        self._facts = self._make_facts()
        streams = Health(listen.XDS_SERVICES, self._facts.not_ready, _now)
        await self._serve_streams(stack, settings, identity, streams)
        await listen.serve_attestation(stack, self._make_attestation(), self._addresses["attestation"], identity)
        self._signing.listen(stack.enter_context(ExitStack()), signing, self._addresses["signing"], identity)
        await stack.enter_async_context(listen.Running(self._signing.look()))
        await self._serve_http(stack, settings, identity)
        await self._serve_admin(stack)
        stack.callback(streams.end)  # before any port closes

    def _make_agents(self, signing: Signing) -> AgentsService:
        return AgentsService(
            signing,
            self._stores.tokens,
            mesh=self._in_force.mesh,
            changes=self._changes,
            xds_address=str(self._addresses["xds"]),
            signing_address=listen.signing_address(self._addresses),
            clock=time.monotonic,
            wall=_now,
            hear=self._liveness.hear,
            turn=self._lead,
            run=PausingTasks(self._loop).run,
            federated=self._stores.federation.bundles,
            hold=self._stores.holdings.hear,
            tainted=lambda: self._rotator.held.tainted,
            crls=self._authority.published_lists,
            levels=self._levels.of,
        )

    def _make_attestation(self) -> AttestationService:
        return AttestationService(
            self._issuer,
            self._stores.tokens,
            agents_address=str(self._addresses["xds"]),
            clock=time.monotonic,
            within=self._come_back_within,
            proving=Proving(
                self._issuer,
                mesh=self._in_force.mesh,
                entries=self._stores.entries.all,
                evidences=Believed(lambda: self._keeper.live.settings.ca.evidence, self._directory, time.monotonic),
                challenges=Challenges(secrets.token_bytes),
            ),
            beside=asyncio.to_thread,
        )

    async def _serve_streams(
        self, stack: AsyncExitStack, settings: Settings, identity: ServerIdentity, streams: Health
    ) -> None:
        """The port of proxies and agents: configuration, certificates, and what they tell of requests."""
        self._inspections = InspectionsService(self._agents.admit)
        self._window = Window(settings.tracing.window)
        self._metrics.window(self._window.fill())
        traces = TracesService(self._window, self._served_by, self._metrics, peer=peer_of, clock=time.monotonic)
        refused = RefusedTokens(self._in_force.mesh_and_revision, self._keep_entry, clock=time.monotonic, wall=_now)
        include = settings.audit.include
        decisions = LocalDecisions(
            self._agents.runs,
            in_force=self._in_force.mesh_and_revision,
            rulings=self._rulings,
            positions=self._stores.positions,
            journal=self._journal,
            counts=self._metrics,
            clock=_now,
            distrust=self._distrusts,
            include=Include(frozenset(include.headers), frozenset(include.claims)),
        )
        await listen.serve_xds(
            stack,
            self._discovery,
            self._agents,
            self._inspections,
            traces,
            refused,
            decisions,
            self._addresses["xds"],
            identity,
            streams,
        )

    async def _serve_http(self, stack: AsyncExitStack, settings: Settings, identity: ServerIdentity) -> None:
        """Readiness and metrics, and the bundle where others may fetch it."""
        at, known = self._addresses, self._facts
        http = serve_http(at["http"], registry=self._metrics.registry, not_ready=known.not_ready, remark=known.remark)
        await stack.enter_async_context(http)
        if settings.ca.bundle_endpoint is not None:
            shown = endpoint_identity(settings.ca.bundle_endpoint, self._directory, identity)
            await stack.enter_async_context(BundleEndpoint(at["bundles"], self._published, shown))

    def _setups(self, settings: Settings) -> Iterator[Setup]:
        """One for each decision process."""
        for number, address in enumerate(decision_addresses(self._addresses), 1):
            yield Setup(
                name=f"decide-{number}",
                writer=f"decide-{number}",
                number=number,
                address=address,
                paths=self._paths,
                audit=settings.audit,
                core=core_of(number, self._cores),
                log_json=self._speech.as_json,
                log_level=self._asked_level or settings.log.level,
            )

    async def _serve_admin(self, stack: AsyncExitStack) -> None:
        shown = self._shown()
        changes = MeshParts(
            live=lambda: self._keeper.live,
            refused=lambda: self._keeper.refused,
            amender=Amender(self._directory, self._read, _checked),
            change=self._keeper.change,
            record=self._journal.append,
            now=_now,
            proxies=self._facts.proxies,
        )
        parts = AdminParts(
            facts=self._facts,
            addresses=Addresses(**{name: shown[name] for name in ADDRESSES}),
            issuer=self._issuer,
            tokens=self._stores.tokens,
            ledger=self._stores.ledger,
            record=self._journal.append,
            random=secrets.token_bytes,
            started_at=self._started_at,
            stop=self._stop.set,
            restart=self._deciders.restart,
            inspect=self._inspections.ask,
            mesh=MeshDesk(changes),
            policies=lambda request: applied(request, changes),
            sent=self._cache.get,
            window=self._window,
            speak=self._speak,
            levels=self._levels,
        )
        rotation = rotation_desk.RotationDesk(self._rotator, self._rotate)
        service, desk = AdminService(parts), Desk(self._desk())
        await listen.serve_admin(stack, service, desk, rotation, self._runtime / ADMIN_SOCKET)

    def _desk(self) -> DeskParts:
        return DeskParts(
            issuer=self._issuer,
            entries=self._stores.entries,
            tokens=self._stores.tokens,
            ledger=self._stores.ledger,
            elements=self._authority.elements,
            mesh=lambda: self._keeper.live.mesh,
            record=self._journal.append,
            changed=self._changes.announce,
            revocations=self._stores.revocations,
            enforce=self._enforce_revocations,
            random=secrets.token_bytes,
            uid=os.getuid(),
            federation=self._federating,
            relations=self._stores.relations,
            serials=self._stores.serials,
            crls=self._authority.published_lists,
            looks_at_serials=self._authority.looks_at_serials,
        )

    @contextmanager
    def _announced(self) -> Iterator[None]:
        """server.json says where the server is for as long as it is there."""
        facts = {"pid": os.getpid(), "admin_socket": str(self._runtime / ADMIN_SOCKET), **self._shown()}
        try:
            write_private(self._paths.server, json.dumps(facts).encode())
        except OSError as error:
            message = f"`{self._paths.server}` cannot be written: {error.strerror}"
            raise StateError(message, remedy="check the disk and the owner") from None
        try:
            yield
        finally:
            if self._agents.connected():
                with suppress(OSError):  # then the next start finds their ports taken, and says so
                    self._paths.left.touch(mode=0o600)
            self._paths.server.unlink(missing_ok=True)

    def _shown(self) -> dict[str, str]:
        return {name: str(address) for name, address in self._addresses.items()}

    # ---- what happens

    async def _watch(self) -> None:
        async for _ in watch(self._directory, self._stop, self._read.place):
            await asyncio.to_thread(self._keeper.look)

    async def _look_after(self) -> None:
        """What only time brings: the authority's end comes nearer, old records go."""
        while True:
            await self._authority.turn()
            await self._deciders.refresh()
            await asyncio.to_thread(self._stores.write_counts)
            await asyncio.to_thread(self._journal.turn)
            self._metrics.sealed(await asyncio.to_thread(self._sealer.turn), self._sealer.trouble)
            await asyncio.to_thread(self._revisions.expire)
            await asyncio.to_thread(self._journal.trouble)  # notices a journal that was taken away
            if self._keeper.refused:  # perhaps for want of space, or of a port, that has come since
                await asyncio.to_thread(self._keeper.look)
            await asyncio.sleep(LOOK_AFTER_SECONDS)

    def _present(self) -> tuple[str, ...]:
        return self._agents.connected()

    async def _rotate(self, step: Step) -> None:
        await self._authority.do(step)
        await self._deciders.refresh()

    async def _keep_entry(self, entry: Entry) -> object:
        return await PausingTasks(self._loop).run(partial(self._journal.append, entry))

    def _decide_by(self, ruling: Ruling) -> None:
        asyncio.run_coroutine_threadsafe(self._deciders.hand_over(ruling), self._loop).result()

    def _taken(self, live: Live) -> None:
        self._good = None
        self._loop.call_soon_threadsafe(self._put_in_force, live)

    def _put_in_force(self, live: Live) -> None:
        level = self._asked_level or live.settings.log.level
        self._speech.level(level)
        self._speaking = self._loop.create_task(self._deciders.speak(level))
        self._in_force.show()
        self._changes.announce()
        self._fetching.wake()
        self._federating.want(live.settings.ca.federation)
        self._liveness.wake()

    async def _speak(self, asked: Level | None) -> Level:
        """Log from the level on that is asked for, until the server ends; None: from that of the settings."""
        self._asked_level = asked
        level = asked or self._keeper.live.settings.log.level
        self._speech.level(level)
        await self._deciders.speak(level)
        return level

    async def _enforce_revocations(self) -> str:
        """Put what is revoked now in force everywhere; returns why decisions do not know it yet, "" where they do."""
        await asyncio.to_thread(self._keeper.look)
        await self._authority.turn_lists()
        self._liveness.wake()
        self._changes.announce()
        return str(self._keeper.refused[0]) if self._keeper.refused else ""

    async def _living_changed(self) -> None:
        await asyncio.to_thread(self._in_force.renew)
        self._in_force.show()

    async def _lead(self, leaving: Collection[str], back: Collection[str]) -> None:
        """Lead callers away from who leaves, and to who is back; returns when their Envoys know, or soon."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LED_SECONDS):
                news = await self._liveness.turn(leaving, back)
                while news and self._discovery.is_behind():  # noqa: ASYNC110 - each confirms in its own time
                    await asyncio.sleep(LED_LOOK)

    def _distrusts(self, workload: SpiffeId, revision: str) -> None:
        if self._in_force.distrusts(workload, revision):
            self._loop.call_soon_threadsafe(self._in_force.show)

    def _authorize_proxy(self, peer: SpiffeId, node_id: str) -> None:
        """A proxy may be any instance of the identity that it has proved, and no other."""
        instance = self._keeper.live.mesh.instances.get(node_id)
        if instance is None or instance.workload != peer:
            raise IdentityError(f"`{peer}` is not the identity of an instance `{node_id[:80]}`")
        if self._stores.revocations.holds(peer):
            raise IdentityError(f"`{peer}` is revoked")

    def _served_by(self, peer: SpiffeId) -> frozenset[str]:
        """The Services of which an identity may tell."""
        if self._stores.revocations.holds(peer):
            return frozenset()
        return frozenset(one.service for one in self._keeper.live.mesh.instances.values() if one.workload == peer)

    def _note(self, name: str, detail: Mapping[str, object]) -> None:
        self._journal.append(operation(_now(), name, detail))

    def _issued(self, kind: str) -> None:
        self._stores.ledger.add(kind)
        self._metrics.issued(kind)

    def _published(self, path: str) -> bytes:
        """What the bundle endpoint says: the bundle, and at the places of its issuer what verifies tokens."""
        held, issuer = self._issuer.bundle, self._keeper.live.settings.ca.token_issuer
        found = oidc.page(issuer, held, path) if issuer else None
        return bundle.write(held) if found is None else found

    def _renewal_failed(self, error: PolicydError) -> None:
        _log.error("server.certificate_not_renewed", error=str(error))

    def _come_back_within(self) -> timedelta:
        """How long after its certificate ended an agent may come back."""
        return timedelta(seconds=self._keeper.live.settings.ca.come_back_within)


def _checked(folder: Folder) -> Live:
    """Check a folder as a whole, without taking a port; raises InvalidInput."""
    nowhere = Control("127.0.0.1", (1,), SpiffeId.server("cluster.local"))
    return load(folder, shipped_schemas(), assumed, nowhere)


def _now() -> datetime:
    return datetime.now(UTC)
