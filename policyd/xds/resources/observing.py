"""What is seen of requests: counts, lines of an access log, and spans, sent to a collector over OTLP by W3C's context.

Law: without a collector nothing changes. A span says what was decided, and by the decision's own id, so that it leads
to the record; the query of a URL is not in it, as it is in no record.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final
from urllib.parse import urlsplit

from policyd.mesh.model import Instance
from policyd.names import METADATA_DECISION, METADATA_DECISION_ID, METADATA_POLICY, SPAN_TAGS
from policyd.xds.resources import counting, policies, tls
from policyd.xds.resources.filters import AUTHZ_FILTER
from policyd.xds.resources.model import XDS_CLUSTER, AccessLog, Control, Tracing, socket

CLUSTER: Final = "policyd-otlp"
STATIC_CLUSTERS: Final = frozenset({tls.SDS_CLUSTER, XDS_CLUSTER})  # those of a proxy's bootstrap
TIMEOUT: Final = "5s"
_SAMPLERS: Final = "type.googleapis.com/envoy.extensions.tracers.opentelemetry.samplers.v3"
_DECISION: Final = (METADATA_DECISION, METADATA_POLICY, METADATA_DECISION_ID)


def observed(control: Control, instance: Instance, counted: list[dict[str, Any]]) -> dict[str, Any]:
    """What a connection manager says of its requests: what is `counted` of them, and their spans, if so."""
    logged = [_written(control.access_log)] if control.access_log is not None else []
    return {
        "access_log": [*counted, *logged],
        "access_log_options": counting.TUNNELS,
        **_traced(control, instance),
    }


def _written(log: AccessLog) -> dict[str, Any]:
    """A line for each request that has ended (access_loggers.file.v3.FileAccessLog)."""
    form: dict[str, Any] = {"text_format_source": {"inline_string": log.form}}
    if not isinstance(log.form, str):
        form = {"json_format": dict(log.form)}
    config = {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": log.path,
        "log_format": form,
    }
    return {"name": "envoy.access_loggers.file", "filter": counting.ENDED, "typed_config": config}


def _traced(control: Control, instance: Instance) -> dict[str, Any]:
    if control.tracing is None:
        return {}
    config = {
        "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
        **_collector(control.tracing),
        "sampler": _sampler(control.tracing.percent),
        "service_name": instance.service,
    }
    party = counting.party(instance)
    said = {"policyd.instance": party.workload, "istio.canonical_revision": party.version}
    tags = [
        *({"tag": name, "literal": {"value": value}} for name, value in said.items()),
        {"tag": "http.url", "value": "%REQ(:SCHEME)%://%REQ(:AUTHORITY)%%PATH(NQ)%"},
        *(_decided(name) for name in _DECISION),
    ]
    return {
        "tracing": {
            "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": config},
            "custom_tags": tags,
        }
    }


def _collector(tracing: Tracing) -> dict[str, Any]:
    """Where spans go: to a server, or to policyd, on the way by which configuration comes."""
    if not tracing.url:
        return {"grpc_service": {"envoy_grpc": {"cluster_name": XDS_CLUSTER}, "timeout": TIMEOUT}}
    return {"http_service": {"http_uri": {"uri": tracing.url, "cluster": CLUSTER, "timeout": TIMEOUT}}}


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


def cluster(tracing: Tracing) -> dict[str, Any]:
    """The way to a collector that is no part of policyd."""
    parts = urlsplit(tracing.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    endpoint = {"endpoint": {"address": socket(host, port)}}
    made: dict[str, Any] = {
        "name": CLUSTER,
        "type": "STATIC" if _is_address(host) else "STRICT_DNS",
        "connect_timeout": policies.CONNECT_TIMEOUT,
        "load_assignment": {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": policies.protocol("http_protocol_options"),
    }
    if parts.scheme == "https":
        made["transport_socket"] = tls.to_server(host)
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
