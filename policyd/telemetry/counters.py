"""What every process that decides or keeps records counts, in memory that they share.

Law: label values are of the bounded sets that stand here, any other counts as `other`; a decision counts itself in
about a microsecond.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from policyd import names
from policyd.telemetry import revisions
from policyd.telemetry.revisions import DECISIONS, RevisionCounts, Revisions
from policyd.telemetry.slots import Labels, Slots, Table

BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)  # seconds
SIDES: Final = ("inbound", "gateway", "egress")
KINDS: Final = ("decision", "issuance", "change", "operation")
CACHE: Final = ("hit", "miss", "bypass")
CHANGES: Final = ("agree", "would_deny", "would_allow", "skipped", "error")
_COUNTERS: Final[Table] = {
    names.DECISIONS: (DECISIONS, SIDES),
    names.DECISIONS_SHED: (),
    names.DECISION_CACHE: (CACHE,),
    names.SHADOW_DECISIONS: (CHANGES,),
    names.JOURNAL_RECORDS: (KINDS,),
    names.JOURNAL_FAILURES: (),
}
_GAUGES: Final[Table] = {names.DECISION_CACHE_ENTRIES: ()}
_LIMITS: Final = (*(str(limit) for limit in BUCKETS), "+Inf")
_SUM: Final = "sum"  # of a histogram, in nanoseconds
TABLE: Final[Table] = {**_COUNTERS, **_GAUGES, names.DECISION_SECONDS: ((*_LIMITS, _SUM),), **revisions.TABLE}


class Cache(Protocol):
    """How a cache of decisions fares; policyd.cedar.cache.CacheStats is one."""

    @property
    def hits(self) -> int:
        """How often a decision was found."""

    @property
    def misses(self) -> int:
        """How often it was not."""

    @property
    def bypasses(self) -> int:
        """How often nobody looked, because the next moment may change the decision."""

    @property
    def size(self) -> int:
        """How many decisions are kept now."""


class Counters:
    """What the process number `region` counts; safe for its threads."""

    def __init__(self, slots: Slots, region: int = 0) -> None:
        self._slots = slots
        self._own = slots.region(region)
        self._decisions = {
            (word, side): slots.place(names.DECISIONS, (word, side)) for word in DECISIONS for side in SIDES
        }
        self._records = {kind: slots.place(names.JOURNAL_RECORDS, (kind,)) for kind in KINDS}
        self._buckets = [slots.place(names.DECISION_SECONDS, (limit,)) for limit in _LIMITS]
        self._sum = slots.place(names.DECISION_SECONDS, (_SUM,))
        self._revisions = RevisionCounts(slots, self._own)
        self._cache = (0, 0, 0)

    def ruled(self, revision: str) -> None:
        """This process decides under a revision from now on, so its count is kept, though it may have been for long."""
        self._revisions.place(revision, DECISIONS[0])

    def decided(self, decision: str, side: str, seconds: float, revision: str) -> None:
        """One check was answered with `allow`, `deny` or `error`, after `seconds`, under a revision or none ("")."""
        place = self._decisions.get((decision, side))
        if place is None:
            place = self._slots.place(names.DECISIONS, (decision, side))
        bucket = self._buckets[bisect_left(BUCKETS, seconds)]
        under = self._revisions.place(revision, decision)
        self._own.add_all(((place, 1), (under, 1), (bucket, 1), (self._sum, round(seconds * 1e9))))

    def told(self, decision: str, side: str, revision: str | None, count: int) -> None:
        """So many were decided elsewhere, under a revision that is shown or another (None)."""
        under = () if revision is None else ((self._revisions.place(revision, decision), count),)
        self._own.add_all(((self._slots.place(names.DECISIONS, (decision, side)), count), *under))

    def shed(self) -> None:
        """One check was refused because no answer could have come in time."""
        self._own.add(names.DECISIONS_SHED)

    def shadowed(self, change: str) -> None:
        """There are shadow policies too: `agree`, `would_deny`, `would_allow`, `skipped` or `error`."""
        self._own.add(names.SHADOW_DECISIONS, change)

    def cached(self, cache: Cache, *, anew: bool) -> None:
        """What became of the cache since it was looked at last; `anew`: it is another one than then."""
        before = (0, 0, 0) if anew else self._cache
        self._cache = now = (cache.hits, cache.misses, cache.bypasses)
        for word, early, late in zip(CACHE, before, now, strict=True):
            self._own.add(names.DECISION_CACHE, word, amount=late - early)
        self._own.put(names.DECISION_CACHE_ENTRIES, value=cache.size)

    def journal_record(self, kind: str, count: int = 1) -> None:
        """Records were kept."""
        known = self._records.get(kind)
        if known is None or count != 1:
            self._own.add(names.JOURNAL_RECORDS, kind, amount=count)
        else:
            self._own.add_one(known)

    def journal_failure(self) -> None:
        """A record could not be kept."""
        self._own.add(names.JOURNAL_FAILURES)


class SharedCollector:
    """All processes' counters together, for a registry of Prometheus' library."""

    def __init__(self, slots: Slots, shown: Revisions) -> None:
        self._slots = slots
        self._shown = shown

    def collect(self) -> Iterator[Metric]:
        """Every metric, as it is now."""
        for name in _COUNTERS:
            yield self._family(CounterMetricFamily, name)
        for name in _GAUGES:
            yield self._family(GaugeMetricFamily, name)
        yield self._family(CounterMetricFamily, names.REVISION_DECISIONS, self._shown.sums())
        yield self._seconds()

    def _family(
        self,
        kind: type[CounterMetricFamily | GaugeMetricFamily],
        name: str,
        sums: Iterable[tuple[Labels, int]] | None = None,
    ) -> Metric:
        metric = names.METRICS[name]
        family = kind(name, metric.help, labels=metric.labels)
        for values, total in self._slots.sums(name) if sums is None else sums:
            family.add_metric(values, total)
        return family

    def _seconds(self) -> Metric:
        counts = dict(self._slots.sums(names.DECISION_SECONDS))
        total, buckets = 0, []
        for limit in _LIMITS:
            total += counts[limit,]
            buckets.append((limit, float(total)))
        family = HistogramMetricFamily(names.DECISION_SECONDS, names.METRICS[names.DECISION_SECONDS].help)
        family.add_metric((), buckets, counts[_SUM,] / 1e9)
        return family
