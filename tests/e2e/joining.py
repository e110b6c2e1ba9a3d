"""`policyd serve` alone, agents that join it from folders of their own, and what callers see while these restart."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.conftest import PROGRAM, RunningMesh
from tests.e2e.rolling import AGENTS, Callers, applications
from tests.e2e.terminal import wait_until
from tests.e2e.wire import policyd

AGENT = PROGRAM + "-proxy"


class Agent:
    """`policyd-proxy run` in a folder of its own, and what it says."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True)
        self.state, self._output, self._errors = folder / "state", folder / "events", folder / "errors"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [AGENT, "run", "--dir", str(self.state), *options],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
            )  # fmt: skip

    def said(self, event: str) -> list[dict[str, Any]]:
        """The events of that name, so far."""
        whole = [line for line in self._output.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [each for each in map(json.loads, whole) if each["event"] == event]

    def ready(self) -> set[str]:
        """The sidecars that have been ready."""
        return {each["instance"] for each in self.said("sidecar.ready")}

    def wait(self, event: str, times: int = 1, timeout: float = 30) -> None:
        """Wait until the agent has said `event` so often."""
        wait_until(
            lambda: len(self.said(event)) >= times or self.process.poll() is not None, timeout, lambda: self.text
        )
        assert len(self.said(event)) >= times, self.text

    def refused(self) -> tuple[int, str]:
        """Wait for the end; returns the exit code and what was said of the error."""
        return self.process.wait(30), self._errors.read_text()

    @property
    def text(self) -> str:
        """All that it has said."""
        return self._output.read_text() + self._errors.read_text()


@contextmanager
def agent(folder: Path, *options: str) -> Iterator[Agent]:
    """An agent that is ended afterwards."""
    running = Agent(folder, *options)
    try:
        yield running
    finally:
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(20)


class Serve:
    """`policyd serve`, alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.start()

    def start(self) -> None:
        with (self.directory / "serve.log").open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "serve", "--dir", str(self.directory)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        log_text = (self.directory / "serve.log").read_text
        wait_until(self._answers, 30, log_text)

    def _answers(self) -> bool:
        return policyd(self.directory, "status").returncode == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(20)


def token_of(mesh: RunningMesh, *options: str) -> str:
    """A new token, as `ca token create` prints it: alone on standard output."""
    done = policyd(mesh.directory, "ca", "token", "create", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def restarted(mesh: RunningMesh, folder: Path, times: int = 1) -> Callers:
    """What callers of reviews saw while the sidecars of its instances were restarted one after another, so often."""

    def start(name: str, turn: int) -> Agent:
        options = [word for workload in AGENTS[name] for word in ("--workload", workload)]
        given = [] if turn else ["--join", token_of(mesh, "--agent", name, *options)]
        return Agent(folder / f"{name}-{turn}", *given, "--dir", str(folder / f"{name}-state"), "--drain", "1")

    callers = Callers(mesh.place("productpage-v1")["proxy_url"], "http://reviews:9080/reviews/0")
    running = {name: start(name, 0) for name in AGENTS}
    try:
        for name, workloads in AGENTS.items():
            running[name].wait("sidecar.ready", len(workloads))
            running[name].wait("agent.back")
        with applications(mesh.place), callers.asking():
            for turn, name in ((turn, name) for turn in range(times) for name in ("one", "two")):
                running[name].process.terminate()
                assert running[name].process.wait(30) == 0
                assert [one["instances"] for one in running[name].said("agent.left")] == [AGENTS[name]]
                running[name] = start(name, turn + 1)
                running[name].wait("agent.back")
                sent = callers.sent
                wait_until(lambda sent=sent: callers.sent > sent + 50, 30)
    finally:
        for one in running.values():
            one.process.terminate()
        for one in running.values():
            one.process.wait(30)
    return callers
