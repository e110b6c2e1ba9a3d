"""What the resource builders share besides the Mesh: where policyd's own servers are, and names.

Law: names of clusters and routes are made here, so that a route cannot name a cluster by another spelling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from policyd.spiffe import SpiffeId

AUTHZ_CLUSTER = "policyd-authz"
OTLP_CLUSTER = "policyd-otlp"  # the way to a collector
OUTBOUND_ROUTES = "outbound"
# clusters, and the listeners that they lead to, which no socket leads to
INNER = "inner"
GUARD = "inner/tls"
GUARD_ANY = "inner/any"
LEAVING = "inner/leaving"
SERVED_TLS = "inner/served-tls"
SNIFFED = "inner/sniffed"
SERVED_ANY = "inner/served-any"
CAPTURED = "inner/captured"


@dataclass(frozen=True, slots=True)
class Tracing:
    """Where spans go (OTLP, or `zipkin`'s JSON; "": to policyd), and of how many requests in a hundred.

    `cluster` is the way there, and `headers` say who sends: of each, the file of its value. With `zipkin` the next hop
    is told of the trace by B3's headers, and by W3C's too with `w3c`; without, by W3C's.
    """

    url: str
    percent: float
    cluster: str = OTLP_CLUSTER
    zipkin: bool = False
    w3c: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AccessLog:
    """Where proxies write a line for each request; `form` is in Envoy's words, or an object's, by name."""

    path: str
    form: str | Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OtlpLog:
    """Where proxies tell of each request by OTLP logs, over HTTP or gRPC; `headers` as of spans."""

    url: str
    cluster: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Control:
    """Where proxies ask for decisions: `host:port`, and the identity that must answer; where their spans go, if so.

    `spans` and `logs` are the providers that Telemetries may name besides.
    """

    authz_host: str
    authz_ports: tuple[int, ...]
    server_id: SpiffeId
    authz_timeout_seconds: float = 1.0
    tracing: Tracing | None = None
    access_log: AccessLog | None = None
    spans: Mapping[str, Tracing] = field(default_factory=dict)
    logs: Mapping[str, AccessLog | OtlpLog] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Switch:
    """A listener at which either decides: its sidecar by `rbac` under `revision`, or (None) policyd.

    All but these two stay the same when the other takes over. In Envoy's words are `front`, the filter that gives a
    decision its id, and `mappers`, what refused callers are told. `headers` are those on record; of a hundred local
    decisions `sample_percent` are made by policyd, too. Where tokens are taken, `behind` the filter that verifies them
    stands one that says whose they are, if a route has the words `asked` of it; a request is decided here only if it
    has said what the matchers `told` look for. Of what has other headers than `only` policyd decides (HeaderMatcher).
    """

    front: Mapping[str, Any]
    mappers: tuple[Mapping[str, Any], ...]
    headers: tuple[str, ...]
    sample_percent: float
    revision: str = ""
    rbac: Mapping[str, Any] | None = None
    behind: tuple[Mapping[str, Any], ...] = ()
    asked: Mapping[str, Any] = field(default_factory=dict)
    told: tuple[Mapping[str, Any], ...] = ()
    only: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may call an application without a sidecar: the filters that decide there, in Envoy's words."""

    filters: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided, by which policy, and under which id, in the words of access logs."""

    decision: str
    policy: str
    decision_id: str


def outbound_cluster(service: str, port: int, subset: str = "") -> str:
    """The cluster of a Service's port as callers see it (of a subset, or of all instances), in Istio's form."""
    return f"outbound|{port}|{subset}|{service}"


def sni_cluster(service: str, port: int, subset: str = "") -> str:
    """The name by which callers ask for a Service's port (SNI), and the cluster of who passes it on: Istio's form."""
    return f"outbound_.{port}_.{subset}_.{service}"


def tunnel_cluster(host: str, port: int, subset: str = "") -> str:
    """The cluster of a Host's port (of a subset, or of all) for bytes that are not looked at, hence without our TLS."""
    return f"tunnel|{port}|{subset}|{host}"


def inbound_cluster(service: str, port: int) -> str:
    """The cluster of the application beside a sidecar, in Istio's form."""
    return f"inbound|{port}||{service}"


def gateway_routes(declared_port: int) -> str:
    """The name of the routes of a gateway's port."""
    return f"gateway/{declared_port}"


def peers_routes(declared_port: int) -> str:
    """The name of the routes of a gateway's port for workloads of the mesh."""
    return f"gateway/{declared_port}/peers"


def server_routes(declared_port: int, gateway: str, at: int) -> str:
    """The name of the routes of one server of a Gateway (its id), on a port that clients speak TLS to."""
    return f"gateway/{declared_port}/{gateway}/{at}"


def socket(host: str, port: int) -> dict[str, Any]:
    """Envoy's Address of a TCP socket."""
    return {"socket_address": {"address": host, "port_value": port}}


def pipe(path: str) -> dict[str, Any]:
    """Envoy's Address of a Unix socket; `@` begins an abstract one."""
    return {"pipe": {"path": path}}


def seconds(value: float) -> str:
    """Envoy's Duration in JSON: seconds with a unit, at most nine decimals."""
    return f"{value:.9f}".rstrip("0").rstrip(".") + "s"
