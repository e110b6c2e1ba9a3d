"""`policyd ca obtain --keep`: an identity in files that is renewed as long as the program runs.

Law: what is there is good until it ends: where none comes, that is said, tried again after a bounded wait, and takes
nothing away. Who uses the files is told when new ones are there, and not before. What happens is one JSON object a
line.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from policyd.ca.files import read_file, read_secret
from policyd.cli.certificate import Files, Target
from policyd.errors import PolicydError, StateError
from policyd.sources.reading import real
from policyd.spiffe import SpiffeId
from policyd.svid.x509 import read_identity
from proxy.events import stamp
from proxy.identity import Bundle, Svid, check_svid, load_key
from proxy.outside import Outside
from proxy.renew import keep_fresh
from proxy.tainted import Tainted

COMMAND_SECONDS: Final = 60.0
MAX_PEM: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Held:
    """What there is to begin with: what vouches for policyd (PEM), and a certificate of an earlier run that is good."""

    roots: bytes
    svid: Svid | None = field(default=None, repr=False)


def held_in(files: Files, spiffe_id: SpiffeId, now: datetime) -> Held | None:
    """What an earlier run left in `files`, None where there is none; raises StateError for what is somebody else's.

    Its roots count from then on, not those that were named: they came with the last certificate, and know of rotations.
    """
    if not any(file.exists() for file in files.all()):
        return None
    try:
        chain = x509.load_pem_x509_certificates(read_file(files.certificate, MAX_PEM))
        roots = x509.load_pem_x509_certificates(read_file(files.roots, MAX_PEM))
        named = read_identity(chain[0])
    except (ValueError, PolicydError):
        named = None
    if named != spiffe_id:
        raise StateError(
            f"what lies in `{files.certificate.parent}` is not of `{spiffe_id}`",
            remedy="name another folder, or replace it with `--force`",
        )
    bundle = Bundle(spiffe_id.trust_domain, tuple(one.public_bytes(Encoding.DER) for one in roots))
    shown = [one.public_bytes(Encoding.DER) for one in chain]
    try:
        key = load_key(read_secret(real(files.key)))
        return Held(bundle.pem(), check_svid(key, spiffe_id, shown, bundle, now))
    except PolicydError:  # it has ended, or is no pair: the next one is due
        return Held(bundle.pem())


class Asks(Protocol):
    """Who asks policyd; policyd.cli.proving.Asking is one."""

    @property
    def spiffe_id(self) -> SpiffeId:
        """Whose certificate."""

    async def proved(self, roots: bytes, clock: Callable[[], datetime]) -> tuple[Svid, Bundle]:
        """The next one, checked; raises PolicydError. `roots` (PEM) vouch for policyd."""


class Keeping:
    """Call `run` once; `renew` has it renewed at once, `stop` ends it. `command` is run after each renewal."""

    def __init__(self, asking: Asks, target: Target, held: Held, command: Sequence[str], outside: Outside) -> None:
        self._asking = asking
        self._target = target
        self._roots = held.roots
        self._held = held.svid
        self._command = tuple(command)
        self._outside = outside
        self._written = asyncio.Event()
        self._again = asyncio.Event()
        self._stopping = asyncio.Event()

    def heed_signals(self) -> None:
        """SIGHUP renews, SIGTERM and SIGINT end it."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.renew)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    def renew(self) -> None:
        """Do not wait for half of life."""
        self._again.set()

    def stop(self) -> None:
        """Return from `run`; the files stay."""
        self._stopping.set()

    async def run(self) -> None:
        """Return when it was told to end."""
        telling = asyncio.create_task(self._tell())
        try:
            while not self._stopping.is_set():
                await self._keep()
                self._again.clear()
                self._held = None
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _keep(self) -> None:
        """Keep it fresh until a signal comes."""
        fresh = keep_fresh(self._asking.spiffe_id, self._held, self._obtain, self._deliver, self._outside, Tainted())
        tasks = [asyncio.ensure_future(one) for one in (fresh, self._stopping.wait(), self._again.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _obtain(self) -> tuple[Svid, Bundle]:
        """The next one, in the files; what is believed from then on are the roots that came with it."""
        svid, bundle = await self._asking.proved(self._roots, self._outside.clock)
        self._target.replace(svid, bundle)
        self._roots = bundle.pem()
        return svid, bundle

    def _deliver(self, svid: Svid, _bundle: Bundle) -> None:
        serial = f"{svid.serial:032x}"
        self._outside.say("identity.written", spiffe_id=str(svid.id), serial=serial, expires=stamp(svid.not_after))
        self._written.set()

    async def _tell(self) -> None:
        """Run the command after each renewal; what it prints is shown."""
        while self._command:
            await self._written.wait()
            self._written.clear()
            await self._run_command()

    async def _run_command(self) -> None:
        try:
            process = await asyncio.create_subprocess_exec(*self._command, stdin=asyncio.subprocess.DEVNULL)
        except OSError as error:
            self._outside.say("command.failed", command=self._command[0], reason=error.strerror)
            return
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                code = await process.wait()
        except TimeoutError:
            self._outside.say("command.failed", command=self._command[0], reason=f"takes over {COMMAND_SECONDS:g} s")
        else:
            failed = {"reason": f"ended with {code}"} if code else {}
            self._outside.say("command.failed" if code else "command.done", command=self._command[0], **failed)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
