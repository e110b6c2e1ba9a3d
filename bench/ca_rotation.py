"""The root replaced across 200 agents, four of them with real Envoys, and how soon an Envoy has a new certificate.

A real `policyd serve`; four `policyd-proxy run`, joined with tokens; all others run the agent's session without Envoys
(bench/ca_fleet.py). The clock runs from `prepare` until `revoke` was let, which waits until every agent and Envoy has
confirmed the new root and uses nothing of the old one.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from bench.processes import PROGRAM, bookinfo, wait_until
from bench.records import lines
from bench.table import Row, row
from policyd.admin_client import AdminClient, RefusedError

AGENTS = 200
SERVICES = ("details", "ratings", "productpage", "reviews")
PAUSE = 0.05
_ID = "spiffe://cluster.local/ns/default/sa/bookinfo-{}"

Served = Callable[[Path], Any]


def rows(served: Served) -> list[Row]:
    """The figures; `served` runs a control plane for a folder."""
    with bookinfo() as directory, served(directory) as (_, client), ExitStack() as stack:
        places = {one.name: one.spiffe_id for one in client.instances()}
        agents = [stack.enter_context(_agent(directory, client, name)) for name in SERVICES]
        stack.enter_context(_fleet(client))
        wait_until(lambda: _envoys(agents, places) == len(SERVICES), "an Envoy of each agent", 120)
        wait_until(lambda: not client.rotation().waited, "all agents", 120)
        begun = time.monotonic()
        client.rotate("prepare", "root")
        prepared = _step(client, "activate")
        shown = _shown(agents)
        _step(client, "taint")
        late = _watch(directory, shown)
        _step(client, "revoke", early=True)
        took = time.monotonic() - begun
    return [
        row(f"root replaced across {AGENTS} agents, {len(SERVICES)} with real Envoys", took, "s", at_most=30),
        row("until all of them trusted the new root", prepared - begun, "s"),
        row("a new certificate in Envoy, after it was on record, at most", max(late), "s", at_most=1),
    ]


def _step(client: AdminClient, step: str, *, early: bool = False) -> float:
    """Make a step as soon as it is let; when that was."""
    while True:
        try:
            client.rotate(step, early=early)
        except RefusedError:
            time.sleep(PAUSE)
        else:
            return time.monotonic()


@contextmanager
def _agent(directory: Path, client: AdminClient, service: str) -> Iterator[Path]:
    """A real agent with the sidecars of one workload; its status file."""
    place = directory.parent / f"agent-{service}"
    token = client.create_token(service, [_ID.format(service)]).token
    command = [
        str(Path(PROGRAM).parent / "policyd-proxy"), "run", "--join", token,
        "--dir", str(place / "state"), "--runtime", str(place / "run"), "--exit-with-parent",
    ]  # fmt: skip
    place.mkdir()
    with (place / "log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        yield place / "run" / "status.json"
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _fleet(client: AdminClient) -> Iterator[None]:
    """All other agents, joined."""
    names = [f"bench-{number}" for number in range(AGENTS - len(SERVICES))]
    tokens = [client.create_token(name, [_ID.format("details")]).token for name in names]
    command = [sys.executable, "-m", "bench.ca_fleet"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(json.dumps(tokens) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "{}\n", "an agent could not join"
        yield
    finally:
        process.stdin.close()
        process.wait(30)


def _sidecars(agents: list[Path]) -> list[dict[str, Any]]:
    return [one for file in agents if file.exists() for one in json.loads(file.read_text())["sidecars"]]


def _envoys(agents: list[Path], places: dict[str, str]) -> int:
    """How many of the agents have all of their Envoys ready."""
    ready = [one for one in _sidecars(agents) if one["state"] == "ready"]
    return len({one["spiffe_id"] for one in ready if one["instance"] in places})


def _shown(agents: list[Path]) -> dict[str, tuple[str, str]]:
    """Of each Envoy where it is administered, and the serial number of its certificate."""
    return {one["instance"]: (one["admin_socket"], one["svid_serial"]) for one in _sidecars(agents)}


def _watch(directory: Path, shown: dict[str, tuple[str, str]]) -> list[float]:
    """Of each Envoy: seconds from the record of its next certificate, after the one `shown`, until Envoy has it."""
    waiting = dict(shown)
    had: dict[str, float] = {}
    deadline = time.monotonic() + 30
    while waiting and time.monotonic() < deadline:
        for name, (admin, old) in tuple(waiting.items()):
            serials = _serials(Path(admin))
            if serials and int(old, 16) not in serials:
                had |= {f"{serial:032x}": time.time() for serial in serials}
                del waiting[name]
        time.sleep(0.02)
    assert not waiting, f"no new certificate in {sorted(waiting)}"
    return [had[serial] - issued for serial, issued in _issued(directory).items() if serial in had]


def _serials(admin: Path) -> set[int]:
    """The serial numbers of the certificates that an Envoy shows."""
    connection = HTTPConnection("envoy")
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(10)
        connection.sock.connect(str(admin))
        connection.request("GET", "/certs")
        found = json.loads(connection.getresponse().read())["certificates"]
    finally:
        connection.close()
    return {int(one["serial_number"], 16) for pair in found for one in pair.get("cert_chain", [])[:1]}


def _issued(directory: Path) -> dict[str, float]:
    """When each certificate was put on record, by serial."""
    found = {}
    for line in lines(directory / ".policyd" / "journal"):
        record = json.loads(line)
        if serial := record.get("detail", {}).get("serial"):
            found[serial] = datetime.fromisoformat(record["time"]).timestamp()
    return found
