"""What it costs to see what the mesh does: counting and tracing in Envoy, the window of traces, the service graph.

The counts and the note of who speaks are a sidecar's own, with all tags; spans go to policyd, one request in a hundred,
as by default. What is without and what is with are compared as neighbours in time (bench.neighbours). Nothing is
scraped meanwhile; what a look at 20 sidecars costs is measured by itself: the pages of a mesh in which each calls three
others, as agents send them and policyd reads them.
"""

from __future__ import annotations

import json
import time
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

from bench import console
from bench.neighbours import Pair, compared, throughput
from bench.proxy import CALLER, TRACED_CLUSTER, Load, Variants, rig
from bench.table import Row, row
from policyd import names, signals
from policyd.console.watch import WATCHED_SECONDS
from policyd.mesh.model import Instance, Served
from policyd.mesh.telemetry import Spans
from policyd.signals import Party
from policyd.spiffe import SpiffeId
from policyd.telemetry.graph import look, traffic
from policyd.telemetry.traces import Span
from policyd.telemetry.traces_window import Window
from policyd.xds.resources import counting, filters, spans
from policyd.xds.resources.model import AUTHZ_CLUSTER, Control, Tracing
from proxy.exposition import Page

COUNTED = Instance("details-v1", SpiffeId.parse(CALLER), "sidecar", "details.default", labels={"version": "v1"})
TRACED = Instance("ingress", SpiffeId.parse(CALLER), "gateway", "ingress.default")
SIDECARS, CALLS, CODES = 20, 3, ("200", "403", "503")
BOUNDS = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000)
WINDOW = 32 << 20
LOOKS = 5
# of each pair so many rounds: the closer it is to its bound, the more
PAIRS = {
    ("no filter", "no filter, counted"): 12,
    ("policyd", "policyd, counted"): 8,
    ("policyd", "policyd, traced"): 28,
}


def variants(control: Control) -> Variants:
    """Each with and without."""
    asked = [filters.authorization(control)]
    fields = {
        "access_log": counting.inbound(COUNTED, Served(80, 80), encrypted=True),
        "access_log_options": counting.TUNNELS,
    }
    traced = spans.traced(replace(control, tracing=Tracing("", 1.0)), TRACED, Spans())
    heard = [counting.hears_who()]
    told = json.dumps(asked[0]).replace(f'"{AUTHZ_CLUSTER}"', f'"{TRACED_CLUSTER}"')
    return {
        "no filter": ([], {}),
        "no filter, counted": (heard, fields),
        "policyd": (asked, {}),
        "policyd, counted": ([*heard, *asked], fields),
        "policyd, traced": ([json.loads(told)], traced),
    }


def run() -> list[Row]:
    """Measure and compare; needs wrk."""
    return [*_looks(), *_window(), *_requests()]


def _requests() -> list[Row]:
    """What one thing costs is the median of what it cost in each round."""
    found: dict[tuple[str, str], list[Pair]] = {pair: [] for pair in PAIRS}
    with rig(variants) as made:
        for number in range(max(PAIRS.values())):
            for pair, rounds in PAIRS.items():
                if number < rounds:
                    found[pair].append(compared(made, pair, number % 2))
    counted, decided, traced = found.values()
    return [
        *_costs("counted", counted, at_most=10),
        *_kept("counted", decided, at_least=0.94),
        *_kept("traced at 1 %", traced, at_least=0.97),
        *console.run(),
    ]


def _costs(name: str, pairs: Sequence[Pair], at_most: float) -> list[Row]:
    """Of requests that policyd is not asked about: what Envoy spends more on each."""
    more = median(late.envoy_cpu - early.envoy_cpu for early, late in pairs)
    return [
        row("CPU of Envoy, not asking", median(early.envoy_cpu for early, _ in pairs), "us/request"),
        row(f"what it costs to be {name}", more, "us/request", at_most=at_most),
    ]


def _kept(name: str, pairs: Sequence[Pair], at_least: float) -> list[Row]:
    """Of decided requests: how much throughput is left, and what a request costs Envoy and policyd together."""
    cpu = [_cpu_of(late) / _cpu_of(early) for early, late in pairs]
    return [
        row("throughput, decided", median(early.per_second for early, _ in pairs), "requests/s"),
        row(f"throughput, decided and {name}", median(late.per_second for _, late in pairs), "requests/s"),
        *throughput(f"throughput kept, {name}", pairs, at_least),
        row(f"CPU of Envoy and policyd, {name} / not", median(cpu), "ratio"),
    ]


def _cpu_of(load: Load) -> float:
    return load.envoy_cpu + load.policyd_cpu


