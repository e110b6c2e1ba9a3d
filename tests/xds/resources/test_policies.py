"""A DestinationRule's policy, row by row, and the cluster that Envoy gets for it; the real Envoy takes them all."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from policyd import envoy_api
from policyd.mesh.model import Mesh
from policyd.xds.agreed import SDS_CLUSTER
from policyd.xds.resources import clusters, policies
from tests.xds.resources.folders import mesh_of, mesh_with

UNBOUNDED = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), 4294967295)
HTTP1 = {"explicit_http_config": {"http_protocol_options": {}}}

ROWS: list[tuple[str, dict[str, Any]]] = [
    ("loadBalancer: {}", {"lb_policy": "LEAST_REQUEST"}),
    ("loadBalancer: {simple: UNSPECIFIED}", {"lb_policy": "LEAST_REQUEST"}),
    ("loadBalancer: {simple: LEAST_CONN}", {"lb_policy": "LEAST_REQUEST"}),
    ("loadBalancer: {simple: ROUND_ROBIN}", {"lb_policy": "ROUND_ROBIN"}),
    ("loadBalancer: {simple: RANDOM}", {"lb_policy": "RANDOM"}),
    ("loadBalancer: {simple: PASSTHROUGH}", {"lb_policy": "RANDOM"}),
    (
        "loadBalancer: {consistentHash: {httpHeaderName: X-User}}",
        {
            "lb_policy": "RING_HASH",
            "ring_hash_lb_config": {"minimum_ring_size": 1024},
            "http": {**HTTP1, "hash_policy": [{"header": {"header_name": "x-user"}}]},
        },
    ),
    (
        "loadBalancer: {consistentHash: {httpCookie: {name: user, path: /shop, ttl: 60s}, minimumRingSize: 64}}",
        {
            "lb_policy": "RING_HASH",
            "ring_hash_lb_config": {"minimum_ring_size": 64},
            "http": {**HTTP1, "hash_policy": [{"cookie": {"name": "user", "ttl": "60s", "path": "/shop"}}]},
        },
    ),
    (
        "loadBalancer: {consistentHash: {httpCookie: {name: user, ttl: 0s, attributes: [{name: SameSite, value: Lax}]},"
        " ringHash: {minimumRingSize: 2048}}}",
        {
            "lb_policy": "RING_HASH",
            "ring_hash_lb_config": {"minimum_ring_size": 2048},
            "http": {
                **HTTP1,
                "hash_policy": [
                    {"cookie": {"name": "user", "ttl": "0s", "attributes": [{"name": "SameSite", "value": "Lax"}]}}
                ],
            },
        },
    ),
    (
        "loadBalancer: {consistentHash: {useSourceIp: true, maglev: {}}}",
        {
            "lb_policy": "MAGLEV",
            "maglev_lb_config": {"table_size": 65537},
            "http": {**HTTP1, "hash_policy": [{"connection_properties": {"source_ip": True}}]},
        },
    ),
    (
        "loadBalancer: {consistentHash: {httpQueryParameterName: user, maglev: {tableSize: 251}}}",
        {
            "lb_policy": "MAGLEV",
            "maglev_lb_config": {"table_size": 251},
            "http": {**HTTP1, "hash_policy": [{"query_parameter": {"name": "user"}}]},
        },
    ),
    (
        "loadBalancer: {warmup: {duration: 30s, minimumPercent: 20, aggression: 2}}",
        {
            "least_request_lb_config": {
                "slow_start_config": {
                    "slow_start_window": "30s",
                    "aggression": {"default_value": 2.0, "runtime_key": "policyd.warmup.aggression"},
                    "min_weight_percent": {"value": 20},
                }
            }
        },
    ),
    (
        "loadBalancer: {simple: ROUND_ROBIN, warmupDurationSecs: 30s}",
        {
            "lb_policy": "ROUND_ROBIN",
            "round_robin_lb_config": {
                "slow_start_config": {
                    "slow_start_window": "30s",
                    "aggression": {"default_value": 1.0, "runtime_key": "policyd.warmup.aggression"},
                    "min_weight_percent": {"value": 10},
                }
            },
        },
    ),
    (
        "loadBalancer: {localityLbSetting: {distribute: [{from: eu/*, to: {eu/*: 80, us/*: 20}}]}}",
        {"common_lb_config": {"locality_weighted_lb_config": {}}},
    ),
    ("loadBalancer: {localityLbSetting: {enabled: false, distribute: [{from: eu, to: {eu: 100}}]}}", {}),
    (
        "connectionPool: {tcp: {maxConnections: 1, connectTimeout: 30ms, maxConnectionDuration: 1h,"
        " tcpKeepalive: {probes: 3, time: 7200s, interval: 75s}}}",
        {
            "connect_timeout": "0.03s",
            "circuit_breakers": {"thresholds": [{**UNBOUNDED, "max_connections": 1}]},
            "upstream_connection_options": {
                "tcp_keepalive": {"keepalive_probes": 3, "keepalive_time": 7200, "keepalive_interval": 75}
            },
            "http": {**HTTP1, "common_http_protocol_options": {"max_connection_duration": "3600s"}},
        },
    ),
    (
        "connectionPool: {http: {http1MaxPendingRequests: 2, http2MaxRequests: 3, maxRequestsPerConnection: 4,"
        " maxRetries: 5, idleTimeout: 6s}}",
        {
            "circuit_breakers": {
                "thresholds": [{**UNBOUNDED, "max_pending_requests": 2, "max_requests": 3, "max_retries": 5}]
            },
            "http": {
                **HTTP1,
                "common_http_protocol_options": {"idle_timeout": "6s", "max_requests_per_connection": 4},
            },
        },
    ),
    (
        "connectionPool: {http: {http1MaxPendingRequests: 0, http2MaxRequests: 0, maxRequestsPerConnection: 0,"
        " maxRetries: 0, maxConcurrentStreams: 0}}",
        {},
    ),
    (
        "connectionPool: {tcp: {idleTimeout: 7s}}",
        {"http": {**HTTP1, "common_http_protocol_options": {"idle_timeout": "7s"}}},
    ),
    (
        "connectionPool: {http: {h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 8,"
        " http2KeepAlive: {interval: 30s, timeout: 5s}}}",
        {
            "http": {
                "explicit_http_config": {
                    "http2_protocol_options": {
                        "allow_connect": True,
                        "max_concurrent_streams": 8,
                        "connection_keepalive": {"interval": "30s", "timeout": "5s"},
                    }
                }
            },
            "alpn": ["h2"],
        },
    ),
    ("connectionPool: {http: {h2UpgradePolicy: DO_NOT_UPGRADE}}", {}),
    (
        "connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: UPGRADE}}",
        {
            "http": {
                "use_downstream_protocol_config": {
                    "http_protocol_options": {},
                    "http2_protocol_options": {"allow_connect": True},
                }
            }
        },
    ),
    (
        "outlierDetection: {}",
        {
            "outlier_detection": {"enforcing_success_rate": 0},
            "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        },
    ),
    (
        "outlierDetection: {consecutive5xxErrors: 1, consecutiveGatewayErrors: 2, interval: 1s, baseEjectionTime: 3m,"
        " maxEjectionPercent: 100, minHealthPercent: 30}",
        {
            "outlier_detection": {
                "enforcing_success_rate": 0,
                "consecutive_5xx": 1,
                "enforcing_consecutive_5xx": 100,
                "consecutive_gateway_failure": 2,
                "enforcing_consecutive_gateway_failure": 100,
                "interval": "1s",
                "base_ejection_time": "180s",
                "max_ejection_percent": 100,
            },
            "common_lb_config": {"healthy_panic_threshold": {"value": 30}},
        },
    ),
    (
        "outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 0, splitExternalLocalOriginErrors: true,"
        " consecutiveLocalOriginFailures: 4, outlierDetectionHttpErrorCodes: [429, 404]}",
        {
            "outlier_detection": {
                "enforcing_success_rate": 0,
                "consecutive_5xx": 0,
                "enforcing_consecutive_5xx": 0,
                "consecutive_gateway_failure": 0,
                "enforcing_consecutive_gateway_failure": 0,
                "split_external_local_origin_errors": True,
                "enforcing_local_origin_success_rate": 0,
                "consecutive_local_origin_failure": 4,
                "enforcing_consecutive_local_origin_failure": 100,
            },
            "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
            "http": {
                **HTTP1,
                "outlier_detection": {
                    "error_matcher": {
                        "or_match": {
                            "rules": [
                                {
                                    "http_response_headers_match": {
                                        "headers": [{"name": ":status", "string_match": {"exact": code}}]
                                    }
                                }
                                for code in ("429", "404")
                            ]
                        }
                    }
                },
            },
        },
    ),
    (
        "retryBudget: {percent: 25, minRetryConcurrency: 5, budgetInterval: 2s}",
        {
            "circuit_breakers": {
                "thresholds": [
                    {
                        **UNBOUNDED,
                        "retry_budget": {
                            "budget_percent": {"value": 25.0},
                            "min_retry_concurrency": 5,
                            "budget_interval": "2s",
                        },
                    }
                ]
            }
        },
    ),
    ("tls: {mode: ISTIO_MUTUAL}", {}),
]


def declared(policy: str, subset: str = "") -> Mesh:
    """A Mesh whose `api` has a policy, on the whole or on a subset."""
    parsed = yaml.safe_load(policy)
    spec = {"subsets": [{"name": subset, "trafficPolicy": parsed}]} if subset else {"trafficPolicy": parsed}
    return mesh_with(
        yaml.safe_dump(
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "DestinationRule",
                "metadata": {"name": "it"},
                "spec": {"host": "api", **spec},
            }
        )
    )


def cluster(mesh: Mesh, subset: str = "") -> dict[str, Any]:
    """The cluster of `api` as `web` gets it."""
    caller = mesh.caller(mesh.instances["web-v1"])
    return clusters.outbound(mesh, caller, mesh.services["api.default"], 9080, subset)


def differing(made: dict[str, Any]) -> dict[str, Any]:
    """What of a cluster is not as it is without a rule; its HTTP options and its ALPN by short names."""
    options = made["typed_extension_protocol_options"][policies.HTTP_OPTIONS]
    flat = {
        **{key: value for key, value in made.items() if key != "typed_extension_protocol_options"},
        "http": {key: value for key, value in options.items() if key != "@type"},
    }
    alpn = made["transport_socket"]["typed_config"]["common_tls_context"].get("alpn_protocols")
    if alpn:
        flat["alpn"] = alpn
        flat["transport_socket"] = PLAIN["transport_socket"]
    return {key: value for key, value in flat.items() if PLAIN.get(key, ...) != value}


PLAIN: dict[str, Any] = {}
_plain = cluster(mesh_with(""))
PLAIN.update({key: value for key, value in _plain.items() if key != "typed_extension_protocol_options"}, http=HTTP1)


@pytest.mark.parametrize(("policy", "expected"), ROWS, ids=[row[0][:70] for row in ROWS])
def test_a_policy_becomes_envoys(policy: str, expected: dict[str, Any]) -> None:
    given = {key: value for key, value in expected.items() if PLAIN.get(key, ...) != value}

    assert differing(cluster(declared(policy))) == given


def test_without_a_rule_it_is_istios_default() -> None:
    assert {key: PLAIN[key] for key in ("connect_timeout", "lb_policy", "circuit_breakers", "http")} == {
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [UNBOUNDED]},
        "http": HTTP1,
    }


SUBSETS = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: it}
spec:
  host: api
  subsets:
    - {name: v1, labels: {version: v1}}
    - {name: v9, labels: {version: v9}}
    - {name: all}
"""
TWO_ACCOUNTS = """\
workloads:
  web-v1: {service: web, port: 80}
  api-v1: {service: api, port: 9080, labels: {version: v1}, serviceAccount: one}
  api-v2: {service: api, port: 9080, labels: {version: v2}, serviceAccount: two}
"""


