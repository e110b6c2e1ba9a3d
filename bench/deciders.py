"""Decision processes: what a second one adds, and how a change among ten thousand policies reaches them.

The generator for the first figure sends frames made beforehand and only counts the answers, so that the processes are
what is measured. For the second, one client asks all the time while a policy changes.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from bench.check import check_message
from bench.deciders_load import checks_per_second
from bench.engine_sets import policies_in_files
from bench.processes import PROGRAM, answer, bookinfo, running, wait_until
from bench.proxy import CALLER
from bench.table import Row, row
from policyd.admin_client import AdminClient
from policyd.spiffe import SpiffeId
from policyd.xds.resources.model import Control

METHOD = "/envoy.service.auth.v3.Authorization/Check"
SECONDS = 4
ROUNDS = 3
STREAMS = 16  # on each connection
POLICIES = 10_000
CHANGES = 3


@contextmanager
def _served(directory: Path, workers: int) -> Iterator[tuple[Control, Path]]:
    """A server with so many decision processes, and a caller's certificate in files."""
    work = directory.parent
    command = [PROGRAM, "serve", "--dir", str(directory), "--workers", str(workers)]
    with running(command, work / "serve.log", lambda: (answer(directory, "status") or {}).get("ready", False)):
        status = answer(directory, "status")
        identity = work / "identity"
        issue = [PROGRAM, "ca", "issue", CALLER, "--out", str(identity), "--dir", str(directory)]
        subprocess.run(issue, check=True, stdout=subprocess.DEVNULL)
        ports = tuple(int(one["address"].rpartition(":")[2]) for one in status["deciders"])
        yield Control("127.0.0.1", ports, SpiffeId.server(status["trust_domain"])), identity
        shutil.rmtree(identity)


# ---- one and two


def _per_second(directory: Path, workers: int) -> float:
    """Checks a second that so many processes answer."""
    body = check_message().SerializeToString()
    with _served(directory, workers) as (control, identity):
        before = answer(directory, "status")
        rate = checks_per_second(control.authz_ports, identity, METHOD, body, STREAMS, SECONDS)
        after = answer(directory, "status")
    if after["errors"] > before["errors"] or after["denials"] > before["denials"]:
        raise RuntimeError("checks failed")
    return rate


# ---- a change among ten thousand policies


class _Client(threading.Thread):
    """Asks all the time; remembers when each check was sent and how many milliseconds its answer took."""

    def __init__(self, port: int, identity: Path) -> None:
        super().__init__()
        key, chain, roots = ((identity / f"{name}.pem").read_bytes() for name in ("key", "certificate", "roots"))
        options = [("grpc.ssl_target_name_override", "policyd")]
        credentials = grpc.ssl_channel_credentials(roots, key, chain)
        self._channel = grpc.secure_channel(f"127.0.0.1:{port}", credentials, options)
        self._ask = self._channel.unary_unary(METHOD)
        self._ended = threading.Event()
        self.waits: list[tuple[float, float]] = []

    def run(self) -> None:
        body = check_message().SerializeToString()
        while not self._ended.is_set():
            start = time.perf_counter()
            self._ask(body, timeout=5)
            self.waits.append((start, (time.perf_counter() - start) * 1e3))
            time.sleep(0.001)  # a light load: what is looked for is the longest wait

    def stop(self) -> None:
        self._ended.set()
        self.join()
        self._channel.close()

    def longest(self, since: float, until: float) -> float:
        return max((wait for at, wait in self.waits if since <= at <= until), default=0.0)


def _change(directory: Path, client: AdminClient, text: str) -> float:
    """Write a policy; seconds until every process answers under the new revision."""
    before = client.status().revision
    draft = directory / "draft"
    draft.write_text(text)
    start = time.perf_counter()
    draft.rename(directory / "policies" / "changed.cedar")
    wait_until(lambda: all(one.revision not in ("", before) for one in client.status().deciders), "the change")
    return time.perf_counter() - start


def _changes(policies: int) -> tuple[float, float, float]:
    """Of several changes the slowest in seconds, and the longest waits (ms) meanwhile and without a change."""
    with bookinfo() as directory:
        for name, text in policies_in_files(policies).items():
            (directory / "policies" / name).write_text(text)
        with _served(directory, 1) as (control, identity):
            socket = json.loads((directory / ".policyd" / "server.json").read_text())["admin_socket"]
            client, asked = _Client(control.authz_ports[0], identity), AdminClient(Path(socket), directory)
            client.start()
            time.sleep(2)
            quiet = time.perf_counter()
            time.sleep(3)
            busy = time.perf_counter()
            taken = []
            for number in range(CHANGES):
                path = f'context.request.path == "/changed/{number}"'
                text = f'@id("changed") permit (principal, action == Action::"GET", resource) when {{ {path} }};\n'
                taken.append(_change(directory, asked, text))
                time.sleep(1.5)  # what is let go of the last one is let go now
            end = time.perf_counter()
            client.stop()
            asked.close()
            return max(taken), client.longest(busy, end), client.longest(quiet, busy)


def run() -> list[Row]:
    """Measure."""
    with bookinfo() as directory:
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(ROUNDS):
            for workers, found in rates.items():
                found.append(_per_second(directory, workers))
    one, two = (statistics.median(found) for found in rates.values())
    few, many = _changes(0), _changes(POLICIES)
    return [
        row("checks a second, one process", one, "checks/s"),
        row("checks a second, two processes", two, "checks/s"),
        row("two processes / one", two / one, "ratio", at_least=1.5),
        row("a change in force everywhere, Bookinfo, slowest", few[0], "s", at_most=1.0),
        row("longest wait of a decision meanwhile", few[1], "ms", at_most=50),
        row("a change in force everywhere, 10,000 policies, slowest", many[0], "s", at_most=5.0),
        row("longest wait of a decision meanwhile, 10,000 policies", many[1], "ms", at_most=50),
        row("the same without a change, 10,000 policies", many[2], "ms"),
    ]
