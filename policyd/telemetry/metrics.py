"""policyd's own metrics, counted here and shown in Prometheus' form.

Law: names, help and labels come from policyd.names; every label value is of a bounded set that stands here, and any
other counts as `other`, but for files that the operator named. What decision processes count too is in memory that
they share (`counters`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from policyd import names
from policyd.errors import (
    CsrError,
    IdentityError,
    IssuanceDenied,
    JournalError,
    SpiffeIdError,
    StateError,
    TokenError,
)
from policyd.telemetry.counters import TABLE, Counters, SharedCollector
from policyd.telemetry.revisions import DECISIONS, Revisions
from policyd.telemetry.slots import Slots
from policyd.telemetry.traces_window import Fill

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
RELOADS: Final = ("taken", "refused")
TYPES: Final = ("clusters", "endpoints", "listeners", "routes")
ISSUANCES: Final = ("attestation", "agent", "workload", "operator", "server", "journal")
KEY_FETCHES: Final = ("new", "same", "failed")
_CHAIN: Final = ("root", "intermediate", "upstream 1", "upstream 2", "upstream 3")
CHAIN: Final = tuple(f"{which}{kind}" for which in ("", "next ", "old ") for kind in _CHAIN)
SPANS: Final = ("taken", "refused")
CONVERGENCE: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
REFUSALS: Final = tuple(
    kind.code for kind in (CsrError, TokenError, IssuanceDenied, IdentityError, SpiffeIdError, JournalError, StateError)
)


class _Counts:
    """A counter's children, one for each combination of label values that can be."""

    def __init__(self, registry: CollectorRegistry, name: str, *values: Iterable[str]) -> None:
        metric = names.METRICS[name]
        counter = Counter(name, metric.help, metric.labels, registry=registry)
        self._values = tuple(frozenset(options) for options in values)
        self._counter = counter
        self._children = {combination: counter.labels(*combination) for combination in product(*values)}

    def add(self, *labels: str, amount: int = 1) -> None:
        """Count."""
        child = self._children.get(labels)
        if child is None:
            known = zip(labels, self._values, strict=True)
            child = self._counter.labels(*(label if label in options else names.OTHER for label, options in known))
        child.inc(amount)


