"""One running control plane, from its start to its end."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc
import structlog

from policyd import __version__, admin
from policyd.audit.record import Entry, Fault
from policyd.authz.service import Authorizer
from policyd.ca.changes import Changes
from policyd.ca.database import open_database
from policyd.ca.ledger import Ledger
from policyd.ca.open import expiry_warnings
from policyd.ca.server_identity import ServerIdentity
from policyd.ca.service import AgentsService, AttestationService
from policyd.ca.tokens import Tokens
from policyd.config import SETTINGS_FILE, Environment, Level, Settings, StatePaths, parse_settings
from policyd.errors import IdentityError, JournalError, PolicydError, Problem, StateError
from policyd.keeper import Keeper
from policyd.reload import Live, load, shipped_schemas
from policyd.server import issuing, listen
from policyd.server.health import Health
from policyd.server.state import ADMIN_SOCKET, Placer, choose_ports, exclusively, open_journal, runtime_folder
from policyd.sources.files import Folder, watch
from policyd.sources.revision_store import RevisionStore
from policyd.sources.shadow import FolderReader
from policyd.sources.state import prepare_state, write_private
from policyd.spiffe import SpiffeId
from policyd.telemetry.http import serve_http
from policyd.telemetry.logs import configure_logs
from policyd.telemetry.metrics import Metrics
from policyd.xds.cache import SnapshotCache
from policyd.xds.resources.build import ProxyClass
from policyd.xds.resources.model import Control
from policyd.xds.resources.reuse import Snapshots
from policyd.xds.service import DiscoveryService
from policyd.xds.status import ProxyStatus

LOOK_AFTER_SECONDS: Final = 5.0
_log = structlog.get_logger("policyd.server")


def main(directory: Path, environment: Environment, *, log_json: bool = False, shadow: Path | None = None) -> None:
    """Serve `directory` until SIGTERM or SIGINT; raises PolicydError where it cannot start.

    `shadow` is a folder of policies to try beside its own.
    """

    def speak(level: Level) -> None:
        configure_logs(json_lines=log_json or None, level=environment.log_level or level)

    speak("info")
    _stay_on_one_core()
    paths = prepare_state(directory, os.getuid())
    with exclusively(paths):
        asyncio.run(_serve(FolderReader(directory, shadow), paths, environment, speak))


def _stay_on_one_core() -> None:
    """The interpreter runs one thread at a time; handing it from core to core costs a third of every decision."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[-1]})


