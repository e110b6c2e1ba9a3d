"""A DestinationRule's policy as fields of Envoy's Cluster: balancing, pools, outlier detection, protocol.

Law: what a rule leaves out is Istio's default, and where Istio has none, Envoy's; a limit of 0 is no limit.
"""

from __future__ import annotations

from typing import Any

from policyd.mesh.istio.balancing import ConsistentHash, LoadBalancer, Warmup
from policyd.mesh.istio.connection_pool import ConnectionPool
from policyd.mesh.istio.traffic_policy import OutlierDetection, RetryBudget, Sections
from policyd.xds.resources.model import seconds

CONNECT_TIMEOUT = "10s"  # Istio's default
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# the last of a cluster's own filters
CODEC = {
    "name": "envoy.filters.http.upstream_codec",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
    },
}
UNBOUNDED = 4294967295  # Envoy's own limits of 1,024 are no policy of ours
# every other one is LEAST_REQUEST
SIMPLE = {"ROUND_ROBIN": "ROUND_ROBIN", "RANDOM": "RANDOM", "PASSTHROUGH": "RANDOM"}


def cluster_fields(policy: Sections, *, http2: bool = False, either: bool = False) -> dict[str, Any]:
    """Everything of a policy but its TLS (config.cluster.v3.Cluster).

    `http2`: the port speaks nothing else; `either`: it speaks what its callers speak.
    """
    pool = policy.connection_pool or ConnectionPool()
    balancer = policy.load_balancer or LoadBalancer()
    return {
        **limits(pool, policy.retry_budget),
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: _http(pool, balancer, policy.outlier_detection, http2, either)
        },
        **_balancing(balancer),
        **_common_balancing(balancer, policy.outlier_detection),
        **({"outlier_detection": _outliers(policy.outlier_detection)} if policy.outlier_detection else {}),
    }


def limits(pool: ConnectionPool, budget: RetryBudget | None = None) -> dict[str, Any]:
    """What of a pool is the cluster's own, whichever protocol it speaks."""
    return {
        "connect_timeout": seconds(pool.tcp.connect_timeout) if pool.tcp.connect_timeout else CONNECT_TIMEOUT,
        "circuit_breakers": breakers(pool, budget),
        **_keepalive(pool),
    }


def connections(pool: ConnectionPool) -> dict[str, Any]:
    """What of a pool is of its HTTP connections, whichever version they speak (HttpProtocolOptions)."""
    common = _common_http(pool)
    return {"common_http_protocol_options": common} if common else {}


def travels_as_http2(policy: Sections, *, http2: bool) -> bool:
    """Whether requests travel as HTTP/2: declared so, or upgraded (`useClientProtocol` has the last word)."""
    http = (policy.connection_pool or ConnectionPool()).http
    return (http2 or http.h2_upgrade_policy == "UPGRADE") and not http.use_client_protocol


def by_distribution(policy: Sections) -> bool:
    """Whether localities get shares, in place of priorities."""
    locality = policy.load_balancer.locality_lb_setting if policy.load_balancer else None
    return bool(locality and locality.enabled and locality.distribute)


def breakers(pool: ConnectionPool, budget: RetryBudget | None = None) -> dict[str, Any]:
    """The limits beyond which a request is answered 503 at once (cluster.v3.CircuitBreakers)."""
    limits: dict[str, Any] = {
        "max_connections": pool.tcp.max_connections or UNBOUNDED,
        "max_pending_requests": pool.http.http1_max_pending_requests or UNBOUNDED,
        "max_requests": pool.http.http2_max_requests or UNBOUNDED,
        "max_retries": pool.http.max_retries or UNBOUNDED,
    }
    if budget is not None:
        limits["retry_budget"] = {
            "budget_percent": {"value": budget.percent},
            "min_retry_concurrency": budget.min_retry_concurrency,
        }
        if budget.budget_interval:
            limits["retry_budget"]["budget_interval"] = seconds(budget.budget_interval)
    return {"thresholds": [limits]}


def protocol(kind: str) -> dict[str, Any]:
    """One HTTP protocol and nothing else (upstreams.http.v3.HttpProtocolOptions)."""
    return {HTTP_OPTIONS: {"@type": f"type.googleapis.com/{HTTP_OPTIONS}", "explicit_http_config": {kind: {}}}}


def as_client() -> dict[str, Any]:
    """The HTTP protocol of who asks."""
    both: dict[str, Any] = {"http_protocol_options": {}, "http2_protocol_options": {"allow_connect": True}}
    return {HTTP_OPTIONS: {"@type": f"type.googleapis.com/{HTTP_OPTIONS}", "use_downstream_protocol_config": both}}


def _http(
    pool: ConnectionPool, balancer: LoadBalancer, outliers: OutlierDetection | None, declared: bool, either: bool
) -> dict[str, Any]:
    http = pool.http
    upgraded = declared or http.h2_upgrade_policy == "UPGRADE"
    http2: dict[str, Any] = {"allow_connect": True}  # upgrades by HTTP/2 (RFC 8441)
    if http.max_concurrent_streams:
        http2["max_concurrent_streams"] = http.max_concurrent_streams
    if http.http2_keep_alive:
        alive = http.http2_keep_alive
        http2["connection_keepalive"] = {"interval": seconds(alive.interval), "timeout": seconds(alive.timeout)}
    options: dict[str, Any] = {"@type": f"type.googleapis.com/{HTTP_OPTIONS}"}
    if http.use_client_protocol or either:
        options["use_downstream_protocol_config"] = {"http_protocol_options": {}, "http2_protocol_options": http2}
    elif upgraded:
        options["explicit_http_config"] = {"http2_protocol_options": http2}
    else:
        options["explicit_http_config"] = {"http_protocol_options": {}}
    options |= connections(pool)
    if balancer.consistent_hash:
        options["hash_policy"] = [hash_policy(balancer.consistent_hash)]
    if outliers and outliers.outlier_detection_http_error_codes:
        options["outlier_detection"] = {"error_matcher": _any_status(outliers.outlier_detection_http_error_codes)}
    return options


