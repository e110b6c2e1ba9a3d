"""How an instance is asked whether it answers (Istio's ReadinessProbe, which is Kubernetes' own)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.common import HeaderName, HeaderValue
from policyd.mesh.matching import check_host
from policyd.strict import Many, Model, PortNumber

MAX_HEADERS = 32
LOOPBACK = "127.0.0.1"

Host = Annotated[str, AfterValidator(check_host)]
Word = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
Seconds = Annotated[int, Field(ge=1, le=3600)]
Times = Annotated[int, Field(ge=1, le=100)]


def _check_asked(text: str) -> str:
    """Return what is asked for: a path, with a query or without."""
    if not text.startswith("/") or len(text) > 2048 or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"`{text[:80]}` is no path; start it with a slash, without spaces")
    return text


class ProbeHeader(Model):
    """A header of the request."""

    name: HeaderName
    value: HeaderValue


class HttpGet(Model):
    """A GET, answered by a status from 200 to 399; certificates are not looked at, as the kubelet does not."""

    port: PortNumber
    path: Annotated[str, AfterValidator(_check_asked)] = "/"
    host: Host = LOOPBACK
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    http_headers: Annotated[Many[ProbeHeader], Field(max_length=MAX_HEADERS)] = ()


class TcpSocket(Model):
    """A connection that is accepted."""

    port: PortNumber
    host: Host = LOOPBACK


class Grpc(Model):
    """grpc.health.v1 in plain text, answered by SERVING."""

    port: PortNumber
    service: Annotated[str, Field(max_length=256)] = ""


class Exec(Model):
    """A command that ends with 0; the machine's agent runs it only where it was started to run such commands."""

    command: Annotated[Many[Word], Field(min_length=1, max_length=100)]


class Probe(Model):
    """What is asked, after a start how long, how often, and after how many equal answers one is believed."""

    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    exec: Exec | None = None
    grpc: Grpc | None = None
    initial_delay_seconds: Annotated[int, Field(ge=0, le=3600)] = 0
    timeout_seconds: Seconds = 1
    period_seconds: Seconds = 10
    success_threshold: Times = 1
    failure_threshold: Times = 3

    @model_validator(mode="after")
    def _one(self) -> Probe:
        if sum(way is not None for way in (self.http_get, self.tcp_socket, self.exec, self.grpc)) != 1:
            raise ValueError("give exactly one of `httpGet`, `tcpSocket`, `exec` and `grpc`")
        return self
