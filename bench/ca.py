"""The certificate authority, end to end: request, caller's TLS certificate, policy, signature, check, record, reply.

A real `policyd serve`, asked over mutual TLS 1.3 by agents that have joined it as any agent does, on connections that
are kept. Certificates are handed out when their records are on the medium (durability `fsync`); afterwards every
reply is verified, and looked up in the journal. Those who ask are a program of their own, which sends requests made
before the clock runs and does no more than take replies apart: bench/ca_load.py. The server's rate limit is one
agent's, so several ask.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import ca_rotation
from bench.processes import PROGRAM, answer, bookinfo, cpu_seconds, running, waited_seconds
from bench.table import Row, row
from policyd._pb import agent_pb2
from policyd.admin_client import AdminClient
from policyd.instance import server
from policyd.spiffe import SpiffeId
from policyd.svid import bundle
from policyd.svid.x509 import parse, verify

AGENTS = 12
WORKLOAD = SpiffeId.workload("cluster.local", "default", "bookinfo-reviews")


def run() -> list[Row]:
    """Certificates a second with all agents at once, what one costs, and how long one takes at 500 a second."""
    with bookinfo() as directory:
        settings = directory / "policyd.yaml"
        settings.write_text(settings.read_text().replace("durability: written", "durability: fsync"))
        with _served(directory) as (pid, client):
            tokens = [client.create_token(f"bench-{n}", [str(WORKLOAD)]).token for n in range(AGENTS)]
            load = _Load(directory, tokens)
            before = cpu_seconds(pid)
            fast = load.measured("fast")
            spent = cpu_seconds(pid) - before
            waited = waited_seconds(pid)
            paced = load.measured("paced")
            waited = waited_seconds(pid) - waited
            load.end()
            _check(directory, client)
    each, took = spent / fast["issued"], sorted(paced["took"])
    return [
        row("certificates end to end", fast["issued"] / fast["seconds"], "/s", at_least=1000),
        row("the server's processor time for one", each * 1000, "ms", at_most=1),
        row("the same, as certificates a second of one core", 1 / each, "/s"),
        row("the load's own processor time for one", fast["cpu"] / fast["issued"] * 1000, "ms"),
        row("one certificate at 500/s, median", took[len(took) // 2] * 1000, "ms"),
        row("one certificate at 500/s, p99", took[int(len(took) * 0.99)] * 1000, "ms", at_most=50),
        row("in which the server waited for a core, for one", waited / len(took) * 1000, "ms"),
        *ca_rotation.rows(_served),
    ]


@contextmanager
def _served(directory: Path) -> Iterator[tuple[int, AdminClient]]:
    """A control plane's process id, and a line to its administration."""
    command = [PROGRAM, "serve", "--dir", str(directory)]
    with (
        running(
            command, directory.parent / "serve.log", lambda: (answer(directory, "status") or {}).get("ready", False)
        ) as process,
        server(directory) as client,
    ):
        yield process.pid, client


class _Load:
    """The program that asks; it says what it measured, a line each."""

    def __init__(self, directory: Path, tokens: list[str]) -> None:
        command = [sys.executable, "-m", "bench.ca_load", str(WORKLOAD), str(directory.parent / "replies")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._say(json.dumps(tokens))
        self._hear()  # everybody has joined

    def measured(self, what: str) -> dict[str, Any]:
        """What came of asking `fast`, or `paced`."""
        self._say(what)
        return self._hear()

    def end(self) -> None:
        """Have the replies written, and wait for that."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.wait(30):
            raise RuntimeError("the load failed")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said


def _check(directory: Path, client: AdminClient) -> None:
    """Every reply is a certificate that verifies, and has its record; raises where one is not."""
    roots = bundle.read(client.bundle().document, WORKLOAD.trust_domain).authorities
    serials, now = set(), datetime.now(UTC)
    for line in (directory.parent / "replies").read_bytes().splitlines():
        chain = [parse(der) for der in agent_pb2.Svid.FromString(bytes.fromhex(line.decode())).chain]
        if verify(chain, roots, WORKLOAD.trust_domain, now) != WORKLOAD:
            raise RuntimeError("a reply is no certificate of the workload")
        serials.add(f"{chain[0].serial_number:032x}")
    recorded = {one["name"] for one in answer(directory, "ca", "list", "--identity", str(WORKLOAD), "-n", "1000000")}
    if not serials or not serials <= recorded:
        raise RuntimeError(f"{len(serials - recorded)} of {len(serials)} certificates have no record")