def _common_http(pool: ConnectionPool) -> dict[str, Any]:
    common: dict[str, Any] = {}
    # a connection that carries no request is idle, by whichever of the two fields it was meant
    idle = pool.http.idle_timeout if pool.http.idle_timeout is not None else pool.tcp.idle_timeout
    if idle is not None:
        common["idle_timeout"] = seconds(idle)
    if pool.tcp.max_connection_duration is not None:
        common["max_connection_duration"] = seconds(pool.tcp.max_connection_duration)
    if pool.http.max_requests_per_connection:
        common["max_requests_per_connection"] = pool.http.max_requests_per_connection
    return common


def _any_status(codes: tuple[int, ...]) -> dict[str, Any]:
    matches = [
        {"http_response_headers_match": {"headers": [{"name": ":status", "string_match": {"exact": str(code)}}]}}
        for code in codes
    ]
    return matches[0] if len(matches) == 1 else {"or_match": {"rules": matches}}


def _balancing(balancer: LoadBalancer) -> dict[str, Any]:
    hashed = balancer.consistent_hash
    if hashed is not None and hashed.maglev is not None:
        return {"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": hashed.maglev.table_size}}
    if hashed is not None:
        size = hashed.ring_hash.minimum_ring_size if hashed.ring_hash else hashed.minimum_ring_size or 1024
        return {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": size}}
    name = SIMPLE.get(balancer.simple or "", "LEAST_REQUEST")
    fields: dict[str, Any] = {"lb_policy": name}
    if balancer.slow_start is not None:
        fields[f"{name.lower()}_lb_config"] = {"slow_start_config": _slow_start(balancer.slow_start)}
    return fields


def _slow_start(warmup: Warmup) -> dict[str, Any]:
    return {
        "slow_start_window": seconds(warmup.duration),
        "aggression": {"default_value": warmup.aggression, "runtime_key": "policyd.warmup.aggression"},
        "min_weight_percent": {"value": warmup.minimum_percent},
    }


def _common_balancing(balancer: LoadBalancer, outliers: OutlierDetection | None) -> dict[str, Any]:
    common: dict[str, Any] = {}
    locality = balancer.locality_lb_setting
    if locality and locality.enabled and locality.distribute:
        common["locality_weighted_lb_config"] = {}
    if outliers is not None:
        # with Envoy's own 50 % the requests of a small service would go to what was just ejected
        common["healthy_panic_threshold"] = {"value": outliers.min_health_percent}
    return {"common_lb_config": common} if common else {}


def _outliers(outliers: OutlierDetection) -> dict[str, Any]:
    fields: dict[str, Any] = {"enforcing_success_rate": 0}
    if outliers.consecutive_5xx is not None:
        fields["consecutive_5xx"] = outliers.consecutive_5xx
        fields["enforcing_consecutive_5xx"] = 100 if outliers.consecutive_5xx else 0
    if outliers.consecutive_gateway_errors is not None:
        fields["consecutive_gateway_failure"] = outliers.consecutive_gateway_errors
        fields["enforcing_consecutive_gateway_failure"] = 100 if outliers.consecutive_gateway_errors else 0
    if outliers.split_external_local_origin_errors:
        fields["split_external_local_origin_errors"] = True
        fields["enforcing_local_origin_success_rate"] = 0
        if outliers.consecutive_local_origin_failures is not None:
            fields["consecutive_local_origin_failure"] = outliers.consecutive_local_origin_failures
            on = 100 if outliers.consecutive_local_origin_failures else 0
            fields["enforcing_consecutive_local_origin_failure"] = on
    if outliers.interval is not None:
        fields["interval"] = seconds(outliers.interval)
    if outliers.base_ejection_time is not None:
        fields["base_ejection_time"] = seconds(outliers.base_ejection_time)
    if outliers.max_ejection_percent is not None:
        fields["max_ejection_percent"] = outliers.max_ejection_percent
    return fields


def _keepalive(pool: ConnectionPool) -> dict[str, Any]:
    probes = pool.tcp.tcp_keepalive
    if probes is None:
        return {}
    given = {"probes": probes.probes, "time": probes.time, "interval": probes.interval}
    fields = {f"keepalive_{name}": int(value) for name, value in given.items() if value is not None}
    return {"upstream_connection_options": {"tcp_keepalive": fields}}


def hash_policy(hashed: ConsistentHash) -> dict[str, Any]:
    """What of a request is hashed (config.route.v3.RouteAction.HashPolicy)."""
    if hashed.http_header_name is not None:
        return {"header": {"header_name": hashed.http_header_name}}
    if hashed.http_query_parameter_name is not None:
        return {"query_parameter": {"name": hashed.http_query_parameter_name}}
    if hashed.http_cookie is None:
        return {"connection_properties": {"source_ip": True}}
    cookie: dict[str, Any] = {"name": hashed.http_cookie.name}
    if hashed.http_cookie.ttl is not None:
        cookie["ttl"] = seconds(hashed.http_cookie.ttl)
    if hashed.http_cookie.path is not None:
        cookie["path"] = hashed.http_cookie.path
    if hashed.http_cookie.attributes:
        cookie["attributes"] = [{"name": one.name, "value": one.value} for one in hashed.http_cookie.attributes]
    return {"cookie": cookie}
