"""One sidecar: its identity kept fresh, its secret discovery service, its Envoy.

Law: Envoy starts after the first SVID, so that it never runs without an identity; a stop ends Envoy first, then what
it depends on, and leaves no runtime file.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from policyd.decision_line import PIPE
from policyd.envoy_api import EnvoyApi
from policyd.spiffe import SpiffeId
from policyd.xds.agreed import IDENTITY_SECRET, LISTED_SECRET, ROOTS_SECRET
from proxy.assignment import Spec
from proxy.bootstrap import Endpoint, Start, bootstrap
from proxy.control import Control
from proxy.decided import Decided
from proxy.dns.resolvers import RESOLV_CONF
from proxy.envoy import Command, EnvoyProcess
from proxy.events import SidecarStatus, stamp, write_private
from proxy.identity import Bundle, Svid
from proxy.lifecycle import Limits, Phase
from proxy.outside import Outside
from proxy.pipe import Pipe
from proxy.renew import keep_fresh, obtain, say_delivered
from proxy.runtime import BOOTSTRAP, afresh, runtime_folder
from proxy.sds import SdsServer
from proxy.secret import secrets
from proxy.tainted import signers
from proxy.tally import last_count
from proxy.tries import first_of, until_stopped

MEMORY: Final = 1 << 30  # what Istio lets a sidecar have at most
LEAST_MEMORY: Final = 32 << 20  # an Envoy with nothing to do takes half of it
MOST_MEMORY: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class Settings:
    """What all sidecars of an agent share; `runtime` and `logs` are folders of mode 0700.

    `probe_commands`: whether commands by which the mesh asks applications are run. `resolv_conf` names whom captured
    applications ask for names that are none of the mesh. `proxyless`: no Envoy is started, whatever is assigned.
    """

    envoy: Path
    runtime: Path
    logs: Path
    limits: Limits = field(default_factory=Limits)
    concurrency: int = 1
    log_level: str = "warning"
    probe_commands: bool = False
    resolv_conf: Path = RESOLV_CONF
    proxyless: bool = False
    memory: int = MEMORY  # bytes of heap, of each Envoy


@dataclass(frozen=True, slots=True)
class Running:
    """A spec and where its Envoy is configured; another value means another Envoy."""

    spec: Spec
    xds: Endpoint
    server: SpiffeId


class Sidecar:
    """Call `run` once, in a task; `stop` ends it, called twice at once."""

    def __init__(
        self, running: Running, settings: Settings, control: Control, api: EnvoyApi,
        outside: Outside, changed: Callable[[], None], decided: Decided,
    ) -> None:  # fmt: skip
        self.running = running
        self._settings = settings
        self._control = control
        self._api = api
        self._outside = outside
        self._changed = changed
        self._folder = runtime_folder(settings.runtime, running.spec.instance)
        self._svid: Svid | None = None
        self._bundle: Bundle | None = None
        self._earlier: frozenset[bytes] = frozenset()
        self._federated: tuple[Bundle, ...] = ()
        self._crls: tuple[bytes, ...] = ()
        self._identified = asyncio.Event()
        self._stopping = asyncio.Event()
        self.decided = decided
        self._counted: int | None = None  # by its Envoy, at its end
        self._sds = SdsServer(
            api,
            self._folder / "sds.sock",
            running.spec.instance,
            outside,
            changed,
        )
        self._pipe = Pipe(self._folder / PIPE, decided, outside.monotonic)
        self._command = Command(
            binary=settings.envoy,
            bootstrap=self._folder / BOOTSTRAP,
            admin_socket=self._folder / "admin.sock",
            folder=self._folder,
            log=settings.logs / f"{running.spec.instance}.log",
            concurrency=settings.concurrency,
            log_level=settings.log_level,
        )
        self._envoy = EnvoyProcess(
            self._command, running.spec.instance, settings.limits, outside, self._lives, self._ends
        )

    @property
    def admin_socket(self) -> Path:
        """Where its Envoy is administered."""
        return self._command.admin_socket

    def speak(self, level: str) -> None:
        """Have its Envoy log from a level on, this one and each that follows it."""
        self._envoy.speak(level)

    def stop(self) -> None:
        """Drain and end."""
        self._stopping.set()
        self._envoy.stop()

    def trust(self, bundle: Bundle, federated: tuple[Bundle, ...] = (), crls: tuple[bytes, ...] = ()) -> None:
        """Push what came without an SVID: the bundle of its own trust domain, all others that are known here, lists."""
        changed = (bundle, federated, crls) != (self._bundle, self._federated, self._crls)
        self._federated, self._crls = federated, crls
        if self._svid is not None and changed:
            self._deliver(self._svid, bundle)

    def confirmed(self, sequence: int) -> bool:
        """Whether its Envoy, where one runs, has the bundle of `sequence`."""
        if self._bundle is None:
            return True
        held = all(map(self._sds.holds, (ROOTS_SECRET, LISTED_SECRET)))
        return held and self._bundle.sequence >= sequence

    @property
    def signers(self) -> frozenset[bytes]:
        """The SHA-256 of each certificate that signed what its Envoy shows, or may still show."""
        now = signers(self._svid) if self._svid is not None else frozenset()
        return now if self._sds.holds(IDENTITY_SECRET) else now | self._earlier

    async def run(self) -> None:
        """Return when stopped and cleaned up; what goes wrong before Envoy runs is said and tried again."""
        await until_stopped(self._attempt, self._stopping, self.running.spec.instance, self._outside)

    async def _attempt(self) -> None:
        spec_id = self.running.spec.spiffe_id
        get = partial(obtain, self._control, spec_id, self._outside.clock)
        identity: asyncio.Future[None] | None = None
        try:
            self._prepare()
            fresh = keep_fresh(spec_id, self._svid, get, self._deliver, self._outside, self._control.tainted)
            identity = asyncio.ensure_future(fresh)
            await first_of(identity, self._identified, self._stopping)
            if not self._stopping.is_set():
                await self._serve()
        finally:
            if identity is not None:
                identity.cancel()
                await asyncio.gather(identity, return_exceptions=True)
            self._pipe.close()
            await self._sds.stop()
            self.decided.ended(self._counted)
            shutil.rmtree(self._folder, ignore_errors=True)

    def status(self) -> SidecarStatus:
        """This sidecar as status.json shows it."""
        life, svid, spec = self._envoy.life, self._svid, self.running.spec
        waiting = life.phase is Phase.NEW and svid is None
        return SidecarStatus(
            instance=spec.instance,
            spiffe_id=str(spec.spiffe_id),
            cluster=spec.cluster,
            state="awaiting_identity" if waiting else life.phase.value,
            restarts=life.restarts,
            pid=self._envoy.pid,
            svid_expires=stamp(svid.not_after) if svid else None,
            svid_serial=f"{svid.serial:032x}" if svid else None,
            admin_socket=str(self._command.admin_socket),
            log=str(self._command.log),
        )

    def _lives(self) -> None:
        """Its Envoy's life has gone on."""
        if self._envoy.life.phase is Phase.STARTING:
            self._counted = None
            self.decided.fresh()
        elif self._envoy.life.phase is Phase.CRASHED:
            self._pipe.ended()
            self.decided.crashed()
        self._changed()

    async def _ends(self) -> None:
        """Its Envoy is told to end as soon as this returns."""
        self._pipe.hurry()
        self._counted = await last_count(self.decided, self.admin_socket)

    def _prepare(self) -> None:
        afresh(self._folder)
        start = Start(
            instance=self.running.spec.instance,
            cluster=self.running.spec.cluster,
            xds=self.running.xds,
            server=self.running.server,
            sds_socket=str(self._folder / "sds.sock"),
            admin_socket=str(self._command.admin_socket),
            memory=self._settings.memory,
        )
        write_private(self._command.bootstrap, json.dumps(bootstrap(start), indent=1).encode())

    async def _serve(self) -> None:
        assert self._svid is not None
        assert self._bundle is not None
        await self._sds.start(secrets(self._api, self._svid, self._bundle, self._federated, self._crls))
        self._pipe.open()
        await self._envoy.run()

    def _deliver(self, svid: Svid, bundle: Bundle) -> None:
        self._earlier, first, self._svid = self.signers, self._svid is None, svid
        if self._bundle is None or bundle.sequence >= self._bundle.sequence:
            self._bundle = bundle
        self._sds.serve(secrets(self._api, svid, self._bundle, self._federated, self._crls))
        self._identified.set()
        say_delivered(self.running.spec, svid, self._outside, first=first)
        self._changed()
