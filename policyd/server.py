"""Builds the objects of `policyd serve`, wires them, starts and stops them. Decides nothing.

Law: what is started here is stopped here, in the opposite order; a server that cannot keep a record or has no checked
folder does not say that it is ready.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import secrets
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import grpc
import structlog

from policyd import admin
from policyd._pb import agent_pb2_grpc
from policyd.audit.appender import Limits
from policyd.audit.journal import Journal, writer_name
from policyd.audit.record import Entry, Fault
from policyd.authz.service import MAX_CHECK_BYTES, Authorizer, add_to_server
from policyd.ca.changes import Changes
from policyd.ca.database import open_database
from policyd.ca.files import read_passphrase
from policyd.ca.issuer import Issuer, Ports
from policyd.ca.ledger import Ledger
from policyd.ca.open import Opened, expiry_warnings, open_authority
from policyd.ca.server_identity import ServerCertificate, ServerIdentity
from policyd.ca.service import ATTESTATION_OPTIONS, AgentsService, AttestationService
from policyd.ca.tokens import Tokens
from policyd.config import SETTINGS_FILE, Address, Environment, Settings, StatePaths, parse_settings, runtime_directory
from policyd.errors import IdentityError, PolicydError, Problem, StateError
from policyd.mesh.declare import Declaration
from policyd.mesh.placement import Placement, place
from policyd.reload import Keeper, Live, Schemas, load, shipped_schemas
from policyd.sources import placement as placements
from policyd.sources import ports
from policyd.sources.files import Folder, read_folder, watch
from policyd.sources.state import prepare_runtime, prepare_state, write_private
from policyd.spiffe import SpiffeId
from policyd.telemetry.http import serve_http
from policyd.telemetry.logs import configure_logs
from policyd.telemetry.metrics import Metrics
from policyd.xds.cache import SnapshotCache
from policyd.xds.resources.model import Control
from policyd.xds.service import DiscoveryService
from policyd.xds.status import ProxyStatus

ROLE: Final = "serve"
GRACE_SECONDS: Final = 2.0
CHECK_THREADS: Final = 8
HEALTH_SECONDS: Final = 5.0
_log = structlog.get_logger("policyd.server")


def main(directory: Path, environment: Environment, *, log_json: bool = False) -> None:
    """Serve `directory` until SIGTERM or SIGINT; raises PolicydError where it cannot start."""
    configure_logs(json_lines=log_json or None, level=environment.log_level or "info")
    with _exclusively(prepare_state(directory, os.getuid())) as paths:
        asyncio.run(_serve(directory, paths, environment))


@contextmanager
def _exclusively(paths: StatePaths) -> Iterator[StatePaths]:
    """Hold the state folder's lock; the kernel ends it with us, so that no stale lock can be."""
    descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            folder = paths.root.parent
            remedy = f"end it with `policyd down --dir {folder}`"
            raise StateError(f"`{folder}` is served already", remedy=remedy) from None
        yield paths
    finally:
        os.close(descriptor)


async def _serve(directory: Path, paths: StatePaths, environment: Environment) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        server = Server(directory, paths, environment, stop)
        await server.start(stack)
        await stop.wait()
        _log.info("server.stopping")


