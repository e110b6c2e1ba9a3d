"""Who calls whom, how often, how well: two looks at the mesh's metrics become the service graph's edges.

Law: pure. What happened is told by who was asked (`reporter="destination"`), since there it is known what was decided;
a gateway, and a proxy on the way out, tell what was decided at them. Nothing is counted twice.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from policyd import names, signals

OUTSIDE: Final = "(outside)"
_REQUESTS: Final = f"{names.MESH_PREFIX}_{names.MESH_REQUESTS}"
_DURATION: Final = f"{names.MESH_PREFIX}_{names.MESH_DURATION}_bucket"
_OPENED: Final = f"{names.MESH_PREFIX}_{names.MESH_OPENED}"
# names have no letters that are written otherwise (signals.Party), decisions neither
_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


class Edge(NamedTuple):
    """A caller, whom it calls, and whether by mutual TLS (`mutual_tls`, `none`, `unknown`)."""

    source: str
    destination: str
    security: str


@dataclass(slots=True)
class Counts:
    """What was counted of an edge since its proxies began; `buckets` by their upper bounds, in milliseconds."""

    requests: float = 0.0
    denied: float = 0.0
    failed: float = 0.0  # 5xx, those for want of a decision too
    connections: float = 0.0
    buckets: dict[float, float] = field(default_factory=lambda: defaultdict(float))


class Series(NamedTuple):
    """What lines with the same labels count for."""

    edge: Edge
    denied: bool
    failed: bool


@dataclass(frozen=True, slots=True)
class Traffic:
    """An edge's rates a second, and durations in milliseconds; None where nothing ended meanwhile."""

    edge: Edge
    rate: float
    denied: float
    failed: float
    connections: float
    p50: float | None
    p95: float | None


Look = Mapping[Edge, Counts]


def look(pages: Mapping[str, str], gateways: frozenset[str]) -> Look:
    """Read the pages of proxies, by instance, of which `gateways` stand at the edge; raises ValueError for no page."""
    found: dict[Edge, Counts] = defaultdict(Counts)
    for proxy, page in pages.items():
        known: dict[str, Series | None] = {}  # a histogram has a line for each of its bounds, alike but for that
        for name, labels, bound, value in _samples(page):
            if labels not in known:
                known[labels] = _series(labels, gateway=proxy in gateways)
            if (series := known[labels]) is not None:
                _add(found[series.edge], name, series, bound, value)
    return found


def traffic(before: Look, now: Look, seconds: float) -> list[Traffic]:
    """What happened between two looks, the busiest first; a proxy that began anew counts from nothing."""
    rates = (_traffic(edge, before.get(edge, Counts()), counts, seconds) for edge, counts in now.items())
    return sorted(rates, key=lambda one: (-one.rate - one.connections, one.edge))


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """A quantile of cumulative buckets, linear within one as Prometheus has it; None of nothing."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank, lower, below = share * total, 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            inside = buckets[bound] - below
            if bound == inf or inside <= 0:
                return lower
            return lower + (bound - lower) * (rank - below) / inside
        lower, below = bound, buckets[bound]
    return lower


def _samples(page: str) -> Iterator[tuple[str, str, float, float]]:
    """The lines that matter here: the metric, its labels as they stand, the bound of a bucket, the value.

    A page has thousands of others, which are not looked into.
    """
    for line in page.split("\n"):
        name, _, rest = line.partition("{")
        if name not in (_REQUESTS, _DURATION, _OPENED):
            continue
        labels, closed, value = rest.rpartition("} ")
        bare, _, bound = labels.rpartition(',le="') if name == _DURATION else (labels, "", "")
        if not closed or (name == _DURATION and not bare):
            raise ValueError(f"`{line[:120]}` is no line of metrics")
        yield name, bare, float(bound.rstrip('"')) if bound else 0.0, float(value)


def _series(text: str, *, gateway: bool) -> Series | None:
    """Whose edge the lines with these labels count for; None: somebody else counts it."""
    labels = dict(_LABEL.findall(text))
    edge = _edge(labels, gateway=gateway)
    if edge is None:
        return None
    return Series(edge, labels.get(signals.DECISION) == "deny", labels.get(signals.CODE, "").startswith("5"))


def _edge(labels: Mapping[str, str], *, gateway: bool) -> Edge | None:
    """Whose edge a series counts for; None: somebody else counts it."""
    source, service = labels.get("source_workload", ""), labels.get("destination_service_name", "")
    security = labels.get(signals.SECURITY, signals.UNKNOWN)
    if labels.get(signals.REPORTER) == signals.DESTINATION:
        return Edge(source, labels.get("destination_workload", ""), security)
    if gateway:
        return Edge(OUTSIDE, source, signals.UNKNOWN)
    return Edge(source, service, security) if labels.get(signals.DECISION) else None


def _add(counts: Counts, name: str, series: Series, bound: float, value: float) -> None:
    if name == _DURATION:
        counts.buckets[bound] += value
    elif name == _OPENED:
        counts.connections += value
    else:
        counts.requests += value
        counts.denied += value if series.denied else 0.0
        counts.failed += value if series.failed else 0.0


def _traffic(edge: Edge, before: Counts, now: Counts, seconds: float) -> Traffic:
    if now.requests < before.requests or now.connections < before.connections:
        before = Counts()
    buckets = {bound: count - before.buckets.get(bound, 0.0) for bound, count in now.buckets.items()}
    return Traffic(
        edge,
        (now.requests - before.requests) / seconds,
        (now.denied - before.denied) / seconds,
        (now.failed - before.failed) / seconds,
        (now.connections - before.connections) / seconds,
        quantile(0.5, buckets),
        quantile(0.95, buckets),
    )
