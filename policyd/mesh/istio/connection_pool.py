"""How many connections and requests may be under way, and for how long (Istio's ConnectionPoolSettings)."""

from __future__ import annotations

from typing import Literal

from policyd.mesh.istio.quantities import Count, CountOrNone, Seconds, Wait
from policyd.strict import Duration, Model


class TcpKeepalive(Model):
    """Probes of the system on connections that are idle; what is left out is the system's own."""

    probes: Count | None = None
    time: Seconds | None = None
    interval: Seconds | None = None


class TcpSettings(Model):
    """Connections to a destination."""

    max_connections: Count | None = None
    connect_timeout: Wait | None = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: Wait | None = None
    idle_timeout: Duration | None = None


class Http2KeepAlive(Model):
    """Pings on HTTP/2 connections: every `interval`, answered within `timeout`."""

    interval: Wait
    timeout: Wait


class HttpSettings(Model):
    """Requests to a destination; a count of 0 and what is left out mean no limit."""

    http1_max_pending_requests: CountOrNone | None = None
    http2_max_requests: CountOrNone | None = None
    max_requests_per_connection: CountOrNone | None = None
    max_retries: CountOrNone | None = None
    idle_timeout: Duration | None = None
    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] = "DEFAULT"
    use_client_protocol: bool = False
    max_concurrent_streams: CountOrNone | None = None
    http2_keep_alive: Http2KeepAlive | None = None


class ConnectionPool(Model):
    """How many connections, requests and retries may be under way from one caller."""

    tcp: TcpSettings = TcpSettings()
    http: HttpSettings = HttpSettings()
