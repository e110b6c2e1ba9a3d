"""What is seen of requests: spans, access logs, and the collectors that are told of them.

Law: a proxy's own headers are not set by anybody, and what is secret stands in a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from annotated_types import MaxLen
from pydantic import AfterValidator, Field, model_validator

from policyd.access_log import check_format
from policyd.config.audit import check_header
from policyd.config.urls import CollectorUrl, OtlpUrl
from policyd.strict import NOTHING, Model, Name, Size

_BUILT_IN: Final = frozenset({"prometheus", "envoy", "policyd"})
OWN_HEADERS: Final = frozenset({
    "connection", "content-encoding", "content-length", "content-type", "host", "te", "transfer-encoding",
})  # fmt: skip
LogPath = Annotated[str, Field(pattern=r"^/[\x21-\x7e]{1,255}$")]


def _check_provider(name: str) -> str:
    if name in _BUILT_IN:
        raise ValueError(f"the provider `{name}` is there without being declared; use another name")
    return name


def _check_sent(name: str) -> str:
    """The name of a header that proxies send to a collector, in lower case."""
    if check_header(name) in OWN_HEADERS:
        raise ValueError(f"`{name}` is the proxy's own header; a collector knows who sends by another one")
    return name.lower()


def _check_credential(path: str) -> str:
    """The path of a file in the folder of credentials."""
    parts = path.split("/")
    if not 2 <= len(parts) <= 3 or parts[0] != "credentials" or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"`{path[:80]}` is no file below `credentials/`; put it, or a link to it, there")
    return path


# of each, the file that holds its value
SentHeaders = Annotated[
    Mapping[Annotated[str, AfterValidator(_check_sent)], Annotated[str, AfterValidator(_check_credential)]], MaxLen(8)
]


class TracingSettings(Model):
    """Where proxies send the spans of requests, by OTLP over HTTP (`https://collector:4318/v1/traces`; none: to
    policyd, which keeps the last ones in a `window`), and of how many in a hundred that have no trace yet.
    """

    endpoint: OtlpUrl | None = None
    headers: SentHeaders = NOTHING
    sampling: Annotated[float, Field(ge=0, le=100)] = 1.0
    window: Annotated[Size, Field(ge=0, le=1 << 32)] = 32 << 20

    @model_validator(mode="after")
    def _whom(self) -> TracingSettings:
        if self.headers and self.endpoint is None:
            raise ValueError("`headers` go with an `endpoint`: policyd knows proxies by their certificates")
        return self


class LogFormatSettings(Model):
    """What a line says: a `text` in the words of Envoy's access logs, or `labels`, an object of them."""

    text: Annotated[str, AfterValidator(check_format)] | None = None
    labels: Mapping[str, Annotated[str, AfterValidator(check_format)]] = NOTHING

    @model_validator(mode="after")
    def _one(self) -> LogFormatSettings:
        if (self.text is None) is not bool(self.labels):
            raise ValueError("a form is a `text`, or an object of `labels`")
        return self


class FileLogSettings(Model):
    """Lines in a file of each proxy's machine."""

    path: LogPath
    log_format: LogFormatSettings | None = None


class CollectorSettings(Model):
    """A collector of OTLP, over HTTP or gRPC; here a whole URL, where Istio has a service and a port."""

    endpoint: OtlpUrl
    headers: SentHeaders = NOTHING


class ZipkinSettings(Model):
    """Zipkin, and which headers tell the next hop of the trace: B3's, or those and W3C's."""

    endpoint: CollectorUrl
    headers: SentHeaders = NOTHING
    trace_context_option: Literal["USE_B3", "USE_B3_WITH_W3C_PROPAGATION"] = "USE_B3"


class ProviderSettings(Model):
    """Where Telemetries may send what is seen of requests, by its name."""

    name: Annotated[Name, AfterValidator(_check_provider)]
    envoy_file_access_log: FileLogSettings | None = None
    envoy_otel_als: CollectorSettings | None = None
    opentelemetry: CollectorSettings | None = None
    zipkin: ZipkinSettings | None = None

    @model_validator(mode="after")
    def _one(self) -> ProviderSettings:
        kinds = (self.envoy_file_access_log, self.envoy_otel_als, self.opentelemetry, self.zipkin)
        if kinds.count(None) != len(kinds) - 1:
            known = "`envoyFileAccessLog`, `envoyOtelAls`, `opentelemetry` or `zipkin`"
            raise ValueError(f"a provider is one of {known}")
        return self
