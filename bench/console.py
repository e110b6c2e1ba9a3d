"""How fast the console shows a mesh of 200 services in a real browser, and what its looks at proxies cost.

The server is a small one that counts like a mesh: 200 services in five tiers, each with a proxy whose page is as long
as a sidecar's. Console and browser are the real ones, started for this.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc

from bench.table import Row, row
from policyd._pb import admin_pb2 as pb
from policyd._pb import admin_pb2_grpc
from policyd.cli.console import command, link
from policyd.console.source import Source
from policyd.state_paths import state_paths
from policyd.telemetry.graph import look

TIERS = (4, 26, 60, 70, 40)
ROUNDS = 9
SECONDS = 60.0  # for the first graph
SIDECARS = 20  # of the promise about looks
WATCHED = 2.0  # seconds between two looks while somebody looks
FILLER = "".join(f'envoy_cluster_upstream_{at}{{envoy_cluster_name="policyd-authz"}} {at}\n' for at in range(300))
CHROMIUM = "chromium"


class Mesh(admin_pb2_grpc.AdminServicer):
    """200 services that call one another, ever more often."""

    def __init__(self) -> None:
        chosen = random.Random(7)
        tiers = [[f"s{tier}-{at}" for at in range(count)] for tier, count in enumerate(TIERS)]
        self.callers: dict[str, list[tuple[str, float]]] = {name: [] for tier in tiers for name in tier}
        for above, below in pairwise(tiers):
            for at, name in enumerate(below):
                some = {above[at % len(above)], *chosen.sample(above, chosen.choice((0, 1, 1, 2)))}
                self.callers[name] = [(caller, chosen.paretovariate(1.2) * 3) for caller in sorted(some)]
        self.began = time.monotonic()

    def page(self, name: str) -> str:
        """What the proxy of a service counts."""
        seconds = time.monotonic() - self.began
        return FILLER + "".join(_series(caller, name, int(rate * seconds)) for caller, rate in self.callers[name])

    def Status(self, _request: Any, _context: Any) -> pb.StatusReply:  # noqa: N802
        """A server that is ready."""
        return pb.StatusReply(version="0", trust_domain="cluster.local", ready=True)

    def Visit(self, _request: Any, _context: Any) -> pb.VisitReply:  # noqa: N802
        """Whoever comes may look."""
        return pb.VisitReply(allowed=True)

    def Instances(self, _request: Any, _context: Any) -> pb.InstancesReply:  # noqa: N802
        """Each service has one."""
        places = [pb.InstancePlace(name=name, service=f"{name}.shop", role="sidecar") for name in self.callers]
        return pb.InstancesReply(instances=places)

    def Inspect(self, request: Any, _context: Any) -> pb.InspectReply:  # noqa: N802
        """Its page."""
        return pb.InspectReply(held=zlib.compress(self.page(request.instance).encode(), 1))


def _series(caller: str, name: str, count: int) -> str:
    labels = (
        f'reporter="destination",source_workload="{caller}",destination_workload="{name}",'
        f'connection_security_policy="mutual_tls",decision="allow",response_code="200"'
    )
    bounds = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000)
    buckets = "".join(
        f'istio_request_duration_milliseconds_bucket{{{labels},le="{bound}"}} {count if bound >= 5 else 0}\n'
        for bound in (*bounds, "+Inf")
        if bound != "+Inf"
    )
    return (
        f"istio_requests_total{{{labels}}} {count}\n{buckets}"
        f'istio_request_duration_milliseconds_bucket{{{labels},le="+Inf"}} {count}\n'
    )


@contextmanager
def _served(mesh: Mesh) -> Iterator[Path]:
    """A folder for which the mesh's server answers."""
    with tempfile.TemporaryDirectory(prefix="b") as short:
        folder, socket = Path(short) / "mesh", Path(short) / "admin.sock"
        (folder / ".policyd").mkdir(parents=True, mode=0o700)
        paths = state_paths(folder)
        paths.format.write_text("1\n")
        paths.server.write_text(json.dumps({"pid": 1, "admin_socket": str(socket)}))
        server = grpc.server(futures.ThreadPoolExecutor(4))
        admin_pb2_grpc.add_AdminServicer_to_server(mesh, server)  # type: ignore[no-untyped-call]
        server.add_insecure_port(f"unix:{socket}")
        server.start()
        try:
            yield folder
        finally:
            server.stop(0).wait()


def run() -> list[Row]:
    """Measure; the browser's part needs Chromium."""
    mesh = Mesh()
    with _served(mesh) as folder:
        rows = _looks(mesh, folder)
        if shutil.which(CHROMIUM) is None:
            print("chromium is not here: what a browser shows is not measured")
            return rows
        with subprocess.Popen(command(folder), stdout=subprocess.PIPE, text=True) as console:
            try:
                assert console.stdout is not None
                console.stdout.readline()
                return [*rows, *_browsed(folder)]
            finally:
                console.terminate()


def _looks(mesh: Mesh, folder: Path) -> list[Row]:
    """What a look costs the console: of 200 proxies, and of 20 in each second of watching."""
    pages = {name: mesh.page(name) for name in list(mesh.callers)[-SIDECARS:]}
    before = _cpu()
    for _ in range(ROUNDS):
        look(pages, frozenset())
    share = (_cpu() - before) / ROUNDS / WATCHED
    source = Source(folder)
    began = time.monotonic()
    source.see()
    return [
        row(f"reading {SIDECARS} sidecars' counts, watched", share, "of a core", at_most=0.05),
        row(f"one look at {sum(TIERS)} proxies", time.monotonic() - began, "s"),
    ]


def _browsed(folder: Path) -> list[Row]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        opens = link(state_paths(folder))
        page.goto(opens)
        page.wait_for_url("**/")
        address = opens.partition("/enter")[0]
        deadline = time.monotonic() + SECONDS
        while page.locator(".node").count() != sum(TIERS):
            if time.monotonic() > deadline:
                raise TimeoutError("the graph never had all its services")
            page.goto(f"{address}/")
            time.sleep(0.5)
        paints = [_painted(page, f"{address}/") for _ in range(ROUNDS)]
        for at in range(ROUNDS):
            page.locator(f'[aria-label="Range of time"] a:nth-child({1 + at % 5})').click()
            _until(page, f"performance.getEntriesByName('policyd.graph').length > {at}")
        shown = page.evaluate("performance.getEntriesByName('policyd.graph').map((one) => one.duration / 1000)")
        browser.close()
    return [
        row(f"console's first paint, {sum(TIERS)} services", statistics.median(paints), "s", at_most=0.5),
        row(f"graph refresh, {sum(TIERS)} services", statistics.median(shown), "s", at_most=0.3),
    ]


def _painted(page: Any, url: str) -> float:
    page.goto(url)
    _until(page, "performance.getEntriesByName('first-contentful-paint').length > 0")
    found: float = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000")
    return found


def _until(page: Any, condition: str) -> None:
    """Ask again and again: the page's own policy forbids what Playwright would wait with."""
    deadline = time.monotonic() + 30
    while not page.evaluate(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(condition)
        time.sleep(0.02)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
