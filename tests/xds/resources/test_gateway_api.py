"""Routes of the Gateway API as Envoy's: a row a thing that a rule can say, all of it accepted by the real Envoy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from policyd.mesh.model import Mesh
from policyd.xds.resources import edge_connections, edges, routes
from policyd.xds.resources.build import build_snapshots
from tests.mesh.gateway_api.sample import TO_API, WORKLOADS, folder, gateway, grant, route
from tests.xds.resources.folders import CONTROL, mesh_of
from tests.xds.resources.test_build import accepted

API, WEB = "outbound|9080||api.default", "outbound|80||web.default"
TO_WEB = {"backendRefs": [{"name": "web", "port": 80}]}
NOBODY = {"name": "nobody", "port": 80}


def table(mesh: Mesh, port: int = 8080) -> dict[str, Any]:
    """The plain routes of a gateway's port."""
    ingress = mesh.instances["ingress"]
    listen = next(one for one in ingress.listens if one.declared == port)
    return next(iter(edges.tables(mesh, ingress, listen)))


def routed(*rules: Mapping[str, Any], kind: str = "HTTPRoute", host: str = "shop.example") -> list[dict[str, Any]]:
    """The routes of a host at the gateway, without the last one, which tells that there is no other."""
    mesh = mesh_of(folder(gateway(), route(*rules, kind=kind, hostnames=[host])))
    found: list[dict[str, Any]] = next(one for one in table(mesh)["virtual_hosts"] if one["name"] == host)["routes"]
    return found[:-1]


def text(given: str) -> Any:
    return yaml.safe_load(given)


