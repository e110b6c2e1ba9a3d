"""How far one change reaches, and what it costs: a mesh of a thousand services and two hundred connected sidecars."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import mesh_load
from bench.processes import PROGRAM, answer, cpu_seconds, memory, running, wait_until
from bench.table import Row, row

SERVICES, COPIES, SIDECARS = 1000, 3, 200
CHANGES = 5
ENDPOINT_CHANGES = 11  # a figure is the difference of two medians, each of what varies by a third
TYPES = ("clusters", "endpoints", "listeners", "routes")
ROUTE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: push}}
spec: {{hosts: [s7], http: [{{route: [{{destination: {{host: s7}}}}], timeout: {seconds}s}}]}}
"""
MACHINES = """\
apiVersion: v1
kind: Service
metadata: {name: machines}
spec: {selector: {app: machine}, ports: [{port: 80}]}
"""
MACHINE = """\
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: machine-{number}, annotations: {{policyd/inboundPort: "1502", policyd/outboundPort: "1503"}}}}
spec: {{address: 127.0.1.{number}, labels: {{app: machine}}, ports: {{http: 80}}, serviceAccount: app}}
"""
BUILD = """\
import json, resource, sys, time
from pathlib import Path
from policyd.mesh.placement import assumed
from policyd.reload.live import shipped_schemas
from policyd.reload.load import load
from policyd.sources.files import read_folder
from policyd.spiffe import SpiffeId
from policyd.xds.resources.model import Control

control = Control("127.0.0.1", (9000,), SpiffeId.server("cluster.local"))
schemas = shipped_schemas()
wall, cpu = time.perf_counter(), time.process_time()
load(read_folder(Path(sys.argv[1])), schemas, assumed, control)
print(json.dumps({
    "wall": time.perf_counter() - wall,
    "cpu": time.process_time() - cpu,
    "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def write_folder(directory: Path, services: int, *, more: int = 0) -> None:
    """A mesh of so many services; `more` copies of the fifth one are added."""
    lines = ["defaults: {serviceAccount: app}", "workloads:"]
    lines += [
        f"  s{service}-{copy}: {{service: s{service}, port: 80, labels: {{version: v{copy}}}}}"
        for service in range(services)
        for copy in range(COPIES)
    ]
    lines += [f"  s5-more{number}: {{service: s5, port: 80}}" for number in range(more)]
    draft = directory / "workloads.tmp"
    draft.write_text("\n".join(lines) + "\n")
    draft.rename(directory / "workloads.yaml")


def write_machines(directory: Path, many: int) -> None:
    """So many machines, in a file of their own, as one who adds endpoints writes them."""
    draft = directory / "machines.tmp"
    draft.write_text(MACHINES + "".join(MACHINE.format(number=number + 1) for number in range(many)))
    draft.rename(directory / "mesh" / "machines.yaml")


def build_of(services: int) -> dict[str, float]:
    """What a process spends on checking and building everything once."""
    with tempfile.TemporaryDirectory(prefix="policyd-bench-") as name:
        write_folder(Path(name), services)
        done = subprocess.run([sys.executable, "-c", BUILD, name], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


class Sidecars:
    """The connected ones, and when each got what."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._heard: list[tuple[float, str, str, int]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            at, name, kind, count = line.split()
            self._heard.append((float(at), name, kind, int(count)))

    def last(self, kind: str, since: float, many: int) -> float:
        """When the last of so many sidecars got something of a type after a moment."""

        def who() -> dict[str, float]:
            return {name: at for at, name, what, count in list(self._heard) if what == kind and count and at > since}

        wait_until(lambda: len(who()) >= many, f"{kind} at {many} sidecars", 60)
        return max(who().values())


@contextmanager
def connected(address: str, identity: Path, names: list[str]) -> Iterator[Sidecars]:
    """Sidecars with these names, ended afterwards."""
    command = [sys.executable, "-m", "bench.sidecars", address, str(identity), *names]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    sidecars = Sidecars(process)
    try:
        yield sidecars
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait(20)


@contextmanager
def control_plane() -> Iterator[tuple[Path, int]]:
    """`policyd serve` for the mesh; its folder and its process."""
    with tempfile.TemporaryDirectory(prefix="policyd-bench-") as name:
        directory = Path(name) / "mesh"
        (directory / "mesh").mkdir(parents=True)
        write_folder(directory, SERVICES)
        write_machines(directory, 1)

        def ready() -> bool:
            return answer(directory, "status") is not None

        command = [PROGRAM, "serve", "--dir", str(directory)]
        with running(command, Path(name) / "serve.log", ready) as process:
            yield directory, process.pid


def settled(pid: int) -> None:
    """Wait until a process does next to nothing."""
    before, still = cpu_seconds(pid), 0
    while still < 3:
        time.sleep(0.2)
        now = cpu_seconds(pid)
        still = still + 1 if now - before <= 0.02 else 0
        before = now


