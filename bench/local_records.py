"""What records of local decisions cost, and whether all of them arrive: a real mesh, whose sidecar refuses by itself.

A generator asks one sidecar in plain text, as fast as it answers; what Envoy counted is compared with the journal once
that has come to rest. The sidecar refuses, so that no application is measured; each decision has its record alike.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.processes import PROGRAM, answer, cpu_seconds, processes, wait_until
from bench.records import decisions
from bench.table import Row, row
from proxy import envoy_admin
from proxy.tally import _STATS, parse

SECONDS: Final = int(os.environ.get("LOCAL_SECONDS", "30"))
PER_SECOND: Final = 20_000
CONNECTIONS: Final = 32
PATIENCE: Final = 300
WORKLOADS = "workloads: {shop-v1: {service: shop, port: 80, command: [python, app.py]}}\n"
APP = """\
import http.server, os
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
POLICIES = """\
@id("open") permit (principal, action in Action::"http", resource) when { context.request.path like "/open*" };
@id("closed")
forbid (principal, action in Action::"http", resource)
when { context.request.path == "/closed" && context.request.headers.hasTag("x-team") };
"""
RESOURCES = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: shop}
spec: {mtls: {mode: DISABLE}}
---
apiVersion: policyd.io/v1
kind: Enforcement
metadata: {name: shop}
spec: {enforcement: local, durability: async}
"""


@contextmanager
def _mesh() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="policyd-bench-") as name:
        directory = Path(name) / "mesh"
        for path, text in (
            ("workloads.yaml", WORKLOADS),
            ("policies/shop.cedar", POLICIES),
            ("mesh/shop.yaml", RESOURCES),
            ("app.py", APP),
        ):
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_text(text)
        up = [PROGRAM, "up", str(directory), "--detach", "--no-console"]
        subprocess.run(up, check=True, stdout=subprocess.DEVNULL)
        try:
            yield directory
        finally:
            subprocess.run([PROGRAM, "down", "--dir", str(directory)], check=True, stdout=subprocess.DEVNULL)


def run() -> Iterator[Row]:
    """Measure; needs wrk."""
    with _mesh() as directory:
        status = answer(directory, "status")
        [place] = [one for one in status["instances"] if one["name"] == "shop-v1"]
        facts = json.loads((directory / ".policyd" / "server.json").read_text())
        server, runtime = int(facts["pid"]), Path(facts["admin_socket"]).parent / "agent"
        found = processes(str(runtime)).items()
        agents = [pid for pid, command in found if "envoy" not in command]
        [envoy] = [pid for pid, command in found if str(runtime / "shop-v1") in command and "launch" not in command]
        journal, socket = directory / ".policyd" / "journal", runtime / "shop-v1" / "admin.sock"
        passed = cpu_seconds(envoy)
        began, worked, served = time.monotonic(), sum(map(cpu_seconds, agents)), cpu_seconds(server)
        subprocess.run(
            [
                *(
                    "wrk",
                    "-t1",
                    f"-c{CONNECTIONS}",
                    f"-d{SECONDS}s",
                ),
                *("-H", "x-team: red", f"http://127.0.0.1:{place['inbound_port']}/closed"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        asked, passed = time.monotonic() - began, cpu_seconds(envoy) - passed
        wait_until(lambda: not parse(asyncio.run(_stats(socket))).active, "every request having ended", PATIENCE)
        decided = parse(asyncio.run(_stats(socket))).decided
        wait_until(lambda: decisions(journal) >= decided, "all being on record", PATIENCE)
        recorded, took = decisions(journal), time.monotonic() - began
        cost, agent = cpu_seconds(server) - served, sum(map(cpu_seconds, agents)) - worked
    yield row("decisions asked for", decided / asked, "decisions/s", at_least=PER_SECOND)
    yield row(f"decisions of {SECONDS} s that are not on record", decided - recorded, "decisions", at_most=0)
    yield row("from the last one to the last record", took - asked, "s")
    yield row("Envoy's CPU for a decision", passed / decided * 1e6, "us")
    yield row("policyd's CPU for a record", cost / recorded * 1e6, "us")
    yield row("policyd's cost at 20,000/s", cost / recorded * PER_SECOND, "cores", at_most=1)
    yield row("the agent's cost at 20,000/s", agent / recorded * PER_SECOND, "cores", at_most=0.5)


async def _stats(socket: Path) -> str:
    _, page = await envoy_admin.ask(socket, _STATS)
    return page.decode("ascii", "replace")
