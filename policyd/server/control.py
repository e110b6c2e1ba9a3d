"""What proxies are told of the control plane, from the settings and from where it listens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from policyd import access_log
from policyd.config.addresses import Address
from policyd.config.observing import FileLogSettings
from policyd.config.settings import Settings
from policyd.mesh.telemetry import FILE, WINDOW
from policyd.spiffe import SpiffeId
from policyd.xds.resources.model import OTLP_CLUSTER, AccessLog, Control, OtlpLog, Tracing

STDOUT = "/dev/stdout"


def control_of(settings: Settings, decide: Sequence[Address]) -> Control:
    """Where decisions are asked for (`decide`), and where lines and spans of requests go."""
    ports = tuple(address.port for address in decide)
    return Control(
        decide[0].host,
        ports,
        SpiffeId.server(settings.trust_domain),
        tracing=_tracing(settings),
        access_log=_access_log(settings, settings.access_log_file) if settings.access_log_file else None,
        spans=dict(_spans(settings)),
        logs=dict(_logs(settings)),
    )


def _tracing(settings: Settings) -> Tracing | None:
    spans = settings.tracing
    if not spans.endpoint and not spans.window:
        return None
    return Tracing(spans.endpoint or "", spans.sampling, headers=spans.headers)


def _access_log(settings: Settings, path: str) -> AccessLog:
    form = settings.access_log_format
    if settings.access_log_encoding == "JSON":
        return AccessLog(path, json.loads(form) if form else access_log.JSON)
    return AccessLog(path, form or access_log.TEXT)


def _spans(settings: Settings) -> Iterator[tuple[str, Tracing]]:
    percent = settings.tracing.sampling
    if settings.tracing.window:
        yield WINDOW, Tracing("", percent)
    for one in settings.extension_providers:
        way = _cluster(one.name)
        if one.opentelemetry is not None:
            yield one.name, Tracing(one.opentelemetry.endpoint, percent, way, headers=one.opentelemetry.headers)
        elif one.zipkin is not None:
            w3c = one.zipkin.trace_context_option == "USE_B3_WITH_W3C_PROPAGATION"
            url, headers = one.zipkin.endpoint, one.zipkin.headers
            yield one.name, Tracing(url, percent, way, zipkin=True, w3c=w3c, headers=headers)


def _logs(settings: Settings) -> Iterator[tuple[str, AccessLog | OtlpLog]]:
    yield FILE, _access_log(settings, settings.access_log_file or STDOUT)
    for one in settings.extension_providers:
        if one.envoy_file_access_log is not None:
            yield one.name, _file(one.envoy_file_access_log)
        elif one.envoy_otel_als is not None:
            said = one.envoy_otel_als
            yield one.name, OtlpLog(said.endpoint, _cluster(one.name), said.headers)


def _file(provider: FileLogSettings) -> AccessLog:
    form = provider.log_format
    return AccessLog(provider.path, access_log.TEXT if form is None else form.text or form.labels)


def _cluster(name: str) -> str:
    return f"{OTLP_CLUSTER}/{name}"