def cost(pid: int, change: Callable[[], None], wait: Callable[[float], float]) -> tuple[float, float]:
    """Seconds until the last one has a change, and the processor's time that the control plane spent on it."""
    settled(pid)
    before, start = cpu_seconds(pid), time.monotonic()
    change()
    last = wait(start)
    settled(pid)
    return last - start, cpu_seconds(pid) - before


def measured(directory: Path, pid: int, sidecars: Sidecars | None, many: int) -> dict[str, Any]:
    """The cost of changes of an endpoint and of a route; without sidecars, until they are in force."""

    def wait_for(kind: str) -> Callable[[float], float]:
        def wait(since: float) -> float:
            if sidecars:
                return sidecars.last(kind, since, many)
            time.sleep(1.0)
            return time.monotonic()

        return wait

    def route(number: int) -> None:
        draft = directory / "route.tmp"
        draft.write_text(ROUTE.format(seconds=number + 1))
        draft.rename(directory / "mesh" / "route.yaml")

    found: dict[str, Any] = {"endpoint": [], "copy": [], "route": []}
    for number in range(ENDPOINT_CHANGES):
        found["endpoint"].append(cost(pid, lambda n=number: write_machines(directory, n + 2), wait_for("endpoints")))
    for number in range(CHANGES):
        found["copy"].append(
            cost(pid, lambda n=number: write_folder(directory, SERVICES, more=n + 1), wait_for("endpoints"))
        )
        found["route"].append(cost(pid, lambda n=number: route(n), wait_for("routes")))
    write_folder(directory, SERVICES)
    write_machines(directory, 1)
    (directory / "mesh" / "route.yaml").unlink()
    return found


def median(values: list[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def run() -> list[Row]:
    """Build, connect, change; every figure is of the real control plane, its sidecars are simulated."""
    small, whole = build_of(SERVICES // 4), build_of(SERVICES)
    names = [f"s{number}-0" for number in range(SIDECARS)]
    with control_plane() as (directory, pid):
        identity = directory / "identity"
        subprocess.run(
            [PROGRAM, "ca", "issue", "s0", "--out", str(identity), "--dir", str(directory)],
            check=True,
            capture_output=True,
        )
        settled(pid)
        alone, without = memory(pid)["VmRSS"], measured(directory, pid, None, 0)
        address = json.loads((directory / ".policyd" / "server.json").read_text())["xds"]
        before, start = cpu_seconds(pid), time.monotonic()
        with connected(address, identity, names) as sidecars:
            reached = max(sidecars.last(kind, start, SIDECARS) for kind in TYPES) - start
            settled(pid)
            connecting = cpu_seconds(pid) - before
            full = memory(pid)["VmRSS"]
            found = measured(directory, pid, sidecars, SIDECARS)
            most = memory(pid)["VmRSS"]
    load = mesh_load.run()
    failed = sum(load["seen"].values()) - load["seen"].get("answered", 0)
    times = {kind: [taken for taken, _ in found[kind]] for kind in found}
    spent = {kind: median([cpu for _, cpu in found[kind]]) for kind in found}
    idle = {kind: median([cpu for _, cpu in without[kind]]) for kind in without}
    each = 1000 * 100 / SIDECARS
    grown = (whole["megabytes"] - small["megabytes"]) / (SERVICES - SERVICES // 4)
    return [
        row(f"full check and build, {SERVICES:,} services x {COPIES}", whole["wall"], "s", at_most=5.0),
        row("full check and build, processor", whole["cpu"], "s"),
        row("a quarter of the services, processor", small["cpu"], "s"),
        row(f"{SIDECARS} sidecars connected and whole", reached, "s"),
        row("processor for one sidecar to connect", 1000 * connecting / SIDECARS, "ms"),
        row("endpoint added to last sidecar, median", median(times["endpoint"]), "s", at_most=0.5),
        row("endpoint added, slowest", max(times["endpoint"]), "s"),
        row("endpoint added, processor without sidecars", 1000 * idle["endpoint"], "ms"),
        row(
            "endpoint added, processor for 100 sidecars",
            each * (spent["endpoint"] - idle["endpoint"]),
            "ms",
            at_most=40,
        ),
        row("copy added to a file of 3,000, to last sidecar, median", median(times["copy"]), "s"),
        row("copy added to a file of 3,000, processor without sidecars", 1000 * idle["copy"], "ms"),
        row("route changed in the file to last sidecar, median", median(times["route"]), "s", at_most=1.0),
        row("route changed, slowest", max(times["route"]), "s"),
        row("route change, processor without sidecars", 1000 * idle["route"], "ms"),
        row("route change, processor for 100 sidecars", each * (spent["route"] - idle["route"]), "ms"),
        row("control plane, resident at the end", most, "MB", at_most=600),
        row("growth for one sidecar", 1024 * (full - alone) / SIDECARS, "KB"),
        row("growth for one service of three copies", 1024 * grown, "KB"),
        row("requests through Envoys under change", sum(load["seen"].values()), ""),
        row("of these failed", failed, "", at_most=0),
        row("changes of routes, endpoints and clusters meanwhile", load["changes"], ""),
        row("certificates renewed meanwhile", load["renewals"], ""),
    ]
