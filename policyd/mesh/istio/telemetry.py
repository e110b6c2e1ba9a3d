"""Istio's Telemetry: which metrics, spans and lines of access logs there are of requests, and what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from policyd import names, signals
from policyd.access_log import HIDDEN_HEADERS, check_format
from policyd.mesh.cel import check_cel, check_shown
from policyd.mesh.istio.common import HeaderName, Resource, WorkloadSelector
from policyd.strict import NOTHING, Many, Model

LATER: Final[Mapping[str, str]] = {
    "reportingInterval": "while a connection is open Envoy knows only what has passed in all, which would count twice; "
    "its bytes are counted when it ends",
    "customMetric": "only Istio's own metrics are counted; name one by `metric`",
}
MAX_ENTRIES: Final = 16
MAX_TAGS: Final = 32
# as Istio names the metrics -> as they are counted
METRICS: Final[Mapping[str, str]] = {
    "REQUEST_COUNT": names.MESH_REQUESTS,
    "REQUEST_DURATION": names.MESH_DURATION,
    "REQUEST_SIZE": names.MESH_REQUEST_BYTES,
    "RESPONSE_SIZE": names.MESH_RESPONSE_BYTES,
    "TCP_OPENED_CONNECTIONS": names.MESH_OPENED,
    "TCP_CLOSED_CONNECTIONS": names.MESH_CLOSED,
    "TCP_SENT_BYTES": names.MESH_SENT,
    "TCP_RECEIVED_BYTES": names.MESH_RECEIVED,
    "GRPC_REQUEST_MESSAGES": names.MESH_REQUEST_MESSAGES,
    "GRPC_RESPONSE_MESSAGES": names.MESH_RESPONSE_MESSAGES,
}
# targets that Istio has and proxies here have not
_TARGETS_LATER: Final[Mapping[object, str]] = {
    "ServiceEntry": "a proxy counts all that leaves it in one way; select the callers by `selector`",
    "GatewayClass": "name the Gateways, or write a Telemetry in the root namespace with the mode CLIENT",
}
_OURS: Final = "POLICYD_"
_MESSAGES: Final = ("GRPC_REQUEST_MESSAGES", "GRPC_RESPONSE_MESSAGES")
GATEWAYS: Final = "gateway.networking.k8s.io"
# labels that others depend on: of histograms, of scrapes, and by which both ends of a request are told apart
_KEPT_LABELS: Final = frozenset({"le", "proxy", "instance", "job", signals.REPORTER})
_LABEL: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,62}")

Metric = Literal[
    "ALL_METRICS", "REQUEST_COUNT", "REQUEST_DURATION", "REQUEST_SIZE", "RESPONSE_SIZE", "TCP_OPENED_CONNECTIONS",
    "TCP_CLOSED_CONNECTIONS", "TCP_SENT_BYTES", "TCP_RECEIVED_BYTES", "GRPC_REQUEST_MESSAGES",
    "GRPC_RESPONSE_MESSAGES",
]  # fmt: skip
Mode = Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"]


def check_metric_label(name: str) -> str:
    if not _LABEL.fullmatch(name):
        raise ValueError(f"`{name[:80]}` is no label of a metric; write letters, digits and `_`, as in `request_host`")
    if name in _KEPT_LABELS or name in signals.TAGS - signals.standard_labels({}).keys():
        raise ValueError(f"the label `{name}` is not for Telemetry; use another name")
    return name


def check_shown_header(name: str) -> str:
    if what := HIDDEN_HEADERS.get(name.lower()):
        raise ValueError(f"`{name}` is {what}, which no span shows")
    return name


def check_shown_variable(name: str) -> str:
    if name.startswith(_OURS):
        raise ValueError(f"`{name}` is a setting of policyd's own, which no span shows")
    return name


class Provider(Model):
    """One of policyd.yaml's `extensionProviders`, or `prometheus`, `envoy`, `policyd`."""

    name: Annotated[str, Field(min_length=1, max_length=63)]


