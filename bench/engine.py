"""What the engine itself costs: a decision by the size of the set, the cache, loading, and memory.

Sets of every size have the same ten kinds of policy a service, of which three hold a request, and are asked by a
hundred callers for ten services: what differs is the size alone. The sizes are measured in turn, so that a busy machine
slows all alike; with a hundred services in turn, the processor's own cache no longer holds what is asked. Memory is
measured in processes of their own.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import get_context
from os import getpid
from typing import Any, Final

from bench.engine_sets import ACCOUNT, CALLERS, Loaded, load_set, request_of, traffic_schema
from bench.processes import ROOT, memory
from bench.table import Row, row
from policyd.authz.entities import MeshEntities
from policyd.authz.ruling import Ruling, make_ruling
from policyd.cedar.engine import Engine
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.cedar.model import Request
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh, Workload
from policyd.mesh.placement import assumed
from policyd.sources.files import Folder, read_folder
from policyd.spiffe import SpiffeId

SIZES: Final = (10, 100, 1_000, 10_000)
ROUNDS: Final = 30
ASKED: Final = 100  # requests a size and round
SERVICES: Final = 10  # asked of a set, where it has them
TRAFFIC: Final = 20_000
LARGEST: Final = SIZES[-1]

TIME: Final = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def _seconds(decide: Callable[[Request], object], requests: Iterable[Request]) -> list[float]:
    times = []
    for request in requests:
        start = time.perf_counter()
        decide(request)
        times.append(time.perf_counter() - start)
    return times


def _sample(size: int, number: int, services: int = SERVICES) -> list[Request]:
    """Requests of a hundred callers to so many services of a set: every round the same, with ids of their own."""
    chosen = random.Random(size)
    asked = chosen.sample(range(size // 10), min(services, size // 10))
    return [request_of(asked[at % len(asked)], CALLERS + at, number * ASKED + at) for at in range(ASKED)]


def _decisions(schema: Schema) -> list[Row]:
    plain = {size: load_set(size, schema, cached=0) for size in SIZES}
    remembering = Engine(plain[LARGEST].policy_set, schema)
    first = _seconds(plain[LARGEST].engine.decide, _sample(LARGEST, 0, ASKED))
    taken: dict[int, list[float]] = {size: [] for size in SIZES}
    cached: list[float] = []
    spread: list[float] = []
    for number in range(ROUNDS):
        for size in SIZES:
            # the first round makes what later ones find
            times = _seconds(plain[size].engine.decide, _sample(size, number))
            taken[size] += times if number else []
        times = _seconds(plain[LARGEST].engine.decide, _sample(LARGEST, number, ASKED))
        spread += times if number else []
        times = _seconds(remembering.decide, _sample(LARGEST, number))
        cached += times if number else []
    medians = {size: statistics.median(times) * 1e6 for size, times in taken.items()}
    return [
        *(row(f"uncached p50, {size:,} policies", medians[size], "us", at_most=70) for size in SIZES),
        row("uncached p50, 10,000 policies / 10", medians[LARGEST] / medians[SIZES[0]], "ratio", at_most=1.3),
        row("uncached p50, 10,000 policies, 100 services in turn", statistics.median(spread) * 1e6, "us", at_most=70),
        row("first of its caller and service, p50", statistics.median(first) * 1e6, "us"),
        row("cached p50, 10,000 policies", statistics.median(cached) * 1e6, "us", at_most=6),
        row("load of 10,000 policies", plain[LARGEST].load_seconds, "s"),
        row("index build, 10,000 policies", plain[LARGEST].build_seconds, "s", at_most=3),
    ]


def _bookinfo() -> tuple[Folder, Mesh]:
    folder = read_folder(ROOT / "examples/bookinfo")
    declaration = declare(folder.texts)
    return folder, build(declaration, "cluster.local", assumed(declaration))


def _traffic(ruling: Ruling) -> Iterator[HttpFacts]:
    """Visits of the product page, and what each asks of the other services; every request has an own id."""
    chosen = random.Random(1)

    def facts(caller: str | None, service: str, target: str, instance: str) -> HttpFacts:
        principal = (
            None if caller is None else SpiffeId.parse(f"spiffe://cluster.local/ns/default/sa/bookinfo-{caller}")
        )
        headers = {"x-request-id": f"{chosen.getrandbits(128):032x}", "end-user": chosen.choice(("jason", "mary"))}
        source, here = Endpoint("127.0.0.1", chosen.randrange(30_000, 60_000)), Endpoint("127.0.0.1", 9080)
        name = service.partition(".")[0]
        return HttpFacts(principal, service, "GET", target, name, TIME, source, here, instance, headers)

    versions = [name for name, one in ruling.mesh.instances.items() if one.service == "reviews.default"]
    while True:
        book = chosen.randrange(10)
        yield facts(None, "ingress.default", "/productpage", "")
        yield facts("ingress", "productpage.default", "/productpage", "productpage-v1")
        yield facts("productpage", "details.default", f"/details/{book}", "details-v1")
        yield facts("productpage", "reviews.default", f"/reviews/{book}", chosen.choice(versions))
        yield facts("reviews", "ratings.default", f"/ratings/{book}", "ratings-v1")


def _hit_rate(schema: Schema) -> list[Row]:
    folder, mesh = _bookinfo()
    ruling = make_ruling(mesh, load_policies(folder.below("policies"), schema), schema)
    for facts, _ in zip(_traffic(ruling), range(TRAFFIC), strict=False):
        ruling.decide(ruling.request(facts))
    stats = ruling.engine.stats()
    return [
        row("hit rate, Bookinfo with random request ids", stats.hits / TRAFFIC, "ratio", at_least=0.95),
        row("decisions kept for it", stats.size, "decisions"),
    ]


# ---- memory, each in a process of its own


def _grown(work: Callable[[], object]) -> tuple[object, float]:
    before = memory(getpid())["VmRSS"]
    made = work()
    return made, memory(getpid())["VmRSS"] - before


def _policy_memory() -> tuple[float, float]:
    """MB of 10,000 policies with their index; and of all the handles, slices and decisions of their callers."""
    schema = traffic_schema()
    loaded, loaded_mb = _grown(lambda: load_set(LARGEST, schema, cached=65_536))
    assert isinstance(loaded, Loaded)
    requests = [request_of(service, caller, 1) for service in range(LARGEST // 10) for caller in range(CALLERS)]
    return loaded_mb, _grown(lambda: [loaded.engine.decide(request) for request in requests])[1]


def _entity_memory() -> float:
    """MB of a mesh's 10,000 workloads as entities."""
    _, mesh = _bookinfo()
    ids = [SpiffeId.parse(f"{ACCOUNT}a{number}") for number in range(10_000)]
    large = replace(mesh, workloads={one: Workload(one, {"app": "a"}) for one in ids})
    return _grown(lambda: MeshEntities(large))[1]


def _apart(works: Sequence[Callable[[], Any]]) -> list[Any]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        return list(pool.map(_call, works))


def _call(work: Callable[[], Any]) -> Any:
    return work()


def run() -> list[Row]:
    """Measure all of it in one run."""
    (policies, warm), entities = _apart((_policy_memory, _entity_memory))
    schema = traffic_schema()
    return [
        *_decisions(schema),
        *_hit_rate(schema),
        row("memory of 10,000 policies, loaded", policies, "MB"),
        row("memory of all that 6,000 callers of them make it keep", warm, "MB"),
        row("memory of 10,000 entities", entities, "MB"),
    ]