class Metrics:
    """The metrics of one server, in a registry of their own; safe for threads.

    `processes` is how many share its `slots`, of which it is the first itself.
    """

    def __init__(self, processes: int = 1) -> None:
        self.registry = registry = CollectorRegistry()
        self.slots = Slots(TABLE, processes)
        self._own = Counters(self.slots)
        self._revisions = Revisions(self.slots)
        registry.register(SharedCollector(self.slots, self._revisions))
        self._deciding = _gauge(registry, names.DECISION_PROCESSES)
        self._starts = _plain(registry, names.DECISION_PROCESS_STARTS)
        self._exported = _plain(registry, names.EXPORTED_RECORDS)
        self._export_failures = _plain(registry, names.EXPORT_FAILURES)
        self._export_behind = _gauge(registry, names.EXPORT_BEHIND_SECONDS)
        self._reloads = _Counts(registry, names.RELOADS, RELOADS)
        self._change_refused = _gauge(registry, names.CHANGE_REFUSED)
        self._pushes = _Counts(registry, names.XDS_PUSHES, TYPES)
        self._rejections = _Counts(registry, names.XDS_REJECTIONS, TYPES)
        self._connections = _gauge(registry, names.XDS_CONNECTIONS)
        text = names.METRICS[names.XDS_CONVERGENCE].help
        self._convergence = Histogram(names.XDS_CONVERGENCE, text, buckets=CONVERGENCE, registry=registry)
        self._issued = _Counts(registry, names.CERTIFICATES_ISSUED, ISSUANCES)
        self._refused = _Counts(registry, names.CERTIFICATES_REFUSED, REFUSALS)
        self._expiry = _gauge(registry, names.CA_EXPIRY_SECONDS)
        self._shown: frozenset[str] = frozenset()
        self._credentials = _gauge(registry, names.CREDENTIAL_EXPIRY)
        self._files: frozenset[str] = frozenset()
        self._sealed = _plain(registry, names.JOURNAL_SEALED)
        self._unsealable = _gauge(registry, names.JOURNAL_UNSEALABLE)
        self._key_fetches = _Counts(registry, names.KEY_FETCHES, KEY_FETCHES)
        self._key_sets_failing = _gauge(registry, names.KEY_SETS_FAILING)
        self._federated_failing = _gauge(registry, names.FEDERATED_FAILING)
        self._instances_unhealthy = _gauge(registry, names.INSTANCES_UNHEALTHY)
        self._spans = _Counts(registry, names.SPANS, SPANS)
        self._local = _Counts(registry, names.LOCAL_DECISIONS, ("allow", "deny", "error"))
        self._local_lost = _plain(registry, names.LOCAL_DECISIONS_LOST)
        self._local_compared = _Counts(registry, names.LOCAL_DECISIONS_COMPARED, ("same", "different"))
        self._window_bytes = _gauge(registry, names.TRACE_WINDOW_BYTES)
        self._window_limit = _gauge(registry, names.TRACE_WINDOW_LIMIT)
        self._window_traces = _gauge(registry, names.TRACE_WINDOW_TRACES)

    def ruled(self, revision: str) -> None:
        """Decisions are made under this revision from now on."""
        self._revisions.ruled(revision)
        self._own.ruled(revision)

    def decided(self, decision: str, side: str, seconds: float, revision: str) -> None:
        """One check was answered with `allow`, `deny` or `error`, after `seconds`, under a revision or none ("")."""
        self._own.decided(decision, side, seconds, revision)

    def decided_by_proxy(self, decision: str, revision: str, count: int = 1) -> None:
        """Sidecars have decided `allow`, `deny` or `error` by themselves so often, and that is on record."""
        self._local.add(decision, amount=count)
        self._own.told(decision, "inbound", revision if self._revisions.shows(revision) else None, count)

    def local_lost(self, count: int) -> None:
        """So many decisions of proxies are not on record."""
        self._local_lost.inc(count)

    def compared(self, *, differs: bool) -> None:
        """A decision of a proxy was made by policyd too."""
        self._local_compared.add("different" if differs else "same")

    def shed(self) -> None:
        """One check was refused because no answer could have come in time."""
        self._own.shed()

    def shadowed(self, change: str) -> None:
        """There are shadow policies too: `agree`, `would_deny`, `would_allow`, `skipped` or `error`."""
        self._own.shadowed(change)

    def journal_record(self, kind: str, count: int = 1) -> None:
        """Records were kept."""
        self._own.journal_record(kind, count)

    def journal_failure(self) -> None:
        """A record could not be kept."""
        self._own.journal_failure()

    def exported(self, count: int) -> None:
        """So many records were taken by the collector."""
        self._exported.inc(count)

    def export_failed(self) -> None:
        """The collector did not take a batch."""
        self._export_failures.inc()

    def export_behind(self, seconds: float) -> None:
        """So old is the oldest record that the collector has not taken."""
        self._export_behind.set(max(0.0, seconds))

    def deciding(self, count: int) -> None:
        """So many decision processes answer under the revision in force."""
        self._deciding.set(count)

    def process_started(self) -> None:
        """A decision process was started."""
        self._starts.inc()

    def reloaded(self, outcome: str) -> None:
        """A change of the declared files was looked at: `taken` or `refused`."""
        self._reloads.add(outcome)

    def change_refused(self, refused: bool) -> None:
        """Whether a change is being refused now."""
        self._change_refused.set(refused)

    def pushed(self, node_id: str, kind: str) -> None:
        """A response was sent to a proxy; which one is no label."""
        self._pushes.add(kind)

    def rejected(self, node_id: str, kind: str, text: str) -> None:
        """A proxy rejected a response."""
        self._rejections.add(kind)

    def connections(self, count: int) -> None:
        """So many proxies are connected now."""
        self._connections.set(count)

    def converged(self, seconds: float) -> None:
        """A proxy has confirmed all that a change brought it, so long after the change."""
        self._convergence.observe(seconds)

    def issued(self, kind: str) -> None:
        """A certificate was issued."""
        self._issued.add(kind)

    def refused(self, code: str) -> None:
        """A request for a certificate was refused, with an error of this code."""
        self._refused.add(code)

    def keys_fetched(self, outcome: str) -> None:
        """An issuer was asked for its keys: `new`, `same` or `failed`."""
        self._key_fetches.add(outcome)

    def federated_failing(self, count: int) -> None:
        """So many other trust domains have no bundle, or perhaps an old one."""
        self._federated_failing.set(count)

    def keys_failing(self, count: int) -> None:
        """So many key sets could not be fetched the last time."""
        self._key_sets_failing.set(count)

    def instances_unhealthy(self, count: int) -> None:
        """So many instances are probed and not reached."""
        self._instances_unhealthy.set(count)

    def spans(self, taken: int, refused: int) -> None:
        """So many spans were told of, and taken into the window or refused."""
        self._spans.add("taken", amount=taken)
        self._spans.add("refused", amount=refused)

    def window(self, fill: Fill) -> None:
        """So full is the window of traces."""
        self._window_bytes.set(fill.used)
        self._window_limit.set(fill.bound)
        self._window_traces.set(fill.traces)

    def ca_expiry(self, ends: Mapping[str, float]) -> None:
        """When each certificate of the authority expires, in seconds since the epoch; none but these are there."""
        for which in CHAIN:
            if which in ends:
                self._expiry.labels(which).set(ends[which])
            elif which in self._shown:
                self._expiry.remove(which)
        self._shown = frozenset(ends) & frozenset(CHAIN)

    def credential_expiry(self, ends: Mapping[str, float]) -> None:
        """When each file of credentials that is shown expires, in seconds since the epoch; none but these are there."""
        for file in self._files - ends.keys():
            self._credentials.remove(file)
        for file, end in ends.items():
            self._credentials.labels(file).set(end)
        self._files = frozenset(ends)

    def sealed(self, segments: int, trouble: str) -> None:
        """So many segments of the journal were sealed; `trouble` is why some were not, "" if all were."""
        self._sealed.inc(segments)
        self._unsealable.set(bool(trouble))

    def totals(self) -> tuple[int, int, int]:
        """All decisions made, those of proxies that are on record too, and how many were denials and errors."""
        counts = dict.fromkeys(DECISIONS, 0)
        for (decision, _), count in self.slots.sums(names.DECISIONS):
            counts[decision] = counts.get(decision, 0) + count
        return sum(counts.values()), counts["deny"], counts["error"]

    def shadow_totals(self) -> dict[str, int]:
        """All shadow decisions made, by what would change."""
        return {change: count for (change,), count in self.slots.sums(names.SHADOW_DECISIONS)}


def expose(registry: Collector) -> bytes:
    """A registry in Prometheus' text format, without the times of creation, which nothing asks for."""
    return generate_latest(_WithoutCreated(registry))


class _WithoutCreated(Collector):
    def __init__(self, registry: Collector) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not _is_created(sample)]
            yield metric


def _is_created(sample: Sample) -> bool:
    return sample.name.endswith("_created")


def _plain(registry: CollectorRegistry, name: str) -> Counter:
    return Counter(name, names.METRICS[name].help, registry=registry)


def _gauge(registry: CollectorRegistry, name: str) -> Gauge:
    metric = names.METRICS[name]
    return Gauge(name, metric.help, metric.labels, registry=registry)
