"""Envoy's words as values and rows, and what differs from what was sent."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from policyd.envoy_api import shared
from policyd.errors import StreamError
from policyd.xds.inspection.diff import Difference, Sent, differences, endpoint_differences, secret_differences
from policyd.xds.inspection.held import Held, endpoints, resources, unpack
from policyd.xds.inspection.rows import cluster_rows, endpoint_rows, listener_rows, route_rows, secret_rows

HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
TCP = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
LISTENER: dict[str, Any] = {
    "name": "web/inbound",
    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 15006}},
    "filter_chains": [
        {
            "filter_chain_match": {"server_names": ["a.example.com"], "transport_protocol": "tls"},
            "filters": [{"typed_config": {"@type": HCM, "rds": {"route_config_name": "gateway/443"}}}],
        },
        {
            "transport_socket": {"name": "tls"},
            "filters": [{"typed_config": {"@type": HCM, "route_config": {"name": "inbound"}}}],
        },
        {"filters": [{"typed_config": {"@type": TCP, "cluster": "db"}}]},
    ],
}
ROUTES: dict[str, Any] = {
    "name": "outbound",
    "virtual_hosts": [
        {
            "name": "api.default:80",
            "domains": ["api", "api.default", "api:80"],
            "routes": [
                {"match": {"path": "/x", "headers": [{"name": "end-user"}]}, "route": {"cluster": "c"}},
                {
                    "match": {"safe_regex": {"regex": "/a.*"}, "query_parameters": [{"name": "q"}]},
                    "route": {
                        "weighted_clusters": {"clusters": [{"name": "a", "weight": 9}, {"name": "b", "weight": 1}]}
                    },
                },
                {"match": {"prefix": "/old"}, "redirect": {"path_redirect": "/new"}},
                {"match": {"prefix": "/"}, "direct_response": {"status": 404}},
                {"match": {"connect_matcher": {}}, "route": {"cluster": "tunnel"}},
            ],
        }
    ],
}
CLUSTER: dict[str, Any] = {
    "name": "outbound|80|v1|api.default",
    "type": "EDS",
    "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
    "connect_timeout": "10s",
    "transport_socket": {"name": "envoy.transport_sockets.tls"},
}
HOSTS: dict[str, Any] = {
    "cluster_statuses": [
        {
            "name": "outbound|80|v1|api.default",
            "host_statuses": [
                {
                    "address": {"socket_address": {"address": "10.0.0.1", "port_value": 80}},
                    "health_status": {"eds_health_status": "HEALTHY", "failed_outlier_check": True},
                    "weight": 1,
                },
                {"address": {"pipe": {"path": "/run/x.sock"}}, "health_status": {"eds_health_status": "UNHEALTHY"}},
            ],
        }
    ]
}


def dump(body: str, value: Any, version: str = "v1") -> dict[str, Any]:
    return {"configs": [{"version_info": version, body: value}]}


def test_what_an_agent_shows_is_unpacked() -> None:
    assert unpack(zlib.compress(b'{"configs": []}')) == {"configs": []}


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        (b"nonsense", "what the agent showed cannot be read"),
        (zlib.compress(b"{"), "what the agent showed cannot be read"),
        (zlib.compress(b"[" * 100_000), "what the agent showed cannot be read"),
        (zlib.compress(b"[]"), "what the agent showed has another form than an Envoy's"),
        (zlib.compress(b"{}")[:-2], "more than 134,217,728 bytes, or not all of them, were shown"),
        (zlib.compress(b" " * (128 << 20) + b"{}", 1), "more than 134,217,728 bytes, or not all of them, were shown"),
    ],
    ids=["no zlib", "no json", "deep", "a list", "cut off", "a bomb"],
)
def test_what_is_no_answer_is_refused(shown: bytes, message: str) -> None:
    with pytest.raises(StreamError) as refused:
        unpack(shown)

    assert str(refused.value) == message


@pytest.mark.parametrize("kind", ["listeners", "routes", "clusters", "secrets"])
@pytest.mark.parametrize("shown", [{}, {"configs": None, "secrets": 1}, {"configs": [1, "x", None]}])
def test_other_shapes_hold_nothing(kind: str, shown: Any) -> None:
    assert resources(kind, shown) == ()


def test_a_row_a_filter_chain() -> None:
    state = {"version_info": "v1", "listener": LISTENER}
    held = resources("listeners", {"configs": [{"name": "web/inbound", "active_state": state}]})

    assert list(listener_rows(held)) == [
        ("127.0.0.1:15006", "web/inbound", "SNI a.example.com; TLS", "route gateway/443"),
        ("127.0.0.1:15006", "web/inbound", "TLS", "inline route inbound"),
        ("127.0.0.1:15006", "web/inbound", "ALL", "cluster db"),
    ]


def test_a_listener_that_envoy_cannot_open_says_why() -> None:
    failed = {"name": "web/inbound", "error_state": {"details": "cannot bind: address in use"}}
    (held,) = resources("listeners", {"configs": [failed]})

    assert held == Held("web/inbound", "", {}, is_active=False, problem="cannot bind: address in use")
    assert list(listener_rows([held])) == [("-", "web/inbound (not active)", "-", "cannot bind: address in use")]


def test_a_rejection_without_a_name_is_no_listener() -> None:
    assert resources("listeners", {"configs": [{"error_state": {"details": "cannot bind"}}]}) == ()


def test_a_row_a_route() -> None:
    named = ("outbound", "api.default:80", "api, api.default + 1 more")

    assert list(route_rows(resources("routes", dump("route_config", ROUTES)))) == [
        (*named, "=/x end-user", "c"),
        (*named, "~/a.* ?q", "9 a, 1 b"),
        (*named, "/old*", "redirect"),
        (*named, "/*", "answer 404"),
        (*named, "CONNECT", "tunnel"),
    ]


def test_a_row_a_cluster_and_a_row_a_host() -> None:
    held = resources("clusters", dump("cluster", CLUSTER))

    assert list(cluster_rows([*held, Held("policyd-authz", "v", {"type": "STATIC"})])) == [
        ("api.default", "80", "v1", "outbound", "EDS", "TLS"),
        ("policyd-authz", "-", "-", "-", "STATIC", "-"),
    ]
    assert list(endpoint_rows(endpoints(HOSTS))) == [
        ("/run/x.sock", "UNHEALTHY", "OK", "outbound|80|v1|api.default"),
        ("10.0.0.1:80", "HEALTHY", "FAILED", "outbound|80|v1|api.default"),
    ]


def test_a_row_a_certificate() -> None:
    certificate = {"subject": "spiffe://a/b", "serial": "0f", "not_before": "2026", "not_after": "2027"}
    shown = {"secrets": [{"name": "default", "type": "identity", "certificates": [certificate]}, {"name": "x"}]}

    assert list(secret_rows(resources("secrets", shown))) == [
        ("default", "identity", "spiffe://a/b", "0f", "2026", "2027"),
        ("x", "", "-", "-", "-", "-"),
    ]


# ---- differences

SENT = Sent(CLUSTER["name"], "v1", CLUSTER)


def changed(version: str = "v1", **more: Any) -> dict[str, Any]:
    return dump("cluster", deepcopy(CLUSTER) | more, version)


def other(detail: str) -> list[Difference]:
    return [Difference("clusters", CLUSTER["name"], "other", detail)]


@pytest.mark.parametrize(
    ("sent", "shown", "expected"),
    [
        ([SENT], changed(), []),
        ([SENT], {}, [Difference("clusters", CLUSTER["name"], "missing")]),
        ([], changed(), [Difference("clusters", CLUSTER["name"], "unknown")]),
        ([SENT], changed("v0", connect_timeout="1s"), other("sent v1, held v0 (connect_timeout)")),
        ([SENT], changed("v0"), other("sent v1, held v0")),
        ([SENT], changed(connect_timeout="1s"), other("equal versions and yet connect_timeout")),
        ([SENT], changed(transport_socket={"name": "[redacted]"}), []),
        ([SENT], changed(nonsense=1), other("equal versions and yet connect_timeout, eds_cluster_config, name, "
                                            "transport_socket, type")),
        ([Sent(CLUSTER["name"], "v1")], changed(connect_timeout="1s"), []),
    ],
    ids=["equal", "missing", "unknown", "older", "version only", "content only", "masked", "unreadable", "name only"],
)  # fmt: skip
def test_what_differs_is_named(sent: list[Sent], shown: Any, expected: list[Difference]) -> None:
    assert list(differences("clusters", sent, resources("clusters", shown), shared())) == expected


def test_what_is_warming_is_not_held_yet_and_what_envoy_says_is_told() -> None:
    sent = [Sent("web/inbound", "v2", {"name": "web/inbound"})]
    warming = {"name": "web/inbound", "warming_state": {"version_info": "v2", "listener": {"name": "web/inbound"}}}
    state = {"version_info": "v1", "listener": {"name": "web/inbound"}}
    failed = {"name": "web/inbound", "active_state": state, "error_state": {"details": "no"}}

    def found(shown: Any) -> list[str]:
        held = resources("listeners", {"configs": [shown]})
        return [one.detail for one in differences("listeners", sent, held, shared())]

    assert found(warming) == ["it is not active yet"]
    assert found(failed) == ["sent v2, held v1; Envoy says: no"]


def test_of_endpoints_addresses_are_compared() -> None:
    def sent(*addresses: str) -> list[Sent]:
        sockets = [{"socket_address": {"address": one, "port_value": 80}} for one in addresses]
        places = [{"lb_endpoints": [{"endpoint": {"address": one}} for one in sockets]}]
        return [Sent("c", "v", {"endpoints": places})]

    hosts = [{"address": {"socket_address": {"address": one, "port_value": 80}}} for one in ("10.0.0.1", "10.0.0.2")]
    held = endpoints({"cluster_statuses": [{"name": "c", "host_statuses": hosts}, {"name": "static"}]})

    assert list(endpoint_differences(sent("10.0.0.2", "10.0.0.1"), held)) == []
    assert list(endpoint_differences(sent("10.0.0.1", "10.0.0.3"), held)) == [
        Difference("endpoints", "c", "other", "lacks 10.0.0.3:80; has besides 10.0.0.2:80")
    ]


def test_of_secrets_only_those_that_were_sent_are_compared() -> None:
    held = [Held("default", "1"), Held("edge", "2")]
    own = frozenset({"default"})
    compare: Callable[..., list[Difference]] = lambda *sent: list(secret_differences(sent, held, own))  # noqa: E731

    assert compare(Sent("edge", "2")) == []
    assert compare(Sent("edge", "3")) == [Difference("secrets", "edge", "other", "sent 3, held 2")]
    assert compare() == [Difference("secrets", "edge", "unknown")]
