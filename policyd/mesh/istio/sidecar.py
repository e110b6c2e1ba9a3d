"""Istio's Sidecar: what the proxies of some workloads know of others, and where they hand on what others ask."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.common import Labels, Networking, Resource
from policyd.mesh.istio.connection_pool import ConnectionPool
from policyd.mesh.istio.server_tls import ServerTls
from policyd.mesh.matching import check_host, check_ip
from policyd.mesh.outside import Mode
from policyd.state_paths import MAX_SOCKET_PATH
from policyd.strict import NOTHING, Many, Model, PortNumber, check_label

LATER: Final[Mapping[str, str]] = {
    "bind": "in `egress` it would let whoever is on the machine ask as the workload; applications ask by their proxy, "
    "which a secret opens (`http_proxy`)",
    "egressProxy": "names that nothing declares leave from here; declare them, and lead them by a VirtualService",
}

_ENDPOINT: Final = re.compile(r"(127\.0\.0\.1|0\.0\.0\.0|\[::1\]|\[::\]):([1-9][0-9]{0,4})")
_SOCKET: Final = re.compile(r"unix://(/[^\x00-\x20\x7f]+|@[^\x00-\x20\x7f]+)")


def check_egress_host(text: str) -> str:
    """Return `<namespace>/<host>`; the namespace may be `.`, `*` or `~`, the host `*` or begin with `*.`."""
    namespace, slash, host = text.partition("/")
    if not slash:
        raise ValueError(f"`{text[:80]}` has no namespace; write `./*` for one's own, `*/{text[:40]}` for any")
    if namespace not in (".", "*", "~"):
        check_label(namespace)
    if host != "*":
        check_host(host.removeprefix("*."))
    return text


def _check_endpoint(text: str) -> str:
    """Return where an application listens: a port of its machine, or a Unix socket."""
    found = _ENDPOINT.fullmatch(text)
    if found is not None and int(found[2]) < 65536:
        return text
    if _SOCKET.fullmatch(text) is None or len(text.removeprefix("unix://").encode()) > MAX_SOCKET_PATH:
        raise ValueError(
            f"`{text[:80]}` is nowhere that an application listens; write `127.0.0.1:PORT`, `0.0.0.0:PORT` (the "
            "instance's own address) or `unix:///PATH`"
        )
    return text


def _check_pool(pool: ConnectionPool) -> ConnectionPool:
    http = pool.http
    given = {
        "h2UpgradePolicy": http.h2_upgrade_policy != "DEFAULT",
        "useClientProtocol": http.use_client_protocol,
        "maxConcurrentStreams": http.max_concurrent_streams,
        "http2KeepAlive": http.http2_keep_alive,
        "maxRetries": http.max_retries,
    }
    if name := next((name for name, is_given in given.items() if is_given), None):
        raise ValueError(
            f"`{name}` is of callers, and an application is not called again here; write a DestinationRule"
        )
    return pool


def _check_tls(tls: ServerTls) -> ServerTls:
    if tls.mode not in ("SIMPLE", "MUTUAL") or tls.https_redirect:
        raise ValueError(
            "a sidecar shows a certificate to who is not of the mesh by `mode` SIMPLE or MUTUAL; write one"
        )
    return tls


OutsideTls = Annotated[ServerTls, AfterValidator(_check_tls)]
InboundPool = Annotated[ConnectionPool, AfterValidator(_check_pool)]
Capture = Literal["DEFAULT", "NONE", "IPTABLES"]  # the default is that of the folder: nothing is captured


class SidecarSelector(Model):
    """The instances of the namespace that bear every one of these labels."""

    labels: Annotated[Labels, Field(min_length=1)]


class ListenerPort(Model):
    """A port by number; `protocol` and `name` say what it is."""

    number: PortNumber
    protocol: Annotated[str, Field(min_length=1, max_length=32)] | None = None
    name: Annotated[str, Field(max_length=253)] | None = None


class EgressListener(Model):
    """What may be called, on any port or on one: `./*` is one's own namespace, `*/*` everything, `~/*` nothing."""

    hosts: Annotated[Many[Annotated[str, AfterValidator(check_egress_host)]], Field(min_length=1, max_length=1000)]
    port: ListenerPort | None = None
    capture_mode: Capture = "DEFAULT"


class IngressListener(Model):
    """A port of the workload, and where its application takes what comes in on it; `bind` is the sidecar's own address.

    `127.0.0.1` and the workload's port mean its application, wherever that was put. `tls` is for who is not of the
    mesh, on a port that takes no mutual TLS of the mesh.
    """

    port: ListenerPort
    bind: Annotated[str, AfterValidator(check_ip)] | None = None
    capture_mode: Capture = "DEFAULT"
    default_endpoint: Annotated[str, AfterValidator(_check_endpoint)] | None = None
    connection_pool: InboundPool | None = None
    tls: OutsideTls | None = None

    @property
    def socket(self) -> str:
        """The path of the application's Unix socket, "" where it listens on a port; `@` begins an abstract one."""
        return (self.default_endpoint or "").removeprefix("unix://") if self._is_socket else ""

    @property
    def address(self) -> tuple[str, int] | None:
        """The address and port at which it listens; None where that is a socket, or nothing is said."""
        if self.default_endpoint is None or self._is_socket:
            return None
        host, _, port = self.default_endpoint.rpartition(":")
        return str(ipaddress.ip_address(host.strip("[]"))), int(port)

    @property
    def _is_socket(self) -> bool:
        return self.default_endpoint is not None and self.default_endpoint.startswith("unix:")


class OutboundTrafficPolicy(Model):
    """What becomes of names that nothing declares: refused, or led outside, where policies allow it."""

    mode: Mode = "REGISTRY_ONLY"


class SidecarSpec(Model):
    """Which instances (of this namespace; all of them without a selector) know what, and how they are reached.

    What is left out, the next wider Sidecar says, else everything is known and nothing is changed.
    """

    workload_selector: SidecarSelector | None = None
    egress: Annotated[Many[EgressListener], Field(max_length=1000)] = ()
    ingress: Annotated[Many[IngressListener], Field(max_length=64)] = ()
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    inbound_connection_pool: InboundPool | None = None

    @model_validator(mode="after")
    def _some(self) -> SidecarSpec:
        if not (self.egress or self.ingress or self.outbound_traffic_policy or self.inbound_connection_pool):
            raise ValueError("it says nothing; give `egress`, `ingress`, `outboundTrafficPolicy` or a pool")
        if self.ingress and self.workload_selector is None:
            raise ValueError("`ingress` is of the workloads that a `workloadSelector` names; add it")
        if len({one.capture_mode == "IPTABLES" for one in self.egress}) > 1:
            raise ValueError(
                "some of `egress` is captured and some is not, and what an application sends is one or the other; "
                "write the same `captureMode` everywhere"
            )
        numbers = [one.port.number for one in self.ingress]
        if twice := next((number for number in numbers if numbers.count(number) > 1), None):
            raise ValueError(f"port {twice} is in `ingress` twice; write all of it into one entry")
        return self

    @property
    def labels(self) -> Labels:
        """What an instance has to bear."""
        return self.workload_selector.labels if self.workload_selector else NOTHING


class Sidecar(Resource):
    """Istio's Sidecar (what a proxy knows of others, and how others reach its application)."""

    api_version: Networking = "networking.istio.io/v1"
    kind: Literal["Sidecar"] = "Sidecar"
    spec: SidecarSpec
