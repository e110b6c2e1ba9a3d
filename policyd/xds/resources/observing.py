"""What is seen of requests: counts, lines of an access log, and spans, sent to a collector over OTLP by W3C's context.

Law: without a collector nothing changes. A span says what was decided, and by the decision's own id, so that it leads
to the record; the query of a URL is not in it, as it is in no record.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from policyd import access_log
from policyd.mesh.model import Instance, Mesh, Served
from policyd.mesh.telemetry import NOTHING_SAID, Said, Spans, said_of
from policyd.names import METADATA_DECISION, METADATA_DECISION_ID, METADATA_POLICY, SPAN_TAGS
from policyd.xds.resources import counting, policies, tls
from policyd.xds.resources.filters import AUTHZ_FILTER, GRPC_STATS
from policyd.xds.resources.model import XDS_CLUSTER, AccessLog, Control, OtlpLog, Tracing, socket

STATIC_CLUSTERS: Final = frozenset({tls.SDS_CLUSTER, XDS_CLUSTER})  # those of a proxy's bootstrap
TIMEOUT: Final = "5s"
PORTS: Final = {"http": 80, "https": 443, "grpc": 4317, "grpcs": 4317}  # where a URL names none
_LOGGERS: Final = "type.googleapis.com/envoy.extensions.access_loggers"
_SAMPLERS: Final = "type.googleapis.com/envoy.extensions.tracers.opentelemetry.samplers.v3"
_DECISION: Final = (METADATA_DECISION, METADATA_POLICY, METADATA_DECISION_ID)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen of an instance's requests: `asks` is said of those that it sends, `asked` of those that it gets.

    Each method gives what a connection manager says of its requests (HttpConnectionManager).
    """

    control: Control
    instance: Instance
    asks: Said = NOTHING_SAID
    asked: Said = NOTHING_SAID

    def inbound(self, served: Served, *, encrypted: bool, decided: counting.Tags | None = None) -> dict[str, Any]:
        """At the sidecar of who is asked; `decided` as for `counting.inbound`."""
        counted = counting.inbound(
            self.instance, served, encrypted=encrypted, counts=self.asked.counts, decided=decided
        )
        return self._said(self.asked, counted)

    def outbound(self) -> dict[str, Any]:
        """At the Envoy of who asks, a gateway too."""
        return self._said(self.asks, counting.outbound(self.instance, self.asks.counts))

    def inside(self) -> dict[str, Any]:
        """Of requests that came through a tunnel within it."""
        return self._said(self.asks, counting.inside(self.instance, self.asks.counts))

    def messages(self, *, asked: bool) -> list[dict[str, Any]]:
        """The filter that counts messages of gRPC, of requests that it gets (`asked`) or sends."""
        counts = (self.asked if asked else self.asks).counts
        off = all(counts.get(one, counting.AS_IT_IS).disabled for one in counting.MESSAGES)
        return [] if off else [GRPC_STATS]

    def connections(self) -> dict[str, Any]:
        """Of connections that become tunnels within it (TcpProxy)."""
        counted = counting.connections(self.instance, self.asks.counts)
        return {"access_log": counted, "access_log_options": counting.CONNECTED}

    def _said(self, said: Said, counted: list[dict[str, Any]]) -> dict[str, Any]:
        written = [_written(self.instance, log, only) for log, only in _logs(self.control, said)]
        return {
            "access_log": [*counted, *written],
            "access_log_options": counting.TUNNELS,
            **_traced(self.control, self.instance, said.spans),
        }


def seen(mesh: Mesh, control: Control, instance: Instance) -> Seen:
    """What the settings and the Telemetries of a mesh say of an instance."""
    if not mesh.telemetries:
        return Seen(control, instance)
    is_logged = control.access_log is not None
    asks = said_of(mesh.telemetries, instance, "CLIENT", is_logged=is_logged)
    return Seen(control, instance, asks, said_of(mesh.telemetries, instance, "SERVER", is_logged=is_logged))


def _logs(control: Control, said: Said) -> Iterator[tuple[AccessLog | OtlpLog, str]]:
    """Where lines are written, and of which requests ("": of all)."""
    if said.logs is None:
        yield from [(control.access_log, "")] if control.access_log is not None else ()
        return
    for name, only in said.logs.items():
        if name in control.logs:
            yield control.logs[name], only


def _written(instance: Instance, log: AccessLog | OtlpLog, only: str) -> dict[str, Any]:
    """A line for each request that has ended."""
    made = _to_collector(instance, log) if isinstance(log, OtlpLog) else _to_file(log)
    if not only:
        return {**made, "filter": counting.ENDED}
    which = {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {"@type": f"{_LOGGERS}.filters.cel.v3.ExpressionFilter", "expression": only},
        }
    }
    return {**made, "filter": {"and_filter": {"filters": [counting.ENDED, which]}}}


def _to_file(log: AccessLog) -> dict[str, Any]:
    form: dict[str, Any] = {"text_format_source": {"inline_string": log.form}}
    if not isinstance(log.form, str):
        form = {"json_format": dict(log.form)}
    config = {"@type": f"{_LOGGERS}.file.v3.FileAccessLog", "path": log.path, "log_format": form}
    return {"name": "envoy.access_loggers.file", "typed_config": config}