MATCHES = [
    ("{}", {"prefix": "/"}),
    ("{path: {value: /}}", {"prefix": "/"}),
    ("{path: {value: /a}}", {"path_separated_prefix": "/a"}),
    ("{path: {value: /a/}}", {"path_separated_prefix": "/a"}),
    ("{path: {type: Exact, value: /a/}}", {"path": "/a/"}),
    ("{path: {type: RegularExpression, value: '/[0-9]+'}}", {"safe_regex": {"regex": "/[0-9]+"}}),
    (
        "{method: GET}",
        {"prefix": "/", "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]},
    ),
    (
        "{headers: [{name: X-A, value: '1'}, {name: x-a, value: '2'}, {name: b, type: RegularExpression, value: .+}]}",
        {
            "prefix": "/",
            "headers": [
                {"name": "x-a", "string_match": {"exact": "1"}},
                {"name": "b", "string_match": {"safe_regex": {"regex": ".+"}}},
            ],
        },
    ),
    (
        "{queryParams: [{name: a, value: '1'}, {type: RegularExpression, name: b, value: '[0-9]'}]}",
        {
            "prefix": "/",
            "query_parameters": [
                {"name": "a", "string_match": {"exact": "1"}},
                {"name": "b", "string_match": {"safe_regex": {"regex": "[0-9]"}}},
            ],
        },
    ),
]
CALLS = [
    ("{}", {"prefix": "/"}),
    ("{method: {service: a.B, method: C}}", {"path": "/a.B/C"}),
    ("{method: {service: a.B}}", {"prefix": "/a.B/"}),
    ("{method: {method: C}}", {"safe_regex": {"regex": "/[^/]+/C"}}),
    (
        "{method: {type: RegularExpression, service: 'a[.].*'}}",
        {"safe_regex": {"regex": "/(?:a[.].*)/(?:[^/]+)"}},
    ),
    (
        "{headers: [{name: x, value: '1'}]}",
        {"prefix": "/", "headers": [{"name": "x", "string_match": {"exact": "1"}}]},
    ),
]


@pytest.mark.parametrize(("match", "expected"), MATCHES)
def test_a_match_of_requests(match: str, expected: dict[str, Any]) -> None:
    [made] = routed({**TO_API, "matches": [text(match)]})

    assert made["match"] == expected


@pytest.mark.parametrize(("match", "expected"), CALLS)
def test_a_match_of_calls(match: str, expected: dict[str, Any]) -> None:
    [made] = routed({**TO_API, "matches": [text(match)]}, kind="GRPCRoute")

    assert made["match"] == expected


def path(value: str, prefix: str = "/a") -> str:
    replaced = f"{{type: ReplacePrefixMatch, replacePrefixMatch: '{value}'}}"
    rewrite = f"{{type: URLRewrite, urlRewrite: {{path: {replaced}}}}}"
    return f"{{matches: [{{path: {{value: {prefix}}}}}], filters: [{rewrite}]}}"


def regex(pattern: str, new: str) -> dict[str, Any]:
    return {"regex_rewrite": {"pattern": {"regex": pattern}, "substitution": new}}


REWRITES = [
    ("{filters: [{type: URLRewrite, urlRewrite: {hostname: b.example}}]}", {"host_rewrite_literal": "b.example"}),
    ("{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /b}}}]}",
     regex("^/.*$", "/b")),
    (path("/b"), regex("^/a", "/b")),
    (path("/b/"), regex("^/a", "/b")),
    (path("/b", "/a/"), regex("^/a", "/b")),
    (path("/"), regex("^/a/*", "/")),
    (path(""), regex("^/a/*", "/")),
    (path("/b", "/"), regex("^/", "/b/")),
]  # fmt: skip
PATIENCE = [
    ("{timeouts: {request: 10s}}", {"timeout": "10s", "num_retries": 2}),
    ("{timeouts: {request: 0s}}", {"timeout": "0s", "num_retries": 2}),
    ("{timeouts: {request: 10s, backendRequest: 2s}}", {"timeout": "10s", "num_retries": 2, "per_try_timeout": "2s"}),
    ("{retry: {attempts: 0}, timeouts: {request: 10s, backendRequest: 2s}}", {"timeout": "2s"}),
    ("{retry: {attempts: 0}}", {"timeout": "0s"}),
    (
        "{retry: {attempts: 5, codes: [500, 503], backoff: 100ms}}",
        {"timeout": "0s", "num_retries": 5, "retriable_status_codes": [500, 503],
         "retry_back_off": {"base_interval": "0.1s"}},
    ),
]  # fmt: skip
REDIRECTS = [
    ("{hostname: b.example}", {"host_redirect": "b.example", "port_redirect": 8080}),
    ("{scheme: https}", {"scheme_redirect": "https", "host_redirect": "shop.example"}),
    ("{scheme: https, port: 8443}", {"scheme_redirect": "https", "port_redirect": 8443}),
    ("{hostname: b.example, port: 80}", {"host_redirect": "b.example"}),
    ("{statusCode: 301, port: 80}", {"host_redirect": "shop.example", "response_code": "MOVED_PERMANENTLY"}),
    ("{statusCode: 303, scheme: http}", {"scheme_redirect": "http", "host_redirect": "shop.example",
                                         "response_code": "SEE_OTHER"}),
    ("{statusCode: 307, port: 81}", {"port_redirect": 81, "response_code": "TEMPORARY_REDIRECT"}),
    ("{statusCode: 308, port: 81}", {"port_redirect": 81, "response_code": "PERMANENT_REDIRECT"}),
    ("{port: 80, path: {type: ReplaceFullPath, replaceFullPath: /b}}",
     {"host_redirect": "shop.example", "path_redirect": "/b"}),
    ("{port: 80, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}",
     {"host_redirect": "shop.example", **regex("^/a/*", "/")}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "expected"), REWRITES)
def test_what_a_destination_gets_to_see(rule: str, expected: dict[str, Any]) -> None:
    [made] = routed({**TO_API, **text(rule)})

    assert {name: made["route"].get(name) for name in ("regex_rewrite", "host_rewrite_literal")} == {
        "regex_rewrite": None,
        "host_rewrite_literal": None,
        **expected,
    }


@pytest.mark.parametrize(("rule", "expected"), PATIENCE)
def test_how_long_and_how_often(rule: str, expected: dict[str, Any]) -> None:
    [made] = routed({**TO_API, **text(rule)})

    policy = made["route"].get("retry_policy", {})
    names = ("num_retries", "per_try_timeout", "retriable_status_codes", "retry_back_off")
    kept = {name: policy[name] for name in names if name in policy}
    assert {"timeout": made["route"]["timeout"], **kept} == expected


@pytest.mark.parametrize(("redirect", "expected"), REDIRECTS)
def test_where_a_client_is_sent(redirect: str, expected: dict[str, Any]) -> None:
    filters = [{"type": "RequestRedirect", "requestRedirect": text(redirect)}]
    [made] = routed({"matches": [{"path": {"value": "/a"}}], "filters": filters})

    assert made["redirect"] == {"response_code": "FOUND", **expected}


SESSION_STATE = "type.googleapis.com/envoy.extensions.http.stateful_session"
SESSIONS = [
    ("{sessionName: s}", "cookie", {"cookie": {"name": "s", "path": "/a"}}),
    ("{sessionName: s, type: Cookie, cookieConfig: {lifetimeType: Session}}", "cookie",
     {"cookie": {"name": "s", "path": "/a"}}),
    ("{sessionName: s, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}", "cookie",
     {"cookie": {"name": "s", "path": "/a", "ttl": "3600s"}}),
    ("{sessionName: S, type: Header}", "header", {"name": "s"}),
    ("{}", "cookie", {"cookie": {"name": "policyd-session-b2a3124b", "path": "/a"}}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "by", "expected"), SESSIONS)
def test_how_a_client_stays_with_an_instance(given: str, by: str, expected: dict[str, Any]) -> None:
    [made] = routed({**TO_API, "matches": [{"path": {"value": "/a/"}}], "sessionPersistence": text(given)})

    [(name, config)] = made["typed_per_filter_config"].items()
    state = config["stateful_session"]["session_state"]
    kind = {"cookie": "cookie.v3.CookieBasedSessionState", "header": "header.v3.HeaderBasedSessionState"}[by]
    assert (name, state["name"]) == ("envoy.filters.http.stateful_session", f"envoy.http.stateful_session.{by}")
    assert state["typed_config"] == {"@type": f"{SESSION_STATE}.{kind}", **expected}


@pytest.mark.parametrize(
    ("match", "path"),
    [
        ({}, "/"),
        ({"path": {"value": "/a/b/"}}, "/a/b"),
        ({"path": {"type": "Exact", "value": "/a/"}}, "/a/"),
        ({"path": {"type": "RegularExpression", "value": "/[0-9]"}}, "/"),
    ],
)
def test_a_cookie_is_for_the_paths_of_its_rule(match: dict[str, Any], path: str) -> None:
    [made] = routed({**TO_API, "matches": [match], "sessionPersistence": {}})
    [config] = made["typed_per_filter_config"].values()
    assert config["stateful_session"]["session_state"]["typed_config"]["cookie"]["path"] == path


def test_what_answers_by_itself_has_no_sessions() -> None:
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": "b.example"}}
    for rule in ({"filters": [redirect]}, {"backendRefs": [NOBODY]}):
        [made] = routed({**rule, "sessionPersistence": {}})
        assert "typed_per_filter_config" not in made


HEADERS = """\
filters:
  - type: RequestHeaderModifier
    requestHeaderModifier: {set: [{name: A, value: '1'}], add: [{name: b, value: '2'}], remove: [c]}
  - type: ResponseHeaderModifier
    responseHeaderModifier: {set: [{name: d, value: '3'}], remove: [e]}
"""
SET, ADD = "OVERWRITE_IF_EXISTS_OR_ADD", "APPEND_IF_EXISTS_OR_ADD"


def test_headers_of_both_ways() -> None:
    [made] = routed({**TO_API, **text(HEADERS)})

    assert {name: value for name, value in made.items() if name.startswith(("request_", "response_"))} == {
        "request_headers_to_add": [
            {"header": {"key": "a", "value": "1"}, "append_action": SET},
            {"header": {"key": "b", "value": "2"}, "append_action": ADD},
        ],
        "request_headers_to_remove": ["c"],
        "response_headers_to_add": [{"header": {"key": "d", "value": "3"}, "append_action": SET}],
        "response_headers_to_remove": ["e"],
    }


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ("{}", {"numerator": 1_000_000, "denominator": "MILLION"}),
        ("{percent: 10}", {"numerator": 100_000, "denominator": "MILLION"}),
        ("{fraction: {numerator: 1, denominator: 4}}", {"numerator": 250_000, "denominator": "MILLION"}),
    ],
)
def test_copies_of_requests(share: str, expected: dict[str, Any]) -> None:
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "web", "port": 80}, **text(share)}}
    [made] = routed({**TO_API, "filters": [mirror, mirror]})

    copies = made["route"]["request_mirror_policies"]
    assert [one["cluster"] for one in copies] == [WEB, WEB]
    assert copies[0]["runtime_fraction"]["default_value"] == expected


