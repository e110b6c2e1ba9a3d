"""Who calls whom, how often, how well: two looks at the mesh's metrics become the service graph's edges.

Law: pure. What happened is told by who was asked (`reporter="destination"`), since there it is known what was decided;
a gateway, and a proxy on the way out, tell what was decided at them. Nothing is counted twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from policyd import signals

OUTSIDE: Final = "(outside)"
_REQUESTS: Final = f"{signals.PREFIX}_{signals.REQUESTS}"
_DURATION: Final = f"{signals.PREFIX}_{signals.DURATION}_bucket"
_OPENED: Final = f"{signals.PREFIX}_{signals.OPENED}"
_READ: Final = (_REQUESTS, _DURATION, _OPENED)


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
        for name, labels, value in _samples(page):
            if edge := _edge(labels, gateway=proxy in gateways):
                _add(found[edge], name, labels, value)
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


def _samples(page: str) -> Iterator[tuple[str, dict[str, str], float]]:
    # a proxy's page is mostly about other things, and reading it is what a look costs
    lines = [line for line in page.split("\n") if line.startswith(_READ)]
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        for sample in family.samples:
            if sample.name in _READ:
                yield sample.name, sample.labels, sample.value


def _edge(labels: Mapping[str, str], *, gateway: bool) -> Edge | None:
    """Whose edge a series counts for; None: somebody else counts it."""
    source, service = labels.get("source_workload", ""), labels.get("destination_service_name", "")
    security = labels.get(signals.SECURITY, signals.UNKNOWN)
    if labels.get(signals.REPORTER) == signals.DESTINATION:
        return Edge(source, labels.get("destination_workload", ""), security)
    if gateway:
        return Edge(OUTSIDE, source, signals.UNKNOWN)
    return Edge(source, service, security) if labels.get(signals.DECISION) else None


def _add(counts: Counts, name: str, labels: Mapping[str, str], value: float) -> None:
    if name == _DURATION:
        counts.buckets[float(labels["le"])] += value
    elif name == _OPENED:
        counts.connections += value
    else:
        counts.requests += value
        counts.denied += value if labels.get(signals.DECISION) == "deny" else 0.0
        counts.failed += value if labels.get(signals.CODE, "").startswith("5") else 0.0


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
