"""What an idle mesh weighs, and how fast the command line answers."""

from __future__ import annotations

import statistics
import subprocess
import time

from bench.processes import PROGRAM, answer, memory, mesh, processes
from bench.table import Row, row

CALLS = 7
SETTLE_SECONDS = 10  # idle means idle


def _help_seconds() -> float:
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        subprocess.run([PROGRAM, "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def run() -> list[Row]:
    """Bookinfo, up and idle: resident memory of each kind of process, in MB."""
    with mesh() as directory:
        time.sleep(SETTLE_SECONDS)
        status = answer(directory, "status")
        server, deciders = status["pid"], [one["pid"] for one in status["deciders"]]
        running = processes(str(directory))
        envoys = [pid for pid, command in running.items() if "bin/envoy" in command]
        agents = [pid for pid, command in running.items() if "policyd-proxy" in command and pid not in envoys]
        return [
            row("control plane, resident", memory(server)["VmRSS"], "MB", at_most=120),
            row("decision process, resident", max(memory(pid)["VmRSS"] for pid in deciders), "MB"),
            row("decision process, anonymous", max(memory(pid)["RssAnon"] for pid in deciders), "MB"),
            row("agent, resident", max(memory(pid)["VmRSS"] for pid in agents), "MB", at_most=60),
            row("sidecars", len(envoys), "Envoys"),
            row("sidecar, anonymous", max(memory(pid)["RssAnon"] for pid in envoys), "MB", at_most=30),
            row("sidecar, resident", max(memory(pid)["VmRSS"] for pid in envoys), "MB"),
            row("policyd --help", _help_seconds(), "s", at_most=0.3),
        ]