def test_a_subset_has_its_own_instances_and_expects_only_their_identities() -> None:
    mesh = mesh_of({"workloads.yaml": TWO_ACCOUNTS, "mesh/it.yaml": SUBSETS})
    caller, api = mesh.caller(mesh.instances["web-v1"]), mesh.services["api.default"]
    port = {name: one.ports[0].inbound_port if one.ports else 0 for name, one in mesh.instances.items()}

    def seen(subset: str) -> tuple[str, str | None, list[str], list[int]]:
        made = clusters.outbound(mesh, caller, api, 9080, subset)
        places = clusters.endpoints(mesh, caller, api, 9080, subset)
        assert places["cluster_name"] == made["name"]
        context = made.get("transport_socket", {}).get("typed_config", {})
        validation = context.get("common_tls_context", {}).get("combined_validation_context", {})
        names = validation.get("default_validation_context", {}).get("match_typed_subject_alt_names", [])
        found = [one for group in places["endpoints"] for one in group["lb_endpoints"]]
        return (
            made["name"],
            context.get("sni"),
            [name["matcher"]["exact"].rpartition("/")[2] for name in names],
            [one["endpoint"]["address"]["socket_address"]["port_value"] for one in found],
        )

    one, two = port["api-v1"], port["api-v2"]
    assert seen("") == ("outbound|9080||api.default", "outbound_.9080_._.api.default", ["one", "two"], [one, two])
    assert seen("v1") == ("outbound|9080|v1|api.default", "outbound_.9080_.v1_.api.default", ["one"], [one])
    assert seen("v9") == ("outbound|9080|v9|api.default", None, [], [])
    assert seen("all")[2:] == (["one", "two"], [one, two])


@pytest.mark.e2e
def test_the_real_envoy_accepts_every_row(tmp_path: Path) -> None:
    made = [{**cluster(declared(policy, "s"), "s"), "name": f"row {at}"} for at, (policy, _) in enumerate(ROWS)]
    pipe = {"endpoint": {"address": {"pipe": {"path": "/nowhere.sock"}}}}
    sds = {
        "name": SDS_CLUSTER,
        "type": "STATIC",
        "load_assignment": {"cluster_name": SDS_CLUSTER, "endpoints": [{"lb_endpoints": [pipe]}]},
    }
    services = [{"envoy_grpc": {"cluster_name": SDS_CLUSTER}}]
    ads = {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": services}
    file = tmp_path / "envoy.json"
    file.write_text(
        json.dumps(
            {
                "node": {"id": "n", "cluster": "c"},
                "static_resources": {"clusters": [*made, sds]},
                "dynamic_resources": {"ads_config": ads},
            }
        )
    )

    done = subprocess.run(
        [str(envoy_api.envoy_binary(None)), "--mode", "validate", "--reject-unknown-dynamic-fields", "-c", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert len({json.dumps(one, sort_keys=True) for one in made}) == len(ROWS)