def _to_collector(instance: Instance, log: OtlpLog) -> dict[str, Any]:
    """Istio's line as the body, and what its JSON form has as attributes, as in Istio (envoyOtelAls)."""

    def listed(values: Mapping[str, str]) -> dict[str, Any]:
        return {"values": [{"key": name, "value": {"string_value": value}} for name, value in values.items()]}

    config = {
        "@type": f"{_LOGGERS}.open_telemetry.v3.OpenTelemetryAccessLogConfig",
        "log_name": "otel_envoy_accesslog",
        **_otlp(log.url, log.cluster),
        "disable_builtin_labels": True,
        "resource_attributes": listed({"service.name": instance.service, "service.instance.id": instance.name}),
        "body": {"string_value": access_log.TEXT.rstrip()},
        "attributes": listed(access_log.JSON),
    }
    return {"name": "envoy.access_loggers.open_telemetry", "typed_config": config}


def _traced(control: Control, instance: Instance, said: Spans) -> dict[str, Any]:
    tracing = control.spans.get(said.provider) if said.provider else control.tracing
    if tracing is None or said.disabled:
        return {}
    percent = tracing.percent if said.percent is None else said.percent
    fields: dict[str, Any] = {"custom_tags": [*_own_tags(instance, said), *_custom_tags(said)]}
    if tracing.zipkin:
        fields["random_sampling"] = {"value": percent}
    if not said.propagates:
        fields["no_context_propagation"] = True
    provider = _zipkin(tracing) if tracing.zipkin else _opentelemetry(tracing, instance, percent)
    return {"tracing": {"provider": provider, **fields}}


def _own_tags(instance: Instance, said: Spans) -> Iterator[dict[str, Any]]:
    party = counting.party(instance)
    yield {"tag": "policyd.instance", "literal": {"value": party.workload}}
    if said.istio_tags:
        istio = {"canonical_revision": party.version}
        yield from ({"tag": f"istio.{name}", "literal": {"value": value}} for name, value in istio.items())
    yield {"tag": "http.url", "value": "%REQ(:SCHEME)%://%REQ(:AUTHORITY)%%PATH(NQ)%"}
    yield from (_decided(name) for name in _DECISION)


def _custom_tags(said: Spans) -> Iterator[dict[str, Any]]:
    """Those of Telemetries (type.tracing.v3.CustomTag)."""
    for name, tag in sorted(said.tags.items()):
        if tag.literal is not None:
            yield {"tag": name, "literal": {"value": tag.literal.value}}
        elif tag.header is not None:
            header = {"name": tag.header.name, "default_value": tag.header.default_value}
            yield {"tag": name, "request_header": header}
        elif tag.formatter is not None:
            yield {"tag": name, "value": tag.formatter.value}


def _opentelemetry(tracing: Tracing, instance: Instance, percent: float) -> dict[str, Any]:
    config = {
        "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
        **_collector(tracing),
        "sampler": _sampler(percent),
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
    return _otlp(tracing.url, tracing.cluster)


def _otlp(url: str, cluster: str) -> dict[str, Any]:
    """How OTLP is spoken there, as the URL says: by gRPC or by HTTP."""
    if _is_grpc(url):
        return {"grpc_service": {"envoy_grpc": {"cluster_name": cluster}, "timeout": TIMEOUT}}
    return {"http_service": {"http_uri": {"uri": url, "cluster": cluster, "timeout": TIMEOUT}}}


def _is_grpc(url: str) -> bool:
    return url.startswith(("grpc:", "grpcs:"))


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


def clusters(control: Control) -> Iterator[dict[str, Any]]:
    """The ways to collectors that are no part of policyd."""
    spans = [*([control.tracing] if control.tracing is not None else []), *control.spans.values()]
    logs = [one for one in control.logs.values() if isinstance(one, OtlpLog)]
    ways = [*((one.cluster, one.url) for one in spans), *((one.cluster, one.url) for one in logs)]
    yield from (_cluster(name, url) for name, url in ways if url)


def _cluster(name: str, url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    endpoint = {"endpoint": {"address": socket(host, port)}}
    made: dict[str, Any] = {
        "name": name,
        "type": "STATIC" if _is_address(host) else "STRICT_DNS",
        "connect_timeout": policies.CONNECT_TIMEOUT,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": policies.protocol(
            "http2_protocol_options" if _is_grpc(url) else "http_protocol_options"
        ),
    }
    if parts.scheme in ("https", "grpcs"):
        made["transport_socket"] = tls.to_server(host, *(["h2"] if _is_grpc(url) else []))
    return made


def _decided(name: str) -> dict[str, Any]:
    """What the decision put into the request's metadata (type.tracing.v3.CustomTag)."""
    found = {"key": AUTHZ_FILTER, "path": [{"key": name}]}
    return {"tag": f"{SPAN_TAGS}.{name}", "metadata": {"kind": {"request": {}}, "metadata_key": found}}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
