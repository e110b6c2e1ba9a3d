"""Istio's Gateway: the ports at the edge, the hosts that are served there, and with which certificates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from policyd.mesh.istio.common import Labels, Networking, Resource, Section
from policyd.mesh.istio.server_tls import ServerTls
from policyd.mesh.matching import check_host_pattern
from policyd.strict import Many, Model, Name, PortNumber, check_label

LATER: Final[Mapping[str, str]] = {
    "bind": "a gateway listens at its `address` in workloads.yaml",
    "defaultEndpoint": "a gateway leads on by VirtualServices; bind one to it",
    "targetPort": "the ports that a gateway opens are its `listen` in workloads.yaml",
    "insecureSkipVerify": "a certificate that is wanted is checked; where none is needed, write `SIMPLE`",
}
# what servers may be in Istio and not here: what to write instead
_PROTOCOLS: Final[Mapping[str, str]] = {
    "MONGO": "nothing here reads Mongo's protocol; write `TCP`",
    "GRPC-WEB": "sidecars translate it; write `HTTP` here, and `grpc-web` at the Service's port",
}


def _check_server_protocol(given: Any) -> Any:
    """Return what may be a protocol of a server."""
    if isinstance(given, str) and given in _PROTOCOLS:
        raise ValueError(f"`{given}` is no protocol of a server here: {_PROTOCOLS[given]}")
    return given


def _check_server_host(text: str) -> str:
    """Return a host pattern, with or without the namespace (`.`: the Gateway's, `*`: any) of those that may use it."""
    namespace, slash, host = text.rpartition("/")
    if slash and namespace not in (".", "*"):
        check_label(namespace)
    check_host_pattern(host)
    return text


class ServerPort(Model):
    """A port at the edge."""

    number: PortNumber
    name: Name
    protocol: Annotated[
        Literal["HTTP", "HTTP2", "GRPC", "HTTPS", "TLS", "TCP"], BeforeValidator(_check_server_protocol)
    ]


class Server(Model):
    """A port at the edge and the hosts that are served there; `<namespace>/` before one says whose rules may be."""

    port: ServerPort
    hosts: Annotated[Many[Annotated[str, AfterValidator(_check_server_host)]], Field(min_length=1)]
    tls: ServerTls | None = None
    name: Annotated[str, Field(max_length=253)] | None = None

    @model_validator(mode="after")
    def _protocol(self) -> Server:
        protocol = self.port.protocol
        if protocol in ("HTTPS", "TLS") and (self.tls is None or self.tls.mode is None):
            raise ValueError(f"`{protocol}` needs a certificate; give `tls` with its `mode`")
        if self.tls is None:
            return self
        if self.tls.https_redirect and (self.encrypted or self.section != "http"):
            raise ValueError("`httpsRedirect` is for servers in plain text; remove it")
        if protocol in ("HTTP", "HTTP2", "GRPC") and self.tls.mode is not None:
            raise ValueError(f"`{protocol}` is plain text; write `HTTPS`, or remove `tls.mode`")
        if protocol == "TCP" and self.section == "tls":
            raise ValueError("`TCP` has no names to go by; write `TLS`, or remove `tls`")
        if protocol == "HTTPS" and self.to_every_service:
            raise ValueError("what `AUTO_PASSTHROUGH` passes on is not looked into; write `TLS`")
        return self

    @property
    def encrypted(self) -> bool:
        """Whether clients speak TLS to it."""
        return self.port.protocol in ("HTTPS", "TLS") or (self.tls is not None and self.tls.mode is not None)

    @property
    def for_peers(self) -> bool:
        """Whether it proves itself by its identity of the mesh, and wants one."""
        return self.tls is not None and self.tls.mode == "ISTIO_MUTUAL"

    @property
    def takes_peers(self) -> bool:
        """Whether workloads of the mesh may come by their identity: nobody else's certificate is wanted then."""
        redirects = self.tls is not None and self.tls.https_redirect
        plain_requests = not self.encrypted and self.section == "http" and not redirects
        return self.for_peers or (self.section == "tls" and not self.to_every_service) or plain_requests

    @property
    def to_every_service(self) -> bool:
        """Whether the name that is asked for says which Service of the mesh is meant, without a rule."""
        return self.tls is not None and self.tls.mode == "AUTO_PASSTHROUGH"

    @property
    def section(self) -> Section:
        """Which rules lead on: of requests, of connections, of TLS that is passed on."""
        if self.tls is not None and self.tls.mode in ("PASSTHROUGH", "AUTO_PASSTHROUGH"):
            return "tls"
        return "tcp" if self.port.protocol in ("TLS", "TCP") else "http"

    @property
    def bare_hosts(self) -> tuple[str, ...]:
        """The hosts, whoever may use them."""
        return tuple(host.rpartition("/")[2] for host in self.hosts)

    def hosts_for(self, own: str, namespace: str) -> tuple[str, ...]:
        """The hosts that VirtualServices of a namespace may use; `own` is the Gateway's namespace."""
        found = []
        for text in self.hosts:
            who, slash, host = text.rpartition("/")
            if not slash or who == "*" or namespace == (own if who == "." else who):
                found.append(host)
        return tuple(found)


class GatewaySpec(Model):
    """Which gateway instances (by labels, in any namespace) open which ports."""

    selector: Annotated[Labels, Field(min_length=1)]
    servers: Annotated[Many[Server], Field(min_length=1)]


class Gateway(Resource):
    """Istio's Gateway."""

    api_version: Networking = "networking.istio.io/v1"
    kind: Literal["Gateway"] = "Gateway"
    spec: GatewaySpec
