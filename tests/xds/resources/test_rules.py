"""A rule of a VirtualService, and the route that Envoy gets for it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from policyd import envoy_api
from policyd.mesh.destinations import Caller
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.model import Mesh
from policyd.xds.resources import rules
from policyd.xds.resources.matches import route_match
from tests.xds.resources.folders import mesh_with

VIEW = rules.View(Caller("default"), 9080)
API, WEB = "outbound|9080||api.default", "outbound|80||web.default"
FAULT = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
RETRIES = {
    "num_retries": 2,
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled",
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    "host_selection_retry_max_attempts": 5,
}


VIRTUAL_SERVICE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: it}
spec: {hosts: [api], http: [{route: [{destination: {host: api}}]}]}
"""


def declared(http: str) -> tuple[Mesh, VirtualService]:
    """A Mesh whose only VirtualService has the rule `http` (YAML)."""
    resource = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "it"},
        "spec": {"hosts": ["api"], "http": [yaml.safe_load(http)]},
    }
    mesh = mesh_with(yaml.safe_dump(resource))
    return mesh, mesh.virtual_services[0]


MATCHES: list[tuple[str, dict[str, Any]]] = [
    ("{uri: {exact: /a}}", {"path": "/a"}),
    ("{uri: {prefix: /a}}", {"prefix": "/a"}),
    ('{uri: {regex: "/a/[0-9]+"}}', {"safe_regex": {"regex": "/a/[0-9]+"}}),
    ("{uri: {prefix: /a}, ignoreUriCase: true}", {"prefix": "/a", "case_sensitive": False}),
    (
        "{method: {exact: GET}}",
        {"prefix": "/", "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]},
    ),
    (
        "{authority: {prefix: api}}",
        {"prefix": "/", "headers": [{"name": ":authority", "string_match": {"prefix": "api"}}]},
    ),
    (
        "{headers: {end-user: {exact: jason}}}",
        {"prefix": "/", "headers": [{"name": "end-user", "string_match": {"exact": "jason"}}]},
    ),
    ("{headers: {end-user: {}}}", {"prefix": "/", "headers": [{"name": "end-user", "present_match": True}]}),
    (
        "{withoutHeaders: {end-user: {exact: jason}}}",
        {
            "prefix": "/",
            "headers": [
                {
                    "name": "end-user",
                    "string_match": {"exact": "jason"},
                    "invert_match": True,
                    "treat_missing_header_as_empty": True,
                }
            ],
        },
    ),
    (
        "{withoutHeaders: {end-user: {}}}",
        {"prefix": "/", "headers": [{"name": "end-user", "present_match": True, "invert_match": True}]},
    ),
    (
        "{queryParams: {v: {exact: '2'}}}",
        {"prefix": "/", "query_parameters": [{"name": "v", "string_match": {"exact": "2"}}]},
    ),
    (
        "{queryParams: {v: {}}}",
        {"prefix": "/", "query_parameters": [{"name": "v", "present_match": True}]},
    ),
    (
        "{scheme: {exact: https}}",
        {"prefix": "/", "headers": [{"name": ":scheme", "string_match": {"exact": "https"}}]},
    ),
    ("{port: 9080, sourceNamespace: default, statPrefix: p, name: n}", {"prefix": "/"}),
]


@pytest.mark.parametrize(("match", "expected"), MATCHES)
def test_a_match_becomes_envoys(match: str, expected: dict[str, Any]) -> None:
    _, owner = declared(f"{{match: [{match}], route: [{{destination: {{host: api}}}}]}}")

    assert route_match(owner.spec.http[0].match[0]) == expected
    envoy_api.build("envoy.config.route.v3.RouteMatch", expected)


ACTIONS: list[tuple[str, dict[str, Any]]] = [
    (
        "{route: [{destination: {host: api}}]}",
        {"route": {"cluster": API, "timeout": "0s", "retry_policy": RETRIES}},
    ),
    (
        "{route: [{destination: {host: web}}], timeout: 0.5s}",
        {"route": {"cluster": WEB, "timeout": "0.5s", "retry_policy": RETRIES}},
    ),
    (
        "{route: [{destination: {host: api}, weight: 80}, {destination: {host: web.default.svc}, weight: 20}]}",
        {
            "route": {
                "weighted_clusters": {"clusters": [{"name": API, "weight": 80}, {"name": WEB, "weight": 20}]},
                "timeout": "0s",
                "retry_policy": RETRIES,
            }
        },
    ),
    (
        "{route: [{destination: {host: api}, weight: 1}, {destination: {host: web}, weight: 0}]}",
        {
            "route": {
                "weighted_clusters": {"clusters": [{"name": API, "weight": 1}]},
                "timeout": "0s",
                "retry_policy": RETRIES,
            }
        },
    ),
    ("{route: [{destination: {host: api}}], retries: {attempts: 0}}", {"route": {"cluster": API, "timeout": "0s"}}),
    (
        "{route: [{destination: {host: api}}], retries: {attempts: 3, perTryTimeout: 2s, retryOn: '5xx,503'}}",
        {
            "route": {
                "cluster": API,
                "timeout": "0s",
                "retry_policy": {
                    **RETRIES,
                    "num_retries": 3,
                    "retry_on": "5xx,retriable-status-codes",
                    "retriable_status_codes": [503],
                    "per_try_timeout": "2s",
                },
            }
        },
    ),
    (
        "{match: [{uri: {prefix: /a}}], rewrite: {uri: /b, authority: x.example}, route: [{destination: {host: api}}]}",
        {
            "route": {
                "cluster": API,
                "timeout": "0s",
                "retry_policy": RETRIES,
                "host_rewrite_literal": "x.example",
                "prefix_rewrite": "/b",
            }
        },
    ),
    (
        "{rewrite: {uri: /b}, route: [{destination: {host: api}}]}",
        {"route": {"cluster": API, "timeout": "0s", "retry_policy": RETRIES, "prefix_rewrite": "/b/"}},
    ),
    (
        "{redirect: {uri: /new, authority: x.example, redirectCode: 307}}",
        {
            "redirect": {
                "response_code": "TEMPORARY_REDIRECT",
                "path_redirect": "/new",
                "host_redirect": "x.example",
            }
        },
    ),
    (
        "{redirect: {authority: x.example}}",
        {"redirect": {"response_code": "MOVED_PERMANENTLY", "host_redirect": "x.example"}},
    ),
    (
        "{directResponse: {status: 418, body: {string: tea}}}",
        {"direct_response": {"status": 418, "body": {"inline_string": "tea"}}},
    ),
    ("{directResponse: {status: 204}}", {"direct_response": {"status": 204}}),
    (
        "{directResponse: {status: 200, body: {bytes: dGVh}}}",
        {"direct_response": {"status": 200, "body": {"inline_bytes": "dGVh"}}},
    ),
    (
        "{redirect: {prefixRewrite: /b, scheme: https, port: 8443}}",
        {
            "redirect": {
                "response_code": "MOVED_PERMANENTLY",
                "prefix_rewrite": "/b",
                "scheme_redirect": "https",
                "port_redirect": 8443,
            }
        },
    ),
    (
        "{redirect: {scheme: https, derivePort: FROM_REQUEST_PORT}}",
        {
            "redirect": {
                "response_code": "MOVED_PERMANENTLY",
                "scheme_redirect": "https",
                "port_redirect": 9080,
            }
        },
    ),
    (
        "{redirect: {scheme: https, derivePort: FROM_PROTOCOL_DEFAULT}}",
        {"redirect": {"response_code": "MOVED_PERMANENTLY", "scheme_redirect": "https"}},
    ),
    (
        "{route: [{destination: {host: api}}], rewrite: {uriRegexRewrite: {match: '^/a/(.*)$', rewrite: '/b/\\1'}}}",
        {
            "route": {
                "cluster": API,
                "timeout": "0s",
                "retry_policy": RETRIES,
                "regex_rewrite": {"pattern": {"regex": "^/a/(.*)$"}, "substitution": "/b/\\1"},
            }
        },
    ),
    (
        "{route: [{destination: {host: api}}], retries: {attempts: 1, retryIgnorePreviousHosts: false, "
        "retryRemoteLocalities: true, backoff: 10ms}}",
        {
            "route": {
                "cluster": API,
                "timeout": "0s",
                "retry_policy": {
                    "num_retries": 1,
                    "retry_on": "connect-failure,refused-stream,unavailable,cancelled",
                    "host_selection_retry_max_attempts": 5,
                    "retry_priority": {
                        "name": "envoy.retry_priorities.previous_priorities",
                        "typed_config": {
                            "@type": "type.googleapis.com/"
                            "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                            "update_frequency": 2,
                        },
                    },
                    "retry_back_off": {"base_interval": "0.01s"},
                },
            }
        },
    ),
    (
        "{route: [{destination: {host: api}}], mirror: {host: web}, mirrorPercentage: {value: 0.5}}",
        {
            "route": {
                "cluster": API,
                "timeout": "0s",
                "retry_policy": RETRIES,
                "request_mirror_policies": [
                    {
                        "cluster": WEB,
                        "runtime_fraction": {"default_value": {"numerator": 5000, "denominator": "MILLION"}},
                    }
                ],
            }
        },
    ),
    (
        "{route: [{destination: {host: api}}], mirrors: [{destination: {host: web}}, "
        "{destination: {host: api}, percentage: {value: 0}}]}",
        {
            "route": {
                "cluster": API,
                "timeout": "0s",
                "retry_policy": RETRIES,
                "request_mirror_policies": [
                    {
                        "cluster": WEB,
                        "runtime_fraction": {"default_value": {"numerator": 1000000, "denominator": "MILLION"}},
                    }
                ],
            }
        },
    ),
    (
        "{route: [{destination: {host: api}}], timeout: 3s, retries: {attempts: 5}, "
        "fault: {delay: {fixedDelay: 7s, percentage: {value: 100}}, abort: {grpcStatus: UNAVAILABLE}}}",
        {
            "route": {"cluster": API, "timeout": "0s"},
            "typed_per_filter_config": {
                "envoy.filters.http.fault": {
                    "@type": FAULT,
                    "delay": {
                        "fixed_delay": "7s",
                        "percentage": {"numerator": 1000000, "denominator": "MILLION"},
                    },
                    "abort": {"grpc_status": 14, "percentage": {"numerator": 0, "denominator": "MILLION"}},
                }
            },
        },
    ),
    (
        "{fault: {abort: {httpStatus: 500, percentage: {value: 0.01}}}, directResponse: {status: 200}}",
        {
            "direct_response": {"status": 200},
            "typed_per_filter_config": {
                "envoy.filters.http.fault": {
                    "@type": FAULT,
                    "abort": {"http_status": 500, "percentage": {"numerator": 100, "denominator": "MILLION"}},
                }
            },
        },
    ),
    (
        "{route: [{destination: {host: api}}], corsPolicy: {allowOrigin: ['https://a.example', 'https://b.example']}}",
        {
            "route": {"cluster": API, "timeout": "0s", "retry_policy": RETRIES},
            "typed_per_filter_config": {
                "envoy.filters.http.cors": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
                    "allow_origin_string_match": [{"exact": "https://a.example"}, {"exact": "https://b.example"}],
                    "filter_enabled": {"default_value": {"numerator": 100}},
                    "allow_credentials": False,
                    "forward_not_matching_preflights": True,
                }
            },
        },
    ),
    (
        "{route: [{destination: {host: api}}], "
        "corsPolicy: {allowOrigins: [{exact: 'https://a.example'}, {regex: '.*'}]"
        ", allowMethods: [GET, PUT], allowHeaders: [X-A], exposeHeaders: [x-b], maxAge: 24h, allowCredentials: true,"
        " unmatchedPreflights: IGNORE}}",
        {
            "route": {"cluster": API, "timeout": "0s", "retry_policy": RETRIES},
            "typed_per_filter_config": {
                "envoy.filters.http.cors": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
                    "allow_origin_string_match": [{"exact": "https://a.example"}, {"safe_regex": {"regex": ".*"}}],
                    "filter_enabled": {"default_value": {"numerator": 100}},
                    "allow_credentials": True,
                    "forward_not_matching_preflights": False,
                    "allow_methods": "GET,PUT",
                    "allow_headers": "x-a",
                    "expose_headers": "x-b",
                    "max_age": "86400",
                }
            },
        },
    ),
    (
        "{route: [{destination: {host: api}, headers: {request: {set: {':authority': a.example, x-a: a}}}}],"
        " headers: {request: {set: {x-a: b}}}}",
        {
            "route": {"cluster": API, "timeout": "0s", "retry_policy": RETRIES, "host_rewrite_literal": "a.example"},
            "request_headers_to_add": [
                {"header": {"key": "x-a", "value": "a"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
                {"header": {"key": "x-a", "value": "b"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
            ],
        },
    ),
    (
        "{route: [{destination: {host: api}, weight: 1, headers: {request: {set: {host: a.example}},"
        " response: {add: {x-from: api}}}}, {destination: {host: web}, weight: 1}]}",
        {
            "route": {
                "weighted_clusters": {
                    "clusters": [
                        {
                            "name": API,
                            "weight": 1,
                            "host_rewrite_literal": "a.example",
                            "response_headers_to_add": [
                                {
                                    "header": {"key": "x-from", "value": "api"},
                                    "append_action": "APPEND_IF_EXISTS_OR_ADD",
                                }
                            ],
                        },
                        {"name": WEB, "weight": 1},
                    ]
                },
                "timeout": "0s",
                "retry_policy": RETRIES,
            }
        },
    ),
]


@pytest.mark.parametrize(("rule", "expected"), ACTIONS)
def test_an_action_becomes_envoys(rule: str, expected: dict[str, Any]) -> None:
    mesh, owner = declared(rule)

    [route] = rules.routes_of(mesh, owner, VIEW)

    del route["match"]
    assert route == expected
    envoy_api.build("envoy.config.route.v3.Route", {"match": {"prefix": "/"}, **route})


def test_every_block_of_a_rule_is_a_route_in_order() -> None:
    mesh, owner = declared("{name: both, match: [{uri: {exact: /b}}, {uri: {exact: /a}}], redirect: {uri: /c}}")

    assert [(route["name"], route["match"]) for route in rules.routes_of(mesh, owner, VIEW)] == [
        ("both", {"path": "/b"}),
        ("both", {"path": "/a"}),
    ]


def test_headers_are_set_added_and_removed_and_a_percent_sign_stays_one() -> None:
    mesh, owner = declared(
        "{route: [{destination: {host: api}}],"
        " headers: {request: {set: {x-a: 50%}, add: {x-b: b}, remove: [x-c]}, response: {remove: [x-d]}}}"
    )

    [route] = rules.routes_of(mesh, owner, VIEW)

    assert {key: value for key, value in route.items() if "headers" in key} == {
        "request_headers_to_add": [
            {"header": {"key": "x-a", "value": "50%%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
            {"header": {"key": "x-b", "value": "b"}, "append_action": "APPEND_IF_EXISTS_OR_ADD"},
        ],
        "request_headers_to_remove": ["x-c"],
        "response_headers_to_remove": ["x-d"],
    }


@pytest.mark.parametrize(
    ("match", "view", "given"),
    [
        ("{}", VIEW, True),
        ("{port: 9080}", VIEW, True),
        ("{port: 80}", VIEW, False),
        ("{sourceNamespace: default}", VIEW, True),
        ("{sourceNamespace: far}", VIEW, False),
        ("{sourceLabels: {app: web}}", VIEW, False),
        ("{sourceLabels: {app: web}}", rules.View(Caller("default", frozenset({("app", "web")})), 9080), True),
        ("{sourceLabels: {app: web, v: '1'}}", rules.View(Caller("default", frozenset({("app", "web")})), 9080), False),
        ("{gateways: [mesh]}", VIEW, True),
        ("{gateways: [mesh]}", rules.View(Caller("default"), 9080, frozenset({"default/edge"})), False),
    ],
)
def test_a_block_is_given_to_the_proxies_that_it_selects(match: str, view: rules.View, given: bool) -> None:
    mesh, owner = declared(f"{{match: [{match}], redirect: {{uri: /}}}}")

    assert (rules.routes_of(mesh, owner, view) != []) is given


def test_a_request_that_belongs_to_one_instance_is_tried_there_again() -> None:
    rule = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api}
spec: {host: api, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}}
"""
    mesh = mesh_with(VIRTUAL_SERVICE + "---" + rule)
    [route] = rules.routes_of(mesh, mesh.virtual_services[0], VIEW)

    assert "retry_host_predicate" not in route["route"]["retry_policy"]


def test_a_route_leads_to_a_subset() -> None:
    rule = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api}
spec: {host: api, subsets: [{name: all}]}
"""
    mesh = mesh_with(VIRTUAL_SERVICE.replace("host: api}", "host: api, subset: all}") + "---" + rule)
    [route] = rules.routes_of(mesh, mesh.virtual_services[0], VIEW)

    assert route["route"]["cluster"] == "outbound|9080|all|api.default"


def test_names_and_statistics_of_a_rule_and_its_blocks_are_kept() -> None:
    mesh, owner = declared("{name: rule, match: [{name: block, statPrefix: s}, {}], redirect: {uri: /}}")

    assert [
        {key: route.get(key) for key in ("name", "stat_prefix")} for route in rules.routes_of(mesh, owner, VIEW)
    ] == [
        {"name": "rule.block", "stat_prefix": "s"},
        {"name": "rule", "stat_prefix": None},
    ]
