"""One Envoy as a child process, kept as proxy.lifecycle says.

Law: this shell decides nothing; it starts, asks, signals and tells. However `run` ends, no process is left.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from policyd.errors import EnvoyError
from proxy import envoy_admin
from proxy.draining import GAUGES, Load, Watch, load, look
from proxy.lifecycle import Act, Event, Life, Limits, Phase, advance
from proxy.outside import Outside

# of listeners that xDS changes; a stop has its own bound, Limits.drain
LISTENER_DRAIN_SECONDS = 60
MAX_LOG_BYTES = 4 << 20
FLUSH_MS = 200  # after which lines of access logs are written, be they few
FIRST_LOOK, LONGEST_LOOK = 0.02, 0.5  # seconds between two looks at /ready, growing
DRAIN_LOOK = 0.1


@dataclass(frozen=True, slots=True)
class Command:
    """How to start one Envoy; it runs in `folder`."""

    binary: Path
    bootstrap: Path
    admin_socket: Path
    folder: Path
    log: Path
    concurrency: int = 1
    log_level: str = "warning"

    def arguments(self) -> list[str]:
        """The whole command line, the launcher before Envoy included."""
        launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")), str(os.getpid())]
        return [
            *launcher,
            *(str(self.binary), "-c", str(self.bootstrap)),
            *("--concurrency", str(self.concurrency)),
            *("--log-level", self.log_level),
            *("--drain-time-s", str(LISTENER_DRAIN_SECONDS), "--drain-strategy", "immediate"),
            *("--file-flush-interval-msec", str(FLUSH_MS)),
            "--disable-hot-restart",
        ]


class EnvoyProcess:
    """Runs `command` until stopped; `changed` is called after each change of `life`, `ending` before its SIGTERM."""

    def __init__(
        self, command: Command, instance: str, limits: Limits, outside: Outside, changed: Callable[[], None],
        ending: Callable[[], Awaitable[None]],
    ) -> None:  # fmt: skip
        self.life = Life()
        self._command = command
        self._instance = instance
        self._limits = limits
        self._outside = outside
        self._changed = changed
        self._ending = ending
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen = Load()  # at the last look while it drained

    @property
    def pid(self) -> int:
        """The process id, 0 while there is no process."""
        return self._process.pid if self._process is not None else 0

    def speak(self, level: str) -> None:
        """Have it log from a level on, now and when it is started again."""
        if level != self._command.log_level:
            self._command = replace(self._command, log_level=level)
            if self._process is not None:
                self._spawn(self._set_level())

    def stop(self) -> None:
        """Drain, then end; called twice, end at once."""
        self._events.put_nowait(Event.STOP)

    async def run(self) -> None:
        """Return when stopped."""
        self._events.put_nowait(Event.RUN)
        try:
            while self.life.phase is not Phase.STOPPED:
                await self._step(await self._next())
        finally:
            for task in self._tasks:
                task.cancel()
            await self._bury()

    async def _next(self) -> Event:
        if self.life.wake is None:
            return await self._events.get()
        try:
            async with asyncio.timeout(max(0.0, self.life.wake - self._outside.monotonic())):
                return await self._events.get()
        except TimeoutError:
            return Event.TICK

    async def _step(self, event: Event) -> None:
        before = self.life
        now, spread = self._outside.monotonic(), self._outside.spread()
        self.life, acts = advance(before, event, now, self._limits, spread)
        for act in acts:
            await self._do(act)
        if self.life != before:
            self._tell(before, now)
            self._changed()

    async def _do(self, act: Act) -> None:
        match act:
            case Act.START:
                await self._start()
            case Act.DRAIN:
                self._spawn(self._drain())
            case Act.TERMINATE:
                await self._ending()
                self._signal(signal.SIGTERM)
            case Act.KILL:
                self._signal(signal.SIGKILL)

    async def _start(self) -> None:
        self._command.admin_socket.unlink(missing_ok=True)
        level = self._command.log_level
        try:
            with _open_log(self._command.log) as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command.arguments(),
                    stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                    cwd=self._command.folder,
                    process_group=0,  # Ctrl-C in the terminal is the agent's to handle
                )  # fmt: skip
        except OSError as error:
            self._say("sidecar.not_started", reason=f"{error.filename or self._command.binary}: {error.strerror}")
            self._events.put_nowait(Event.EXITED)
            return
        self._spawn(self._watch_exit(self._process))
        self._spawn(self._watch_ready(self._process, level))

    async def _watch_exit(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        self._events.put_nowait(Event.EXITED)

    async def _watch_ready(self, process: asyncio.subprocess.Process, level: str) -> None:
        pause = FIRST_LOOK
        while process.returncode is None:
            if await envoy_admin.is_ready(self._command.admin_socket) and process.returncode is None:
                if self._command.log_level != level:  # it was changed since the start
                    await self._set_level()
                self._events.put_nowait(Event.READY)
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_LOOK)

    async def _set_level(self) -> None:
        with suppress(EnvoyError):  # one that does not answer is told when it is started again
            await envoy_admin.ask(
                self._command.admin_socket, f"/logging?level={self._command.log_level}", method="POST"
            )

    async def _drain(self) -> None:
        socket = self._command.admin_socket
        with suppress(EnvoyError):
            await envoy_admin.ask(socket, "/healthcheck/fail", method="POST")
            # clients are told with each answer from now on; those that come are served until the end
            await envoy_admin.ask(socket, "/drain_listeners?graceful&skip_exit", method="POST")
            watch, done = Watch(), False
            while not done:
                # not `server.total_connections`, which lags behind by one flush
                self._seen = load(await envoy_admin.stats(socket, GAUGES))
                watch, done = look(watch, self._seen, self._outside.monotonic())
                if not done:
                    await asyncio.sleep(DRAIN_LOOK)  # Envoy tells only when asked
        self._events.put_nowait(Event.DRAINED)

    def _tell(self, before: Life, now: float) -> None:
        match self.life.phase:
            case Phase.STARTING:
                event = "sidecar.starting" if before.phase is Phase.NEW else "sidecar.restarting"
                self._say(event, pid=self.pid, restarts=self.life.restarts)
            case Phase.READY:
                self._say("sidecar.ready", pid=self.pid, seconds=round(now - before.since, 3))
            case Phase.CRASHED:
                wake = self.life.wake or now
                facts = {"failures": self.life.failures, "again_in": round(wake - now, 2)}
                self._say("sidecar.crashed", pid=self.pid, ended=self._ended(), **facts, **self._last_words())
                self._process = None
            case Phase.DRAINING:
                self._say("sidecar.draining", pid=self.pid)
            case Phase.ENDING if before.phase is Phase.DRAINING and self._seen.works:
                self._say("sidecar.cut", after=round(now - before.since, 2), **self._seen.told())
            case Phase.STOPPED:
                self._say("sidecar.stopped")
                self._process = None

    def _say(self, event: str, **facts: object) -> None:
        self._outside.say(event, instance=self._instance, **facts)

    def _ended(self) -> str:
        if self._process is None:
            return "not started"
        code = self._process.returncode or 0
        if code >= 0:
            return f"exit status {code}"
        with suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"

    def _last_words(self) -> dict[str, str]:
        return {"log": str(self._command.log), "last": _last_line(self._command.log)}

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _bury(self) -> None:
        """Leave no process, not even when `run` was cancelled."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()
        self._command.admin_socket.unlink(missing_ok=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _open_log(path: Path) -> BinaryIO:
    """Open for appending (0600); a log that has grown large becomes `<name>.1`, in place of the one before."""
    with suppress(FileNotFoundError):
        if path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_name(path.name + ".1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")


def _last_line(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2048))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1][:500] if lines else ""
    return ""
