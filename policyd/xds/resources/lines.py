"""Lines of access logs: in Istio's form or an operator's, to files or to collectors of OTLP (accesslog.v3.AccessLog).

Law: a line is written when a request has ended, once; no form shows a credential, which access_log sees to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from policyd import access_log
from policyd.mesh.model import Instance
from policyd.mesh.telemetry import Said
from policyd.xds.resources import counting
from policyd.xds.resources.collectors import otlp
from policyd.xds.resources.model import AccessLog, Control, OtlpLog

_LOGGERS: Final = "type.googleapis.com/envoy.extensions.access_loggers"


def written(control: Control, instance: Instance, said: Said) -> list[dict[str, Any]]:
    """All who write lines of an instance's requests."""
    return [_written(instance, log, only) for log, only in _logs(control, said)]


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
        **otlp(log.url, log.cluster),
        "disable_builtin_labels": True,
        "resource_attributes": listed({"service.name": instance.service, "service.instance.id": instance.name}),
        "body": {"string_value": access_log.TEXT.rstrip()},
        "attributes": listed(access_log.JSON),
    }
    return {"name": "envoy.access_loggers.open_telemetry", "typed_config": config}