async def _serve(
    read: FolderReader, paths: StatePaths, environment: Environment, speak: Callable[[Level], None]
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        server = Server(read, paths, stop, speak)
        await server.start(stack, environment)
        await stop.wait()
        _log.info("server.stopping")


class Server:
    """The parts of a control plane and how they hang together; itself the admin API's Facts.

    It ends when `stop` is set; `speak` sets the level of its log.
    """

    def __init__(
        self, read: FolderReader, paths: StatePaths, stop: asyncio.Event, speak: Callable[[Level], None]
    ) -> None:
        self._read = read
        self._directory = read.directory
        self._paths = paths
        self._stop = stop
        self._speak = speak
        self._started_at = _now()
        self._metrics = Metrics()
        self._cache = SnapshotCache()
        self._changes = Changes()
        self._built: Snapshots[ProxyClass] | None = None
        self._loop = asyncio.get_running_loop()

    async def start(self, stack: AsyncExitStack, environment: Environment) -> None:
        """Start everything, in the order in which the parts need one another; raises PolicydError.

        What has to be undone is put on `stack`.
        """
        settings = parse_settings(self._read().text(SETTINGS_FILE) or "")
        self._speak(settings.log.level)
        self._runtime = stack.enter_context(runtime_folder(self._directory, environment))
        self._opened = issuing.open_folders_authority(self._directory, self._paths, settings, _now)
        self._journal = stack.enter_context(open_journal(self._paths, settings.audit, _now, self._metrics))
        self._note("server.start", {"version": __version__})
        database = open_database(self._paths.tokens)
        stack.callback(database.close)
        self._tokens, self._ledger = Tokens(database), Ledger(database)
        self._addresses = choose_ports(self._paths, settings.listen)
        # server.json is removed by an orderly end, and by `policyd up` before its first start
        self._placer = Placer(self._paths, resumed=self._paths.server.exists())
        self._keeper = self._read_first(settings)
        self._placer.keep(self._keeper.live.placement)
        self._revisions = RevisionStore(self._paths.revisions, _now, retain=settings.audit.retain, version=__version__)
        self._keep_revision(self._keeper.live)
        self._cache.set_all(self._keeper.live.snapshots)
        self._issuer = issuing.make_issuer(
            self._opened, self._keeper, self._journal, _now, issued=self._issued, refused=self._metrics.refused
        )
        await self._listen(stack)
        stack.enter_context(self._announced())
        await stack.enter_async_context(listen.Running(self._watch()))
        await stack.enter_async_context(listen.Running(self._look_after()))
        _log.info("server.ready", revision=self._keeper.live.ruling.revision, **self._shown())

    # ---- what is opened and made

    def _read_first(self, settings: Settings) -> Keeper:
        schemas = shipped_schemas()
        authz = self._addresses["authz"]
        control = Control(authz.host, (authz.port,), SpiffeId.server(settings.trust_domain))

        def build(folder: Folder) -> Live:
            live = load(folder, schemas, self._placer, control, self._built)
            self._built = live.snapshots
            return live

        return Keeper(self._read, build, self._keep, self._heard)

    async def _listen(self, stack: AsyncExitStack) -> None:
        at = self._addresses
        identity = ServerIdentity(self._issuer, _now, self._renewal_failed)
        decisions, streams = (
            Health(services, self.not_ready, _now) for services in (listen.AUTHORIZATION_SERVICES, listen.XDS_SERVICES)
        )
        listen.serve_authorization(stack, self._make_authorizer(), at["authz"], identity, decisions)
        self._discovery = DiscoveryService(
            self._cache, self._authorize_proxy, self._metrics, clock=time.monotonic, wall=time.time
        )
        self._agents = AgentsService(
            self._issuer,
            self._tokens,
            mesh=lambda: self._keeper.live.mesh,
            changes=self._changes,
            xds_address=str(at["xds"]),
            clock=time.monotonic,
            wall=_now,
        )
        await listen.serve_xds(stack, self._discovery, self._agents, at["xds"], identity, streams)
        attestation = AttestationService(
            self._issuer, self._tokens, agents_address=str(at["xds"]), clock=time.monotonic
        )
        await listen.serve_attestation(stack, attestation, at["attestation"], identity)
        http = serve_http(at["http"], registry=self._metrics.registry, not_ready=self.not_ready, remark=self.remark)
        await stack.enter_async_context(http)
        await self._serve_admin(stack)
        for health in (decisions, streams):
            stack.callback(health.end)  # before any port closes

    def _make_authorizer(self) -> Authorizer:
        return Authorizer(
            ruling=lambda: self._keeper.live.ruling,
            record=self._journal.append,
            metrics=self._metrics,
            clock=_now,
            stopwatch=time.perf_counter,
        )

    async def _serve_admin(self, stack: AsyncExitStack) -> None:
        parts = admin.Parts(
            facts=self,
            addresses=admin.Addresses(**self._shown()),
            issuer=self._issuer,
            tokens=self._tokens,
            ledger=self._ledger,
            record=self._journal.append,
            random=secrets.token_bytes,
            started_at=self._started_at,
            stop=self._stop.set,
        )
        socket = self._runtime / ADMIN_SOCKET
        socket.unlink(missing_ok=True)
        server = grpc.aio.server()
        admin.handler(server, admin.AdminService(parts))
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        socket.chmod(0o600)
        stack.push_async_callback(server.stop, listen.GRACE_SECONDS)

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
            self._paths.server.unlink(missing_ok=True)

    def _shown(self) -> dict[str, str]:
        return {name: str(address) for name, address in self._addresses.items()}

    # ---- what happens

    async def _watch(self) -> None:
        async for _ in watch(self._directory, self._stop, self._read.place):
            await asyncio.to_thread(self._keeper.look)

    async def _look_after(self) -> None:
        """What only time brings: the authority's end comes nearer, old records go."""
        authority = self._opened.authority
        while True:
            self._metrics.ca_expiry("root", authority.root.not_valid_after_utc.timestamp())
            self._metrics.ca_expiry("intermediate", authority.intermediate.not_valid_after_utc.timestamp())
            await asyncio.to_thread(self._journal.turn)
            await asyncio.to_thread(self._revisions.expire)
            await asyncio.to_thread(self._journal.trouble)  # notices a journal that was taken away
            if self._keeper.refused:  # perhaps for want of space, or of a port, that has come since
                await asyncio.to_thread(self._keeper.look)
            await asyncio.sleep(LOOK_AFTER_SECONDS)

    def _keep(self, live: Live) -> None:
        """Before a change takes effect it is on record, and where its instances are is known to the next start."""
        self._placer.keep(live.placement)
        self._keep_revision(live)
        before = self._keeper.live.files
        changed = sorted(path for path in {*before, *live.files} if before.get(path) != live.files.get(path))
        detail: dict[str, Any] = {"files": changed}
        if live.ruling.shadow is not None:
            detail["shadow_revision"] = live.ruling.shadow.revision
        revision = live.ruling.revision
        self._journal.append(Entry(time=_now(), kind="change", decision="allow", revision=revision, detail=detail))

    def _keep_revision(self, live: Live) -> None:
        ruling = live.ruling
        self._revisions.keep(ruling.revision, len(ruling.policy_set.policies), live.texts, ruling.schema.text)

    def _heard(self, live: Live | None, problems: tuple[Problem, ...]) -> None:
        """A change was taken, or refused: put it in force for proxies and agents, and say so."""
        self._metrics.change_refused(live is None)
        self._metrics.reloaded("refused" if live is None else "taken")
        if live is None:
            _log.warning("change.refused", problems=[str(problem) for problem in problems])
            self._record_refusal(problems)
            return
        _log.info("change.taken", revision=live.ruling.revision, config=live.config)
        self._loop.call_soon_threadsafe(self._put_in_force, live)

    def _record_refusal(self, problems: tuple[Problem, ...]) -> None:
        faults = tuple(Fault(problem.code, str(problem)) for problem in problems)
        revision = self._keeper.live.ruling.revision
        with suppress(JournalError):  # nothing took effect; the journal itself says that it misses something
            self._journal.append(Entry(time=_now(), kind="change", decision="deny", revision=revision, errors=faults))

    def _put_in_force(self, live: Live) -> None:
        self._speak(live.settings.log.level)
        self._cache.set_all(live.snapshots)
        self._changes.announce()

    def _authorize_proxy(self, peer: SpiffeId, node_id: str) -> None:
        """A proxy may be any instance of the identity that it has proved, and no other."""
        instance = self._keeper.live.mesh.instances.get(node_id)
        if instance is None or instance.workload != peer:
            raise IdentityError(f"`{peer}` is not the identity of an instance `{node_id[:80]}`")

    def _note(self, operation: str, detail: dict[str, str]) -> None:
        self._journal.append(
            Entry(time=_now(), kind="operation", decision="allow", detail={"operation": operation, **detail})
        )

    def _issued(self, kind: str) -> None:
        self._ledger.add(kind)
        self._metrics.issued(kind)

    def _renewal_failed(self, error: PolicydError) -> None:
        _log.error("server.certificate_not_renewed", error=str(error))

    # ---- what is known (admin.Facts)

    @property
    def live(self) -> Live:
        """What is in force."""
        return self._keeper.live

    @property
    def refused(self) -> Iterable[Problem]:
        """Why the folder as it is now is not in force."""
        return self._keeper.refused

    def not_ready(self) -> str:
        """Why the server is not ready; "" when it is. What is in force decides on while a change is refused."""
        return self._journal.trouble()

    def remark(self) -> str:
        """What else a reader of the readiness should know."""
        return f"a change is refused: {self._keeper.refused[0]}" if self._keeper.refused else ""

    def counts(self) -> admin.Counts:
        """Decisions since the start."""
        return admin.Counts(*self._metrics.totals())

    def shadow_counts(self) -> dict[str, int]:
        """Shadow decisions since the start, by what would change."""
        return self._metrics.shadow_totals()

    def warnings(self) -> Iterable[str]:
        """What works and deserves a look."""
        yield from (str(warning) for warning in self._keeper.live.warnings)
        yield from expiry_warnings(self._opened.authority, _now())

    def agents(self) -> Iterable[str]:
        """The agents that are connected, by name."""
        return self._agents.connected()

    def proxies(self) -> Iterable[ProxyStatus]:
        """The proxies that are connected."""
        return self._discovery.statuses()


def _now() -> datetime:
    return datetime.now(UTC)