class Server:
    """One running control plane. `start` puts what has to be undone on a stack; nothing else is kept open."""

    def __init__(self, directory: Path, paths: StatePaths, environment: Environment, stop: asyncio.Event) -> None:
        self._directory = directory
        self._paths = paths
        self._environment = environment
        self._stop = stop
        self._started_at = _now()
        self._is_resumed = paths.server.exists()  # which an orderly end removes, and so does `policyd up`
        self._schemas = shipped_schemas()
        self._metrics = Metrics()
        self._cache = SnapshotCache()
        self._changes = Changes()
        self._loop = asyncio.get_running_loop()

    async def start(self, stack: AsyncExitStack) -> None:
        """Start everything, in the order in which the parts need one another; raises PolicydError."""
        settings = parse_settings(read_folder(self._directory).text(SETTINGS_FILE) or "")
        self._runtime = stack.enter_context(self._runtime_folder())
        self._opened = self._open_authority(settings)
        self._journal = stack.enter_context(self._open_journal(settings))
        database = open_database(self._paths.tokens)
        stack.callback(database.close)
        self._tokens, self._ledger = Tokens(database), Ledger(database)
        self._addresses = self._choose_ports(settings)
        self._control = _control(self._addresses["authz"], settings.trust_domain)
        self._keeper = Keeper(lambda: read_folder(self._directory), self._build, self._heard)
        self._cache.set_all(self._keeper.live.snapshots)
        self._issuer = self._make_issuer()
        self._identity = ServerIdentity(self._issuer, _now, self._renewal_failed)
        self._start_authorization(stack)
        self._discovery = await self._start_xds(stack)
        await self._start_attestation(stack)
        await stack.enter_async_context(self._http())
        await self._start_admin(stack)
        stack.enter_context(self._announced())
        await stack.enter_async_context(_running(self._watch()))
        await stack.enter_async_context(_running(self._look_after()))
        _log.info("server.ready", revision=self._keeper.live.ruling.revision, **self._shown())

    # ---- what is opened

    @contextmanager
    def _runtime_folder(self) -> Iterator[Path]:
        runtime = prepare_runtime(
            runtime_directory(self._directory, self._environment, os.getuid()), os.getuid()
        )
        try:
            yield runtime
        finally:
            (runtime / "admin.sock").unlink(missing_ok=True)
            for folder in (runtime, runtime.parent):
                try:
                    folder.rmdir()
                except OSError:  # an agent, or another folder's server, still has its sockets there
                    break

    def _open_authority(self, settings: Settings) -> Opened:
        file = settings.ca.passphrase_file
        passphrase = read_passphrase(self._directory / file) if file else None
        opened = open_authority(
            self._paths.root, settings.trust_domain, clock=_now, random=secrets.token_bytes, passphrase=passphrase
        )
        for notice in opened.notices:
            _log.info("ca.notice", text=notice)
        return opened

    @contextmanager
    def _open_journal(self, settings: Settings) -> Iterator[Journal]:
        audit = settings.audit
        journal = Journal(
            self._paths.journal,
            writer_name(self._paths.journal, ROLE, lambda: secrets.token_hex(4)),
            _now,
            limits=Limits(retain=audit.retain),
            durability=audit.durability,
            on_full=audit.on_full,
            observer=self._metrics,
        )
        try:
            yield journal
        finally:
            journal.close()

    def _make_issuer(self) -> Issuer:
        keeper = self._keeper
        return Issuer(
            self._opened.authority,
            Ports(
                mesh=lambda: keeper.live.mesh,
                decide=lambda request: keeper.live.issuance.engine.decide(request),
                record=self._journal.append,
                count=self._issued,
                clock=_now,
                random=secrets.token_bytes,
                revision=lambda: keeper.live.issuance.revision,
                ttl=lambda: timedelta(seconds=keeper.live.settings.ca.ttl),
            ),
        )

    def _choose_ports(self, settings: Settings) -> dict[str, Address]:
        listen = settings.listen
        wanted = {"xds": listen.xds, "authz": listen.authz, "attestation": listen.attestation, "http": listen.http}
        kept = self._paths.root / "ports.json"
        picked = placements.candidates(random.SystemRandom())
        chosen = ports.choose(wanted, ports.load(kept), placements.is_free, picked)
        ports.save(kept, chosen)
        return chosen

    # ---- what is built from the folder

    def _build(self, folder: Folder) -> Live:
        return load(folder, self._schemas, self._place, self._control)

    def _place(self, declaration: Declaration) -> Placement:
        uid = os.getuid()
        previous = placements.load(self._paths.placement, uid)
        placement = place(
            declaration,
            previous,
            is_free=placements.is_free,
            candidates=placements.candidates(random.SystemRandom()),
            secret=lambda: secrets.token_urlsafe(24),
            # they are ours while proxies and applications run: after a change, and after a crash of this process
            held=previous.ports() if self._is_resumed else frozenset(),
        )
        placements.save(self._paths.placement, placement)
        self._is_resumed = True
        return placement

    def _heard(self, live: Live | None, problems: tuple[Problem, ...]) -> None:
        """A change was taken, or refused: put it in force for proxies and agents, and say so."""
        self._metrics.change_refused(live is None)
        self._metrics.reloaded("refused" if live is None else "applied")
        faults = tuple(Fault(problem.code, str(problem)) for problem in problems)
        revision = self._keeper.live.ruling.revision
        detail = {"files": sorted({problem.file for problem in problems})} if problems else {}
        self._journal.append(
            Entry(
                time=_now(),
                kind="change",
                decision="deny" if live is None else "allow",
                revision=revision,
                errors=faults,
                detail=detail,
            )
        )
        if live is None:
            _log.warning("change.refused", problems=[str(problem) for problem in problems])
            return
        _log.info("change.taken", revision=revision, config=live.config)
        self._loop.call_soon_threadsafe(self._put_in_force, live)

    def _put_in_force(self, live: Live) -> None:
        self._cache.set_all(live.snapshots)
        self._changes.announce()

    async def _watch(self) -> None:
        async for _ in watch(self._directory, self._stop):
            await asyncio.to_thread(self._keeper.look)

    async def _look_after(self) -> None:
        """What only time brings: the authority's end comes nearer, and is said."""
        while True:
            authority = self._opened.authority
            self._metrics.ca_expiry("root", authority.root.not_valid_after_utc.timestamp())
            self._metrics.ca_expiry("intermediate", authority.intermediate.not_valid_after_utc.timestamp())
            self._journal.expire()
            await asyncio.sleep(HEALTH_SECONDS)

    # ---- what listens

    def _credentials(self, *, mutual: bool) -> grpc.ServerCredentials:
        """Our certificate as it is now, for each new connection; a client's must come from our own authority."""

        def configuration(certificate: ServerCertificate) -> Any:
            pair = [(certificate.key, certificate.chain)]
            return grpc.ssl_server_certificate_configuration(pair, certificate.roots if mutual else None)

        def fetch() -> Any:
            return configuration(self._identity.current())

        return grpc.dynamic_ssl_server_credentials(configuration(self._identity.current()), fetch, mutual)

    def _start_authorization(self, stack: AsyncExitStack) -> None:
        """Decisions have a server of their own, on threads: no stream of configuration stands in their way."""
        authorizer = Authorizer(
            ruling=lambda: self._keeper.live.ruling,
            record=self._journal.append,
            metrics=self._metrics,
            clock=_now,
            stopwatch=time.perf_counter,
        )
        threads = ThreadPoolExecutor(CHECK_THREADS, thread_name_prefix="check")
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_CHECK_BYTES)]
        server = grpc.server(threads, options=options)
        add_to_server(authorizer, server)
        _bind(server, self._addresses["authz"], self._credentials(mutual=True))
        server.start()
        stack.callback(threads.shutdown)
        stack.callback(lambda: server.stop(GRACE_SECONDS).wait())

    async def _start_xds(self, stack: AsyncExitStack) -> DiscoveryService:
        """Configuration and certificates, for Envoys and agents with an identity."""
        discovery = DiscoveryService(
            self._cache,
            self._authorize_proxy,
            self._metrics,
            clock=time.monotonic,
            wall=time.time,
        )
        self._agents = AgentsService(
            self._issuer,
            self._tokens,
            mesh=lambda: self._keeper.live.mesh,
            changes=self._changes,
            xds_address=str(self._addresses["xds"]),
            clock=time.monotonic,
            wall=_now,
        )
        # Envoys and agents ping every 30 s to notice a dead connection; gRPC's default would hang up on them
        pings = ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000)
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0), pings])
        server.add_generic_rpc_handlers((discovery.handler(),))
        agent_pb2_grpc.add_AgentsServicer_to_server(self._agents, server)  # type: ignore[no-untyped-call]
        _bind(server, self._addresses["xds"], self._credentials(mutual=True))
        await server.start()
        stack.push_async_callback(server.stop, GRACE_SECONDS)
        stack.callback(discovery.close)
        return discovery

    async def _start_attestation(self, stack: AsyncExitStack) -> None:
        """A port of its own: who joins has no certificate yet."""
        service = AttestationService(
            self._issuer, self._tokens, agents_address=str(self._addresses["xds"]), clock=time.monotonic
        )
        server = grpc.aio.server(options=list(ATTESTATION_OPTIONS))
        agent_pb2_grpc.add_AttestationServicer_to_server(service, server)  # type: ignore[no-untyped-call]
        _bind(server, self._addresses["attestation"], self._credentials(mutual=False))
        await server.start()
        stack.push_async_callback(server.stop, GRACE_SECONDS)

    async def _start_admin(self, stack: AsyncExitStack) -> None:
        parts = admin.Parts(
            facts=self,
            addresses=admin.Addresses(**{name: str(address) for name, address in self._addresses.items()}),
            issuer=self._issuer,
            tokens=self._tokens,
            ledger=self._ledger,
            record=self._journal.append,
            random=secrets.token_bytes,
            started_at=self._started_at,
            stop=self._stop.set,
        )
        socket = self._runtime / "admin.sock"
        socket.unlink(missing_ok=True)
        server = grpc.aio.server()
        admin.handler(server, admin.AdminService(parts))
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        socket.chmod(0o600)
        stack.push_async_callback(server.stop, GRACE_SECONDS)

    def _http(self) -> Any:
        return serve_http(self._addresses["http"], registry=self._metrics.registry, not_ready=self.not_ready)

    @contextmanager
    def _announced(self) -> Iterator[None]:
        """server.json says where the server is for as long as it is there."""
        facts = {"pid": os.getpid(), "admin_socket": str(self._runtime / "admin.sock"), **self._shown()}
        write_private(self._paths.server, json.dumps(facts).encode())
        try:
            yield
        finally:
            self._paths.server.unlink(missing_ok=True)

    def _shown(self) -> dict[str, str]:
        return {name: str(address) for name, address in self._addresses.items()}

    def _authorize_proxy(self, peer: SpiffeId, node_id: str) -> None:
        """A proxy may be any instance of the identity that it has proved, and no other."""
        instance = self._keeper.live.mesh.instances.get(node_id)
        if instance is None or instance.workload != peer:
            raise IdentityError(f"`{peer}` is not the identity of an instance `{node_id[:80]}`")

    # ---- what happens

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
        """Why the server is not ready; "" when it is."""
        if self._keeper.refused:
            return f"a change is refused: {self._keeper.refused[0]}"
        return self._journal.trouble()

    def counts(self) -> admin.Counts:
        """Decisions since the start."""
        return admin.Counts(*self._metrics.totals())

    def warnings(self) -> Iterable[str]:
        """What works and deserves a look."""
        yield from (str(warning) for warning in self._keeper.live.warnings)
        yield from expiry_warnings(self._opened.authority, _now())

    def proxies(self) -> Iterable[ProxyStatus]:
        """The proxies that are connected."""
        return self._discovery.statuses()


def _now() -> datetime:
    return datetime.now(UTC)


def _control(authz: Address, trust_domain: str) -> Control:
    return Control(authz.host, (authz.port,), SpiffeId.server(trust_domain))


def _bind(server: Any, address: Address, credentials: grpc.ServerCredentials) -> None:
    try:
        bound = server.add_secure_port(str(address), credentials)
    except RuntimeError as error:
        raise StateError(f"cannot listen on `{address}`", remedy="is another program using it?") from error
    if bound != address.port:
        raise StateError(f"cannot listen on `{address}`", remedy="is another program using it?")


class _running:  # noqa: N801 - used as a function
    """A coroutine that runs for the length of an `async with`; a fault of its own ends the server, visibly."""

    def __init__(self, work: Any) -> None:
        self._work = work

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._work)
        self._task.add_done_callback(self._ended)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("server.task_failed", error=repr(error))
            os.kill(os.getpid(), signal.SIGTERM)
