"""A rule of a VirtualService, and the route that Envoy gets for it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from policyd import envoy_api
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.model import Mesh
from policyd.xds.resources import rules
from policyd.xds.resources.matches import route_match
from tests.xds.resources.folders import mesh_with

API, WEB = "outbound|9080||api.default", "outbound|80||web.default"
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
]


@pytest.mark.parametrize(("rule", "expected"), ACTIONS)
def test_an_action_becomes_envoys(rule: str, expected: dict[str, Any]) -> None:
    mesh, owner = declared(rule)

    [route] = rules.routes_of(mesh, owner)

    del route["match"]
    assert route == expected
    envoy_api.build("envoy.config.route.v3.Route", {"match": {"prefix": "/"}, **route})


def test_every_block_of_a_rule_is_a_route_in_order() -> None:
    mesh, owner = declared("{name: both, match: [{uri: {exact: /b}}, {uri: {exact: /a}}], redirect: {uri: /c}}")

    assert [(route["name"], route["match"]) for route in rules.routes_of(mesh, owner)] == [
        ("both", {"path": "/b"}),
        ("both", {"path": "/a"}),
    ]


def test_headers_are_set_added_and_removed_and_a_percent_sign_stays_one() -> None:
    mesh, owner = declared(
        "{route: [{destination: {host: api}}],"
        " headers: {request: {set: {x-a: 50%}, add: {x-b: b}, remove: [x-c]}, response: {remove: [x-d]}}}"
    )

    [route] = rules.routes_of(mesh, owner)

    assert {key: value for key, value in route.items() if "headers" in key} == {
        "request_headers_to_add": [
            {"header": {"key": "x-a", "value": "50%%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
            {"header": {"key": "x-b", "value": "b"}, "append_action": "APPEND_IF_EXISTS_OR_ADD"},
        ],
        "request_headers_to_remove": ["x-c"],
        "response_headers_to_remove": ["x-d"],
    }