# ---- a look at the mesh


def _envoy_s_page(number: int) -> str:
    """What the Envoy of a sidecar prints that calls others and is called by others, every kind of answer once."""
    ends = []
    for call in range(1, CALLS + 1):
        other = (number + call) % SIDECARS
        ends += [{**_here(number), **_there(other), signals.CLUSTER: f"outbound|80||s{other}.default"}]
        ends += [{**_here(number), **_there((number - call) % SIDECARS)}]
    lines = ["# TYPE envoy_istio_requests_total counter"]
    for tags in ends:
        for code in CODES:
            decided = {signals.DECISION: "allow", signals.POLICY: "s-from-s"} if signals.CLUSTER not in tags else {}
            lines.append(f"envoy_istio_requests_total{{{_labels({**tags, signals.CODE: code, **decided})}}} 100")
    for name in (names.MESH_DURATION, names.MESH_REQUEST_BYTES, names.MESH_RESPONSE_BYTES):
        lines.append(f"# TYPE envoy_istio_{name} histogram")
        for tags in ({**one, signals.CODE: code} for one in ends for code in CODES):
            lines += [f'envoy_istio_{name}_bucket{{{_labels(tags)},le="{bound}"}} 90' for bound in (*BOUNDS, "+Inf")]
            lines += [
                f"envoy_istio_{name}_sum{{{_labels(tags)}}} 900",
                f"envoy_istio_{name}_count{{{_labels(tags)}}} 90",
            ]
    return "\n".join([*lines, ""])


def _here(number: int) -> dict[str, str]:
    return {signals.LOCAL: f"{_party(number)}|spiffe://cluster.local/ns/default/sa/s{number}"}


def _there(number: int) -> dict[str, str]:
    return {signals.REMOTE: str(_party(number)), signals.REMOTE_ID: f"spiffe://cluster.local/ns/default/sa/s{number}"}


def _party(number: int) -> Party:
    return Party(f"s{number}-v1", "default", f"s{number}", "v1", f"s{number}.default")


def _labels(tags: dict[str, str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in signals.folded({signals.FLAGS: "-", **tags}).items())


def _looks() -> list[Row]:
    """What a look costs who is looked at, and policyd."""
    raw = {f"s{number}-v1": _envoy_s_page(number) for number in range(SIDECARS)}

    def told() -> dict[str, bytes]:
        pages = {}
        for name, text in raw.items():
            page = Page()
            page.add(name, text)
            pages[name] = zlib.compress(page.text().encode(), 6)
        return pages

    held = told()

    def read() -> None:
        pages = {name: zlib.decompress(one).decode() for name, one in held.items()}
        seen = look(pages, frozenset())
        traffic(seen, seen, WATCHED_SECONDS)

    agents, policyd = _cpu(told), _cpu(read)
    return [
        row("a look at 20 sidecars: their agents' part", agents * 1e3, "ms"),
        row("a look at 20 sidecars: reading and graph", policyd * 1e3, "ms"),
        row("scrape and graph, a look every 2 s", policyd / WATCHED_SECONDS, "cores", at_most=0.05),
    ]


def _cpu(work: Callable[[], object]) -> float:
    """The least CPU time that it took of a few times, in seconds."""
    took = []
    for _ in range(LOOKS):
        before = time.process_time()
        work()
        took.append(time.process_time() - before)
    return min(took)


# ---- the window of traces


def _window() -> list[Row]:
    """What a full window really takes."""
    tags = ("http.url", "http.method", "http.status_code", "upstream_cluster", "peer.address", "user_agent", "guid:x")
    tracemalloc.start()
    window = Window(WINDOW)
    taken = 0
    while not window.fill().gone:
        window.add(_spans(taken, tags))
        taken += 1
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    fill = window.fill()
    return [
        row("window of traces: its bound", WINDOW / 2**20, "MiB"),
        row("window of traces: memory when full", held / 2**20, "MiB", at_most=WINDOW / 2**20),
        row("window of traces: spans when full", fill.spans, "spans"),
    ]


def _spans(number: int, tags: tuple[str, ...]) -> list[Span]:
    """A trace of three hops, each with its question to policyd."""
    start = number * 1_000_000
    return [
        Span(
            f"{number:032x}", f"{number * 6 + at:016x}", f"{number * 6 + at - 1:016x}" if at else "", "ingress",
            f"s{at}.default", "server", start + at, start + at + 900,
            tags=tuple((name, f"{name} {number} {at}") for name in tags),
        )
        for at in range(6)
    ]  # fmt: skip