class Selector(Model):
    """CLIENT: the proxy of who asks, a gateway too. SERVER: the proxy of who is asked."""

    mode: Mode = "CLIENT_AND_SERVER"


class MetricSelector(Model):
    """One of Istio's metrics (none named: all), and at whose proxy. Labels of messages of gRPC stay as they are."""

    metric: Metric = "ALL_METRICS"
    mode: Mode = "CLIENT_AND_SERVER"


class TagOverride(Model):
    """A label with another value, or none: `value` is an expression in CEL, and needed for UPSERT."""

    operation: Literal["UPSERT", "REMOVE"] = "UPSERT"
    value: Annotated[str, AfterValidator(check_shown)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> TagOverride:
        if (self.value is None) == (self.operation == "UPSERT"):
            raise ValueError("`value` goes with UPSERT, and with nothing else")
        return self


class MetricsOverride(Model):
    """What is otherwise with some metrics: not counted, or by other labels."""

    match: MetricSelector = MetricSelector()
    disabled: bool | None = None
    tag_overrides: Annotated[
        Mapping[Annotated[str, AfterValidator(check_metric_label)], TagOverride], Field(max_length=MAX_TAGS)
    ] = NOTHING

    @model_validator(mode="after")
    def _labels_can_change(self) -> MetricsOverride:
        if self.match.metric in _MESSAGES and self.tag_overrides:
            raise ValueError(
                f"Envoy counts messages by their cluster alone; `{self.match.metric}` takes `disabled` only"
            )
        return self


class Metrics(Model):
    """Changes of the standard metrics; the only provider is `prometheus`."""

    providers: Many[Provider] = ()
    overrides: Annotated[Many[MetricsOverride], Field(max_length=64)] = ()


class LogFilter(Model):
    """Only what this expression in CEL is true of is written, as in `response.code >= 400`."""

    expression: Annotated[str, Field(min_length=1), AfterValidator(check_cel)]


class AccessLogging(Model):
    """Who writes a line of each request, of which ones, or that nobody does."""

    match: Selector = Selector()
    providers: Many[Provider] = ()
    disabled: bool | None = None
    filter: LogFilter | None = None


class LiteralTag(Model):
    """A tag that is always the same."""

    value: Annotated[str, Field(min_length=1, max_length=256)]


class HeaderTag(Model):
    """A tag from a header of the request; no credential."""

    name: Annotated[HeaderName, AfterValidator(check_shown_header)]
    default_value: Annotated[str, Field(max_length=256)] = ""


class FormatterTag(Model):
    """A tag in the words of access logs, as in `%PROTOCOL%`."""

    value: Annotated[str, Field(min_length=1), AfterValidator(check_format)]


class EnvironmentTag(Model):
    """A tag from a variable of the proxy's environment, which is its agent's; an application has its own."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"),
        AfterValidator(check_shown_variable),
    ]
    default_value: Annotated[str, Field(max_length=256)] = ""


class CustomTag(Model):
    """One more tag of spans, from one place."""

    literal: LiteralTag | None = None
    environment: EnvironmentTag | None = None
    header: HeaderTag | None = None
    formatter: FormatterTag | None = None

    @model_validator(mode="after")
    def _one(self) -> CustomTag:
        if [self.literal, self.environment, self.header, self.formatter].count(None) != 3:
            places = "a `literal`, an `environment`, a `header` or a `formatter`"
            raise ValueError(f"a tag comes from one place: {places}")
        return self


class Tracing(Model):
    """Where spans go, of how many requests, and what they say. With `disableSpanReporting` there are none.

    The id of the trace decides which requests are traced, and what a caller traces is traced on. With
    `useRequestIdForTraceSampling` that of the request decides, of what callers trace, too; for Zipkin it always does.
    """

    match: Selector = Selector()
    providers: Annotated[Many[Provider], Field(max_length=1)] = ()
    random_sampling_percentage: Annotated[float, Field(ge=0, le=100)] | None = None
    disable_span_reporting: bool | None = None
    custom_tags: (
        Annotated[Mapping[Annotated[str, Field(min_length=1, max_length=128)], CustomTag], Field(max_length=MAX_TAGS)]
        | None
    ) = None
    enable_istio_tags: bool | None = None
    disable_context_propagation: bool | None = None
    use_request_id_for_trace_sampling: bool | None = None


class TargetRef(Model):
    """A Service of the Telemetry's namespace, or a Gateway of Kubernetes' group: its instances."""

    group: Literal["", "core", "gateway.networking.k8s.io", "networking.istio.io"] = ""
    kind: Literal["Service", "Gateway"]
    name: Annotated[str, Field(min_length=1, max_length=63)]
    namespace: Annotated[str, Field(max_length=63)] = ""

    @field_validator("kind", mode="before")
    @classmethod
    def _is_a_target(cls, kind: object) -> object:
        if isinstance(kind, str) and kind in _TARGETS_LATER:
            raise ValueError(f"a {kind} is no target here; {_TARGETS_LATER[kind]}")
        return kind

    @model_validator(mode="after")
    def _is_there(self) -> TargetRef:
        if self.group not in ((GATEWAYS,) if self.kind == "Gateway" else ("", "core")):
            raise ValueError(
                f"a Service is of the group `core`, a Gateway of `{GATEWAYS}`; write the one that is meant"
            )
        return self


class TelemetrySpec(Model):
    """What holds for instances: of this namespace, with a selector those with its labels, with targets those of theirs;
    in the root one for all.
    """

    selector: WorkloadSelector = WorkloadSelector()
    target_ref: TargetRef | None = None
    target_refs: Annotated[Many[TargetRef], Field(max_length=MAX_ENTRIES)] = ()
    metrics: Annotated[Many[Metrics], Field(max_length=MAX_ENTRIES)] = ()
    tracing: Annotated[Many[Tracing], Field(max_length=MAX_ENTRIES)] = ()
    access_logging: Annotated[Many[AccessLogging], Field(max_length=MAX_ENTRIES)] = ()

    @model_validator(mode="after")
    def _says_something(self) -> TelemetrySpec:
        if not (self.metrics or self.tracing or self.access_logging):
            raise ValueError("it says nothing; add `metrics`, `tracing` or `accessLogging`, or remove it")
        if self.target_ref is not None and self.target_refs:
            raise ValueError("both `targetRef` and `targetRefs`; keep the list")
        if self.targets and self.selector.match_labels:
            raise ValueError(f"both `selector` and `{'targetRefs' if self.target_refs else 'targetRef'}`; keep one")
        said = {metric: sorted(self._disabled(metric)) for metric in _MESSAGES}
        if said[_MESSAGES[0]] != said[_MESSAGES[1]]:
            raise ValueError(
                f"Envoy counts messages both ways or not at all; say the same of {' and '.join(_MESSAGES)}"
            )
        return self

    @property
    def targets(self) -> Sequence[TargetRef]:
        """The targets, of `targetRef`, as it was called when there was one, too."""
        return (*([self.target_ref] if self.target_ref is not None else []), *self.target_refs)

    def _disabled(self, metric: str) -> Iterator[tuple[str, bool]]:
        """At whose proxy a metric by itself is switched on or off."""
        for one in (override for metrics in self.metrics for override in metrics.overrides):
            if one.match.metric == metric and one.disabled is not None:
                yield one.match.mode, one.disabled


class Telemetry(Resource):
    """Istio's Telemetry."""

    api_version: Literal["telemetry.istio.io/v1", "telemetry.istio.io/v1alpha1"] = "telemetry.istio.io/v1"
    kind: Literal["Telemetry"] = "Telemetry"
    spec: TelemetrySpec
