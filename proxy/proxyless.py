"""One instance without an Envoy: its application speaks xDS over the agent, and reads its certificate in files.

Law: the bootstrap that leads an application here is there only while what it leads to is: files, then the socket, then
the bootstrap; a stop goes the other way and leaves no file. An application that runs on keeps what it has read.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

from policyd.envoy_api import EnvoyApi
from proxy.backoff import backoff
from proxy.certificate_files import CertificateFiles
from proxy.control import Control
from proxy.events import SidecarStatus, stamp, write_private
from proxy.grpc_bootstrap import REFRESH, VARIABLE, GrpcStart, grpc_bootstrap
from proxy.identity import Bundle, Svid
from proxy.outside import Outside
from proxy.relay import Relay
from proxy.renew import keep_fresh, obtain, say_delivered
from proxy.runtime import BOOTSTRAP, afresh, runtime_folder
from proxy.sidecar import Running, Settings
from proxy.tainted import signers
from proxy.tries import FIRST_WAIT, MOST_WAIT, first_of, until_stopped

READ_AFTER = 3 * REFRESH  # seconds after which an application has read what was written


class Proxyless:
    """Call `run` once, in a task; `stop` ends it. It stands in a fleet where a Sidecar would."""

    def __init__(
        self, running: Running, settings: Settings, control: Control, api: EnvoyApi,
        outside: Outside, changed: Callable[[], None],
    ) -> None:  # fmt: skip
        self.running = running
        self._control = control
        self._outside = outside
        self._changed = changed
        self._folder = runtime_folder(settings.runtime, running.spec.instance)
        self._bootstrap = self._folder / BOOTSTRAP
        self._files = CertificateFiles(self._folder / "certificates")
        self._relay = Relay(self._folder, running.spec, running.xds, api)
        self._svid: Svid | None = None
        self._bundle: Bundle | None = None
        self._earlier: frozenset[bytes] = frozenset()
        self._written: float | None = None  # when its files were, as `monotonic` counts; None: they are still to be
        self._due = asyncio.Event()  # something is to be written
        self._identified = asyncio.Event()
        self._stopping = asyncio.Event()
        self._state = "awaiting_identity"

    def stop(self) -> None:
        """End."""
        self._stopping.set()

    def trust(self, bundle: Bundle, _federated: tuple[Bundle, ...] = (), _crls: tuple[bytes, ...] = ()) -> None:
        """Write the bundle of its own trust domain; gRPC's files have room for no other, nor for lists."""
        if self._svid is not None and bundle != self._bundle:
            self._deliver(self._svid, bundle)

    def confirmed(self, sequence: int) -> bool:
        """Whether its application, where one runs, has read the bundle of `sequence`."""
        if self._bundle is None:
            return True
        return self._bundle.sequence >= sequence and self._is_read

    @property
    def signers(self) -> frozenset[bytes]:
        """The SHA-256 of each certificate that signed what its application shows, or may still show."""
        now = signers(self._svid) if self._svid is not None else frozenset()
        return now if self._is_read else now | self._earlier

    @property
    def _is_read(self) -> bool:
        return self._written is not None and self._outside.monotonic() - self._written >= READ_AFTER

    async def run(self) -> None:
        """Return when stopped and cleaned up; what goes wrong before it is served is said and tried again."""
        await until_stopped(self._attempt, self._stopping, self.running.spec.instance, self._outside)

    def status(self) -> SidecarStatus:
        """This instance as status.json shows it."""
        svid, spec = self._svid, self.running.spec
        return SidecarStatus(
            instance=spec.instance,
            spiffe_id=str(spec.spiffe_id),
            cluster=spec.cluster,
            state=self._state,
            restarts=0,
            pid=0,
            svid_expires=stamp(svid.not_after) if svid else None,
            svid_serial=f"{svid.serial:032x}" if svid else None,
            admin_socket="",
            log="",
            grpc_bootstrap=str(self._bootstrap),
        )

    async def _attempt(self) -> None:
        spec_id = self.running.spec.spiffe_id
        get = partial(obtain, self._control, spec_id, self._outside.clock)
        self._identified.clear()
        keeping: asyncio.Future[Any] | None = None
        try:
            self._prepare()
            fresh = keep_fresh(spec_id, self._svid, get, self._deliver, self._outside, self._control.tainted)
            keeping = asyncio.gather(fresh, self._keep_written())
            await first_of(keeping, self._identified, self._stopping)
            if not self._stopping.is_set():
                await self._serve(keeping)
        finally:
            self._become("stopped" if self._stopping.is_set() else "awaiting_identity")
            self._bootstrap.unlink(missing_ok=True)
            if keeping is not None:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
            await self._relay.stop()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _prepare(self) -> None:
        afresh(self._folder)
        afresh(self._folder / "certificates")
        self._files = CertificateFiles(self._folder / "certificates")
        if self._svid is not None:  # of an attempt before this one
            self._due.set()

    async def _serve(self, keeping: asyncio.Future[Any]) -> None:
        """Be there for applications until stopped; raises what ends the renewal."""
        await self._relay.start()
        spec, files = self.running.spec, self._files
        start = GrpcStart(spec.instance, spec.cluster, self._relay.socket, files.chain, files.key, files.roots)
        write_private(self._bootstrap, json.dumps(grpc_bootstrap(start), indent=1).encode())
        self._become("ready")
        self._outside.say("sidecar.ready", instance=spec.instance, environment={VARIABLE: str(self._bootstrap)})
        await first_of(keeping, self._stopping)

    def _deliver(self, svid: Svid, bundle: Bundle) -> None:
        self._earlier, first, self._svid = self.signers, self._svid is None, svid
        if self._bundle is None or bundle.sequence >= self._bundle.sequence:
            self._bundle = bundle
        self._written = None
        self._due.set()
        say_delivered(self.running.spec, svid, self._outside, first=first)
        self._changed()

    async def _keep_written(self) -> None:
        """Write what is newest, again and again; what cannot be written is tried until it can."""
        failures = 0
        while True:
            await self._due.wait()
            self._due.clear()
            assert self._svid is not None and self._bundle is not None, "which is what is due"  # noqa: PT018
            try:
                self._files.write(self._svid, self._bundle)
            except OSError as error:
                failures += 1
                wait = backoff(failures, self._outside.spread(), first=FIRST_WAIT, most=MOST_WAIT)
                reason = f"its certificate cannot be written: {error.strerror}"
                facts = {"reason": reason, "again_in": round(wait, 2)}
                self._outside.say("sidecar.failed", instance=self.running.spec.instance, **facts)
                await self._outside.sleep(wait)
                self._due.set()
                continue
            failures, self._written = 0, self._outside.monotonic()
            self._relay.use(self._svid, self._bundle)
            self._identified.set()
            self._changed()

    def _become(self, state: str) -> None:
        self._state = state
        self._changed()
