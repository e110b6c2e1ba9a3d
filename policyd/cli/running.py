"""A mesh that `up` runs: its programs and sidecars, started in order, shown, and ended in the reverse order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from policyd.cli import plan, sidecars
from policyd.cli.console import address_in
from policyd.cli.health import application_probe, server_probe
from policyd.cli.life import Life, Phase
from policyd.cli.progress import Item, View
from policyd.cli.supervise import Supervisor
from policyd.errors import ChildError
from policyd.instance import server
from policyd.mesh.declare import declare
from policyd.sources.files import read_folder
from proxy import applications
from proxy.caller import Started, began

if TYPE_CHECKING:
    from policyd._pb import admin_pb2 as pb

HEALTHY: Final = "healthy"  # what the server says of an instance that answers its probe
LOOK_SECONDS: Final = 0.2
SOCKET_SECONDS = 10.0  # for the agent to serve the Workload API


class RunningMesh:
    """`start`, then `stop`.

    `places` says where its instances are, `warnings` what the server warns of, `metrics` where Prometheus finds them,
    `console` where the console is.
    """

    def __init__(
        self,
        directory: Path,
        state: Path,
        logs: Path,
        runtime: Path,
        environ: Mapping[str, str],
        screen: View,
        shadow: Path | None = None,
        *,
        console: bool = False,
    ) -> None:
        self.console = ""
        self.places: Sequence[pb.InstancePlace] = ()
        self.warnings: Sequence[str] = ()
        self.metrics = ""
        self._directory = directory
        self._state = state
        self._runtime = runtime
        self._environ = environ
        self._shadow = shadow
        self._with_console = console
        self._screen = screen
        self._sidecars: sidecars.States = {}
        self._applications: list[str] = []
        self._processes: dict[str, Started] = {}
        self._workload_api = asyncio.Event()
        self._supervisor = Supervisor(logs, self._changed, self._runs)

    async def start(self, seconds: float) -> None:
        """Return when all is up; raises ChildError for what is not within `seconds`, and says why."""
        deadline = time.monotonic() + seconds
        probe = server_probe(self._directory)
        self._supervisor.run(plan.server_program(self._directory, self._environ, probe, self._shadow))
        await self._supervisor.healthy([plan.SERVER], deadline)
        if self._with_console:
            self._start_console()
        self.places, self.warnings = await asyncio.to_thread(self._ask)
        self._sidecars = sidecars.awaited(place.name for place in self.places)
        self._start_agent()
        await self._socket_is_there()
        await self._start_applications()
        await self._supervisor.healthy([plan.AGENT, *self._applications], deadline)
        await self._reached(deadline)
        await self._opened(deadline)
        if self._with_console:
            await self._supervisor.healthy([plan.CONSOLE], deadline)

    async def stop(self) -> None:
        """End the console and the applications, then the agent with its Envoys, then the server."""
        for names in ([plan.CONSOLE, *self._applications], [plan.AGENT], [plan.SERVER]):
            await self._supervisor.stop(names)
        await self._supervisor.close()

    async def _reached(self, deadline: float) -> None:
        """Wait for the instances that are probed: callers are led to them only once they have answered."""
        while missing := [place for place in self.places if place.health not in ("", HEALTHY)]:
            if time.monotonic() >= deadline:
                reasons = ", ".join(f"`{place.name}` ({place.health})" for place in missing)
                raise ChildError(f"not healthy in time: {reasons}", remedy="see the `probe` of its WorkloadGroup")
            await asyncio.sleep(LOOK_SECONDS)
            self.places, self.warnings = await asyncio.to_thread(self._ask)

    async def _opened(self, deadline: float) -> None:
        """Wait for what the proxies say to what they were sent; raises ChildError for a port that is not theirs."""
        while (proxies := await asyncio.to_thread(self._ask_proxies)) and sidecars.are_told(proxies):
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(LOOK_SECONDS)
        if said := sidecars.unopened(proxies):
            raise ChildError(said, remedy="start again: a port that nobody gave is then another one")
        self.places, self.warnings = await asyncio.to_thread(self._ask)

    def _start_console(self) -> None:
        program = plan.console_program(self._directory, self._environ, self._console_up, self._hear_console)
        self._supervisor.run(program)

    async def _console_up(self) -> str:
        return "" if self.console else "it does not listen yet"

    def _hear_console(self, line: str) -> None:
        self.console = address_in(line) or self.console

    def _start_agent(self) -> None:
        program = plan.agent_program(
            self._directory, self._state / "agent", self._runtime, self._environ,
            probe=self._sidecars_up, feed=self._join_token, listen=self._hear,
        )  # fmt: skip
        self._supervisor.run(program)

    async def _start_applications(self) -> None:
        specs = declare(read_folder(self._directory).texts).workloads.workloads
        for place in plan.to_start(self.places, specs):
            spec = specs[place.name]
            if spec.proxyless:  # it reads once where the mesh is
                await self._is_served(place.name)
            probe = application_probe(place.app_port, spec.health, place.ports[0].app_socket)
            program = plan.application_program(self._directory, place, spec, self._environ, probe, self._runtime)
            self._supervisor.run(program)
            self._applications.append(place.name)

    async def _socket_is_there(self) -> None:
        """An application may ask for its identity in its first line; one that cannot is started even so."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SOCKET_SECONDS):
                await self._workload_api.wait()

    async def _is_served(self, name: str) -> None:
        """Wait for the agent to be there for an instance; an application that needs it is started even so."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SOCKET_SECONDS):
                while self._sidecars[name].phase is not Phase.HEALTHY:  # noqa: ASYNC110 - all of them are shown together
                    await asyncio.sleep(LOOK_SECONDS)

    def _runs(self, name: str, pid: int) -> None:
        """Tell the agent which process is which instance's application."""
        if name in (plan.SERVER, plan.AGENT, plan.CONSOLE):
            return
        self._processes.pop(name, None)
        if pid and (start := began(pid)) is not None:
            self._processes[name] = Started(pid, start)
        self._tell_processes()

    def _tell_processes(self) -> None:
        with suppress(OSError):  # it then is nobody; the folder goes at the end
            applications.write(self._runtime / applications.FILE, self._processes)

    async def _sidecars_up(self) -> str:
        return sidecars.missing(self._sidecars)

    async def _join_token(self) -> bytes:
        """Make a token for one start of the agent: each works once."""
        return await asyncio.to_thread(self._ask_token)

    def _ask_token(self) -> bytes:
        with server(self._directory) as client:
            return client.create_token(plan.AGENT_NAME).token.encode() + b"\n"

    def _ask(self) -> tuple[Sequence[pb.InstancePlace], Sequence[str]]:
        with server(self._directory) as client:
            return client.instances(), client.status().warnings

    def _ask_proxies(self) -> Sequence[pb.ProxyStatus]:
        with server(self._directory) as client:
            return client.proxies()

    def _hear(self, line: str) -> None:
        self.metrics = sidecars.metrics(line) or self.metrics
        if '"workload_api.' in line:  # at each start of the agent, which then knows of no process
            self._tell_processes()
            self._workload_api.set()
        before, self._sidecars = self._sidecars, sidecars.heard(self._sidecars, line)
        if before != self._sidecars:
            self._show()

    def _changed(self, name: str, life: Life) -> None:
        if name == plan.CONSOLE and life.phase is Phase.WAITING:
            self.console = ""
        if name == plan.AGENT and life.phase is Phase.WAITING:
            self._sidecars = sidecars.awaited(self._sidecars)  # they ended with it
        self._show()

    def _show(self) -> None:
        with suppress(OSError):  # the terminal has gone; what runs must still be ended in order
            self._screen.show([*self._programs(), *self._envoys()])

    def _programs(self) -> list[Item]:
        names = {
            plan.SERVER: ("policyd", "server"),
            plan.AGENT: ("policyd-proxy", "agent"),
            plan.CONSOLE: ("policyd", "console"),
        }
        return [
            Item(*names.get(name, (name, "application")), life.phase, life.why)
            for name, life in self._supervisor.lives.items()
        ]

    def _envoys(self) -> list[Item]:
        kinds = {place.name: sidecars.kind(place) for place in self.places}
        return [Item(name, kinds[name], state.phase, state.why) for name, state in self._sidecars.items()]