def test_a_copy_for_nobody_is_left_out() -> None:
    [made] = routed({**TO_API, "filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": NOBODY}}]})

    assert "request_mirror_policies" not in made["route"]


def test_shares_are_clusters_with_weights() -> None:
    refs = [{"name": "api", "port": 9080, "weight": 9}, {"name": "web", "port": 80}]
    [made] = routed({"backendRefs": refs})

    assert made["route"]["weighted_clusters"] == {
        "clusters": [{"name": API, "weight": 9}, {"name": WEB, "weight": 1}],
    }


def led(made: dict[str, Any]) -> Any:
    return made["direct_response"]["status"] if "direct_response" in made else made["route"]["cluster"]


def below(made: dict[str, Any]) -> int:
    share = made["match"].get("runtime_fraction", {"default_value": {"numerator": 1_000_000}})
    return int(share["default_value"]["numerator"])


@pytest.mark.parametrize(
    ("refs", "expected"),
    [
        ([], [(1_000_000, 500)]),
        ([NOBODY], [(1_000_000, 500)]),
        ([{"name": "api", "port": 9080, "weight": 0}], [(1_000_000, 500)]),
        ([{"name": "api", "port": 9080}, NOBODY], [(500_000, API), (1_000_000, 500)]),
        ([{**NOBODY, "weight": 1}, {"name": "api", "port": 9080, "weight": 3}], [(250_000, 500), (1_000_000, API)]),
        ([{**NOBODY, "weight": 0}, {"name": "api", "port": 9080}], [(1_000_000, API)]),
        (
            [
                {"name": "api", "port": 9080, "filters": [
                    {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/b"}}}
                ]},
                {"name": "web", "port": 80},
            ],
            [(500_000, API), (1_000_000, WEB)],
        ),
    ],
)  # fmt: skip
def test_the_share_of_who_is_not_there_is_answered_with_500(refs: list[Any], expected: list[tuple[int, Any]]) -> None:
    assert [(below(one), led(one)) for one in routed({"backendRefs": refs})] == expected


@pytest.mark.parametrize(
    ("refs", "expected"),
    [
        ([NOBODY], [(1_000_000, 503)]),
        ([{"name": "api", "port": 9080}, NOBODY], [(500_000, API), (1_000_000, 503)]),
    ],
)
def test_the_share_of_calls_for_who_is_not_there_is_unavailable(
    refs: list[Any], expected: list[tuple[int, Any]]
) -> None:
    assert [(below(one), led(one)) for one in routed({"backendRefs": refs}, kind="GRPCRoute")] == expected


def test_what_is_done_for_one_backend_is_not_done_for_another() -> None:
    own = [{"type": "URLRewrite", "urlRewrite": {"hostname": "b.example"}}]
    first, second = routed(
        {"backendRefs": [{"name": "api", "port": 9080, "filters": own}, {"name": "web", "port": 80}]}
    )

    assert first["route"]["host_rewrite_literal"] == "b.example"
    assert "host_rewrite_literal" not in second["route"]


ORDER = [
    "{path: {type: Exact, value: /a}}",
    "{path: {type: RegularExpression, value: '/a.*'}}",
    "{path: {value: /long}, queryParams: [{name: a, value: '1'}]}",
    "{path: {value: /long}}",
    "{path: {value: /b}, method: GET}",
    "{path: {value: /b}, headers: [{name: a, value: '1'}, {name: b, value: '1'}]}",
    "{path: {value: /b}, headers: [{name: a, value: '1'}], queryParams: [{name: a, value: '1'}]}",
    "{path: {value: /b}, headers: [{name: a, value: '1'}]}",
    "{path: {value: /b}, queryParams: [{name: a, value: '1'}]}",
    "{path: {value: /b}}",
    "{method: GET}",
    "{}",
]


def test_the_narrowest_match_is_first_wherever_it_is_written() -> None:
    written = [{**TO_API, "name": f"r{at}", "matches": [text(match)]} for at, match in enumerate(ORDER)]

    made = routed(*reversed(written))

    assert [one["name"] for one in made] == [f"default.shop.r{at}" for at in range(len(ORDER))]


def test_of_equal_matches_the_oldest_route_is_first_then_the_first_by_name() -> None:
    rule = {**TO_API, "matches": [{"path": {"value": "/a"}}]}
    aged = {"creationTimestamp": "2026-01-01T00:00:00Z"}
    parts = (route(rule, name="b"), route(rule, name="a"), route(rule, name="c", metadata=aged))

    [host] = [one for one in table(mesh_of(folder(gateway(), *parts)))["virtual_hosts"] if one["name"] == "*"]

    assert [one.get("name") for one in host["routes"]] == ["default.c.0", "default.a.0", "default.b.0", None]


def test_a_narrower_host_comes_before_a_wider_one_which_is_asked_for_the_rest() -> None:
    narrow = route({**TO_API, "matches": [{"path": {"value": "/a"}}]}, name="narrow", hostnames=["shop.example"])
    wide = route({**TO_WEB, "matches": [{"path": {"value": "/a/b"}}]}, name="wide", hostnames=["*.example"])

    hosts = {one["name"]: one["routes"] for one in table(mesh_of(folder(gateway(), wide, narrow)))["virtual_hosts"]}

    assert [one.get("name") for one in hosts["shop.example"]] == ["default.narrow.0", "default.wide.0", None]
    assert [one.get("name") for one in hosts["*.example"]] == ["default.wide.0", None]


def test_a_host_is_its_narrowest_listener_s() -> None:
    wide = {"name": "wide", "port": 8080, "protocol": "HTTP", "hostname": "*.example"}
    narrow = {"name": "narrow", "port": 8080, "protocol": "HTTP", "hostname": "a.example"}
    at = gateway(wide, narrow)
    parts = (
        route(name="w", parentRefs=[{"name": "edge", "sectionName": "wide"}], hostnames=["a.example", "b.example"]),
    )

    hosts = {one["name"]: one["routes"] for one in table(mesh_of(folder(at, *parts)))["virtual_hosts"]}

    assert [led(one) for one in hosts["b.example"]] == [API, 404]
    assert led(hosts["a.example"][0]) == 404


# ---- in the mesh


def sidecar(mesh: Mesh, namespace: str = "default", host: str = "api.default") -> list[dict[str, Any]]:
    made = routes.outbound(mesh, mesh.destinations.caller(namespace, {}))
    found: list[dict[str, Any]] = next(one for one in made["virtual_hosts"] if host in one["domains"])["routes"]
    return found


SERVICE = {"group": "", "kind": "Service", "name": "api"}


def test_tls_that_ends_is_led_on_by_its_name() -> None:
    shown = {"certificateRefs": [{"name": "shop"}]}
    at = gateway({"name": "ended", "port": 8443, "protocol": "TLS", "hostname": "*.example", "tls": shown})
    by_name = {"a.example": "mail", "*.b.example": "post"}
    named = [
        route({"backendRefs": [{"name": to, "port": 2525}]}, kind="TLSRoute", name=to, hostnames=[host])
        for host, to in by_name.items()
    ]
    more = f"{WORKLOADS.partition('gateways:')[0]}  post-v1: {{service: post, port: 2525, protocol: tcp}}\n"
    mesh = mesh_of(folder(at, *named, workloads=f"{more}gateways:{WORKLOADS.partition('gateways:')[2]}"))
    ingress = mesh.instances["ingress"]
    listen = next(one for one in ingress.listens if one.declared == 8443)

    servers = {one.server.hosts[0]: one for one in edge_connections.opened(mesh, ingress, listen)}
    led = {host["name"]: host["routes"] for host in edge_connections.table(mesh, ingress, listen)["virtual_hosts"]}

    def target(host: str) -> list[str | None]:
        name = edge_connections.into_tunnel(ingress, listen, servers[host])[1]["typed_config"]["tunneling_config"]
        return [one.get("route", {}).get("cluster") for one in led[name["hostname"]]]

    assert {host: target(host)[0] for host in servers} == {
        "a.example": "outbound|2525||mail.default",
        "*.b.example": "outbound|2525||post.default",
        "*.example": None,
    }


def test_a_route_of_a_service_is_for_all_its_callers() -> None:
    rule = {**TO_WEB, "matches": [{"path": {"value": "/a"}}]}
    mesh = mesh_of(folder(route(rule, parentRefs=[SERVICE])))

    for namespace in ("default", "far"):
        first = sidecar(mesh, namespace)[0]
        assert (first["match"], led(first)) == ({"path_separated_prefix": "/a"}, WEB)


def test_a_route_of_another_namespace_is_for_callers_there_alone() -> None:
    rule = {"backendRefs": [{"name": "far", "port": 9080}], "matches": [{"path": {"value": "/a"}}]}
    theirs = route(rule, metadata={"namespace": "far"}, parentRefs=[{**SERVICE, "namespace": "default"}])
    mesh = mesh_of(folder(theirs))

    assert led(sidecar(mesh, "far")[0]) == "outbound|9080||far.far"
    assert led(sidecar(mesh)[0]) == API


def test_a_route_of_a_port_leaves_the_others_alone() -> None:
    workloads = "workloads:\n  api-v1: {service: api, ports: [{port: 80, name: http}, {port: 81, name: http-b}]}\n"
    rule = {"backendRefs": [{"name": "api", "port": 80}]}
    for parent in ({**SERVICE, "port": 81}, {**SERVICE, "sectionName": "http-b"}):
        mesh = mesh_of(folder(route(rule, parentRefs=[parent]), workloads=workloads))

        assert led(sidecar(mesh, host="api.default:81")[0]) == "outbound|80||api.default"
        assert led(sidecar(mesh, host="api.default:80")[0]) == "outbound|80||api.default"
        assert "name" in sidecar(mesh, host="api.default:81")[0]
        assert "name" not in sidecar(mesh, host="api.default:80")[0]


def test_connections_of_a_service_go_where_its_tcp_route_says_or_end() -> None:
    parent = {"group": "", "kind": "Service", "name": "mail"}
    for ref, share in (({"name": "mail", "port": 2525}, None), (NOBODY, 0)):
        made = route({"backendRefs": [ref]}, kind="TCPRoute", parentRefs=[parent])
        [first] = sidecar(mesh_of(folder(made)), host="mail.default")

        fraction = first["match"].get("runtime_fraction")
        assert (fraction and fraction["default_value"]["numerator"]) == share


# ---- the real thing


@pytest.mark.e2e
@pytest.mark.parametrize("instance", ["web-v1", "ingress"])
def test_the_real_envoy_accepts_every_rule_there_is(tmp_path: Path, instance: str) -> None:
    origins = ["https://*.example", "https://a.example"]
    cors = {"type": "CORS", "cors": {"allowOrigins": origins, "allowMethods": ["GET"], "maxAge": 60}}
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "web", "port": 80}, "percent": 5}}
    own = [{"type": "URLRewrite", "urlRewrite": {"hostname": "b.example"}}]
    rules: list[dict[str, Any]] = [
        *({**TO_API, "matches": [text(match)]} for match, _ in MATCHES),
        *({**TO_API, **text(rule)} for rule, _ in (*REWRITES, *PATIENCE)),
        *(
            {
                "matches": [{"path": {"value": "/a"}}],
                "filters": [{"type": "RequestRedirect", "requestRedirect": text(one)}],
            }
            for one, _ in REDIRECTS
        ),
        {**TO_API, **text(HEADERS)},
        *({**TO_API, "sessionPersistence": text(given)} for given, _, _ in SESSIONS),
        {**TO_API, "filters": [cors, mirror]},
        {"backendRefs": [{"name": "api", "port": 9080, "filters": own}, {"name": "web", "port": 80}, NOBODY]},
    ]
    parents = [{"name": "edge"}, SERVICE]
    for number, rule in enumerate(rules):
        rule["matches"] = [
            {**one, "headers": [{"name": "n", "value": str(number)}]} for one in rule.get("matches", [{}])
        ]
    parts = [
        route(*rules[at : at + 16], name=f"r{at}", parentRefs=parents, hostnames=["a.example"])
        for at in range(0, len(rules), 16)
    ]
    calls = [{**TO_API, "matches": [text(match)], "sessionPersistence": {"type": "Header"}} for match, _ in CALLS]
    tcp = {"name": "tcp", "port": 9000, "protocol": "TCP"}
    tls = {"name": "tls", "port": 8443, "protocol": "TLS", "hostname": "*.example", "tls": {"mode": "Passthrough"}}
    http = {"name": "http", "port": 8080, "protocol": "HTTP"}
    shown = {"certificateRefs": [{"name": "shop"}]}
    ended = {"name": "ended", "port": 8443, "protocol": "TLS", "hostname": "*.ended.example", "tls": shown}
    secure = {"name": "https", "port": 8443, "protocol": "HTTPS", "hostname": "s.example", "tls": shown}
    clients = {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "clients"}]}
    halves = {"backendRefs": [{"name": "mail", "port": 2525}, NOBODY]}
    mesh = mesh_of(
        folder(
            gateway(http, tcp, tls, ended, secure, tls={"frontend": {"default": {"validation": clients}}}),
            *parts,
            route(*calls, name="calls", kind="GRPCRoute", hostnames=["calls.example"]),
            route(halves, name="tcp", kind="TCPRoute"),
            route(halves, name="tls", kind="TLSRoute", hostnames=["a.example"]),
            route(
                halves,
                name="ended",
                kind="TLSRoute",
                hostnames=["a.ended.example", "*.b.ended.example"],
                parentRefs=[{"name": "edge", "sectionName": "ended"}],
            ),
            grant("far", "HTTPRoute", "Service"),
        )
    )

    accepted(build_snapshots(mesh, CONTROL)[instance], tmp_path)
