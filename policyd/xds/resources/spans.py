"""What Envoys tell of the spans of requests, and to whom (HttpConnectionManager.Tracing).

Law: a span says what was decided, and by the decision's own id, so that it leads to the record; the query of a URL is
not in it, as it is in no record. What a caller traces is traced on, whatever the share of others. What
is not traced pays as little for that as Envoy lets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from policyd.mesh.model import Instance
from policyd.mesh.telemetry import Spans
from policyd.names import AUTHZ_FILTER, METADATA_DECISION, METADATA_DECISION_ID, METADATA_POLICY, SPAN_TAGS
from policyd.xds.agreed import XDS_CLUSTER
from policyd.xds.resources import counting
from policyd.xds.resources.collectors import TIMEOUT, otlp
from policyd.xds.resources.model import Control, Decided, Tracing

_SAMPLERS: Final = "type.googleapis.com/envoy.extensions.tracers.opentelemetry.samplers.v3"
_COMMON: Final = "type.googleapis.com/envoy.extensions"
_IS_TRACED: Final = {
    "name": "traceparent",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
        "header_name": "traceparent",
    },
}
# by itself Envoy traces no request whose id is none of its own kind, whatever sampler and caller say
_ANY_ID: Final = {
    "typed_config": {
        "@type": f"{_COMMON}.request_id.uuid.v3.UuidRequestIdConfig",
        "use_request_id_for_trace_sampling": False,
    }
}
_DECISION: Final = (METADATA_DECISION, METADATA_POLICY, METADATA_DECISION_ID)


def traced(control: Control, instance: Instance, said: Spans, decided: Decided | None = None) -> dict[str, Any]:
    """The fields of a connection manager, none where nothing is traced; `decided` as for `Seen.inbound`."""
    tracing = control.spans.get(said.provider) if said.provider else control.tracing
    if tracing is None or said.disabled:
        return {}
    percent = tracing.percent if said.percent is None else said.percent
    fields: dict[str, Any] = {"custom_tags": [*_own_tags(instance, said, decided), *_custom_tags(said)]}
    if tracing.zipkin or said.by_request_id:
        fields["random_sampling"] = {"value": percent}
    if not said.propagates:
        fields["no_context_propagation"] = True
    provider = (
        _zipkin(tracing)
        if tracing.zipkin
        else _opentelemetry(tracing, instance, None if said.by_request_id else percent)
    )
    made = {"tracing": {"provider": provider, **fields}}
    return made if "random_sampling" in fields else {**made, "request_id_extension": _ANY_ID}


def to_policyd(control: Control) -> list[dict[str, Any]]:
    """Filters of the way to policyd: the trace of a request that is not traced is not told there.

    Envoy says with each question which span it is of. Of 99 requests in a hundred nobody will ever see one, and to
    read it takes policyd a twentieth of what a decision does; what a caller began stands in the question itself.
    """
    if all(one.zipkin for one in (*([control.tracing] if control.tracing else []), *control.spans.values())):
        return []
    taken_away = counting.removes("traceparent", "tracestate")
    matched = {"input": _IS_TRACED, "value_match": {"suffix": "-01"}}
    skipped = {
        "action": {"name": "skip", "typed_config": {"@type": f"{_COMMON}.filters.common.matcher.action.v3.SkipFilter"}}
    }
    config = {
        "@type": f"{_COMMON}.common.matching.v3.ExtensionWithMatcher",
        "extension_config": taken_away,
        "xds_matcher": {
            "matcher_list": {"matchers": [{"predicate": {"single_predicate": matched}, "on_match": skipped}]}
        },
    }
    return [{"name": "untraced", "typed_config": config}]


def _own_tags(instance: Instance, said: Spans, decided: Decided | None) -> Iterator[dict[str, Any]]:
    party = counting.party(instance)
    yield {"tag": "policyd.instance", "literal": {"value": party.workload}}
    if said.istio_tags:
        istio = {"canonical_revision": party.version}
        yield from ({"tag": f"istio.{name}", "literal": {"value": value}} for name, value in istio.items())
    yield {"tag": "http.url", "value": "%REQ(:SCHEME)%://%REQ(:AUTHORITY)%%PATH(NQ)%"}
    if decided is None:
        yield from (_by_policyd(name) for name in _DECISION)
    else:
        told = zip(_DECISION, (decided.decision, decided.policy, decided.decision_id), strict=True)
        yield from ({"tag": f"{SPAN_TAGS}.{name}", "value": value} for name, value in told)


def _custom_tags(said: Spans) -> Iterator[dict[str, Any]]:
    """Those of Telemetries (type.tracing.v3.CustomTag)."""
    for name, tag in sorted(said.tags.items()):
        if tag.literal is not None:
            yield {"tag": name, "literal": {"value": tag.literal.value}}
        elif tag.environment is not None:
            variable = {"name": tag.environment.name, "default_value": tag.environment.default_value}
            yield {"tag": name, "environment": variable}
        elif tag.header is not None:
            header = {"name": tag.header.name, "default_value": tag.header.default_value}
            yield {"tag": name, "request_header": header}
        elif tag.formatter is not None:
            yield {"tag": name, "value": tag.formatter.value}


def _by_policyd(name: str) -> dict[str, Any]:
    """What the decision put into the request's metadata (type.tracing.v3.CustomTag)."""
    found = {"key": AUTHZ_FILTER, "path": [{"key": name}]}
    return {"tag": f"{SPAN_TAGS}.{name}", "metadata": {"kind": {"request": {}}, "metadata_key": found}}


def _opentelemetry(tracing: Tracing, instance: Instance, percent: float | None) -> dict[str, Any]:
    """The tracer; with None the connection manager says what is traced."""
    config = {
        "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
        **_collector(tracing),
        **({"sampler": _sampler(percent)} if percent is not None else {}),
        "service_name": instance.service,
    }
    return {"name": "envoy.tracers.opentelemetry", "typed_config": config}


def _zipkin(tracing: Tracing) -> dict[str, Any]:
    parts = urlsplit(tracing.url)
    config = {
        "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
        "collector_cluster": tracing.cluster,
        "collector_endpoint": parts.path or "/api/v2/spans",
        "collector_endpoint_version": "HTTP_JSON",
        "collector_hostname": parts.netloc,
        "trace_id_128bit": True,
        "shared_span_context": False,
        **({"trace_context_option": "USE_B3_WITH_W3C_PROPAGATION"} if tracing.w3c else {}),
    }
    return {"name": "envoy.tracers.zipkin", "typed_config": config}


def _collector(tracing: Tracing) -> dict[str, Any]:
    """Where spans go: to a server, or to policyd, on the way by which configuration comes."""
    if not tracing.url:
        return {"grpc_service": {"envoy_grpc": {"cluster_name": XDS_CLUSTER}, "timeout": TIMEOUT}}
    return otlp(tracing.url, tracing.cluster)


def _sampler(percent: float) -> dict[str, Any]:
    """What a caller has begun to trace is traced on, and else so many of a hundred.

    The connection manager's own sampling would cut what callers trace to its share once more.
    """
    share = {"numerator": round(percent * 10_000), "denominator": "MILLION"}
    root = {"@type": f"{_SAMPLERS}.TraceIdRatioBasedSamplerConfig", "sampling_percentage": share}
    by_parent = {
        "@type": f"{_SAMPLERS}.ParentBasedSamplerConfig",
        "wrapped_sampler": {"name": "envoy.tracers.opentelemetry.samplers.trace_id_ratio_based", "typed_config": root},
    }
    return {"name": "envoy.tracers.opentelemetry.samplers.parent_based", "typed_config": by_parent}
