"""Which hosts lead where: in sidecars by the names of Services, at gateways by the hosts of their servers."""

from __future__ import annotations

from typing import Any

import pytest

from policyd.mesh.model import Instance, Mesh
from policyd.xds.resources import edges, routes
from tests.xds.resources.folders import mesh_with

MESH_RULE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: it, namespace: {namespace}}}
spec:
  hosts: [{hosts}]
  http: [{{directResponse: {{status: 299}}}}]
"""
EDGE = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: 8080, name: http, protocol: HTTP}}, hosts: [{served}]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: it}}
spec:
  hosts: [{hosts}]
  gateways: [{bound}]
  http: [{{directResponse: {{status: 299}}}}]
"""


def outbound(mesh: Mesh, namespace: str = "default", **labels: str) -> dict[str, Any]:
    """What sidecars of a namespace and with some labels route by."""
    return routes.outbound(mesh, mesh.destinations.caller(namespace, labels))


def at_edge(mesh: Mesh, instance: Instance, listen: int) -> dict[str, Any]:
    """The only table of a plain port."""
    [table] = edges.tables(mesh, instance, instance.listens[listen])
    return table


def host_of(table: dict[str, Any], host: str) -> dict[str, Any]:
    return next(one for one in table["virtual_hosts"] if host in one["domains"])


def answers(host: dict[str, Any]) -> Any:
    """The status that a virtual host's first route answers with, or the cluster that it leads to."""
    first: dict[str, Any] = host["routes"][0]
    return first["direct_response"]["status"] if "direct_response" in first else first["route"]["cluster"]


def test_a_service_is_reached_by_all_its_names_and_the_rest_by_none() -> None:
    table = outbound(mesh_with(""))

    assert [(one["domains"], answers(one)) for one in table["virtual_hosts"]] == [
        (
            [
                "api",
                "api.default",
                "api.default.svc",
                "api.default.svc.cluster.local",
                "api:9080",
                "api.default:9080",
                "api.default.svc:9080",
                "api.default.svc.cluster.local:9080",
            ],
            "outbound|9080||api.default",
        ),
        (
            ["ingress", "ingress.default", "ingress.default.svc", "ingress.default.svc.cluster.local"]
            + [f"ingress{end}:8080" for end in ("", ".default", ".default.svc", ".default.svc.cluster.local")],
            "outbound|8080||ingress.default",
        ),
        (
            [f"ingress{end}:8081" for end in ("", ".default", ".default.svc", ".default.svc.cluster.local")],
            "outbound|8081||ingress.default",
        ),
        (
            ["other.far", "other.far.svc", "other.far.svc.cluster.local"]
            + [f"other.far{end}:9080" for end in ("", ".svc", ".svc.cluster.local")],
            "outbound|9080||other.far",
        ),
        (
            ["web", "web.default", "web.default.svc", "web.default.svc.cluster.local"]
            + [f"web{end}:80" for end in ("", ".default", ".default.svc", ".default.svc.cluster.local")],
            "outbound|80||web.default",
        ),
        (["*"], 502),
    ]


def test_a_short_name_means_the_callers_own_namespace() -> None:
    far = outbound(mesh_with(""), "far")

    assert "other" in host_of(far, "other.far")["domains"]
    assert "api" not in host_of(far, "api.default")["domains"]


def test_the_secret_of_the_applications_proxy_goes_no_further() -> None:
    assert outbound(mesh_with(""))["request_headers_to_remove"] == ["proxy-authorization"]


@pytest.mark.parametrize(
    ("hosts", "namespace", "taken"),
    [
        ("api", "default", True),
        ("api.default.svc.cluster.local", "default", True),
        ("api.default", "far", True),
        ("web", "default", False),
    ],
)
def test_a_virtual_service_holds_for_the_services_that_it_names(hosts: str, namespace: str, taken: bool) -> None:
    mesh = mesh_with(MESH_RULE.format(hosts=hosts, namespace=namespace))

    assert (answers(host_of(outbound(mesh), "api.default")) == 299) is taken


@pytest.mark.parametrize(
    ("served", "hosts", "bound", "expected"),
    [
        ("'*'", "'*'", "edge", {"*": 299}),
        ("'*'", "shop.example", "edge", {"shop.example": 299, "*": 404}),
        ("'*.example'", "shop.example", "edge", {"shop.example": 299, "*": 404}),
        ("shop.example", "'*.example'", "edge", {"shop.example": 299, "*": 404}),
        ("shop.example", "'*'", "default/edge", {"shop.example": 299, "*": 404}),
    ],
)
def test_a_gateway_serves_the_hosts_that_both_sides_name(
    served: str, hosts: str, bound: str, expected: dict[str, int]
) -> None:
    mesh = mesh_with(EDGE.format(served=served, hosts=hosts, bound=bound))
    ingress = mesh.instances["ingress"]

    table = at_edge(mesh, ingress, 0)

    assert {one["name"]: answers(one) for one in table["virtual_hosts"]} == expected


def test_a_request_without_a_route_is_decided_before_it_is_answered() -> None:
    """Every virtual host of a gateway names the listener, and ends with a route of its own for the rest."""
    mesh = mesh_with(EDGE.format(served="'*'", hosts="shop.example", bound="edge"))
    ingress = mesh.instances["ingress"]

    table = at_edge(mesh, ingress, 0)

    asked = {
        "envoy.filters.http.ext_authz": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
            "check_settings": {"context_extensions": {"policyd.listener": "ingress/gateway/8080"}},
        }
    }
    assert [one["typed_per_filter_config"] for one in table["virtual_hosts"]] == [asked, asked]
    assert all(one["routes"][-1]["direct_response"]["status"] == 404 for one in table["virtual_hosts"])


def test_a_port_without_a_gateway_answers_nothing_but_404() -> None:
    mesh = mesh_with("")
    ingress = mesh.instances["ingress"]

    table = at_edge(mesh, ingress, 1)

    assert {one["name"]: answers(one) for one in table["virtual_hosts"]} == {"*": 404}


SEVERAL = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}{more}}}
spec: {{hosts: [shop.example], gateways: [default/edge], http: [{rule}]{export}}}
"""


def test_the_rules_of_several_for_one_host_at_a_gateway_are_tried_in_order_and_those_for_all_last() -> None:
    edge = EDGE.format(served="'*'", hosts="shop.example", bound="edge")
    more = SEVERAL.format(
        name="more", more="", rule="{match: [{uri: {prefix: /a}}], directResponse: {status: 298}}", export=""
    )
    mesh = mesh_with(f"{edge}---\n{more}")
    ingress = mesh.instances["ingress"]

    found = host_of(at_edge(mesh, ingress, 0), "shop.example")["routes"]

    assert [(one["match"], one["direct_response"]["status"]) for one in found] == [
        ({"prefix": "/a"}, 298),
        ({"prefix": "/"}, 299),
        ({"prefix": "/"}, 404),
    ]


def test_what_is_not_exported_to_the_gateways_namespace_does_not_hold_there() -> None:
    edge = EDGE.format(served="'*'", hosts="shop.example", bound="edge")
    rule = "{match: [{uri: {prefix: /a}}], directResponse: {status: 298}}"
    more = SEVERAL.format(name="more", more=", namespace: far", rule=rule, export=", exportTo: ['.']")
    mesh = mesh_with(f"{edge}---\n{more}")
    ingress = mesh.instances["ingress"]

    found = host_of(at_edge(mesh, ingress, 0), "shop.example")["routes"]

    assert [one["direct_response"]["status"] for one in found] == [299, 404]


def test_a_rule_for_some_callers_is_not_given_to_others() -> None:
    rule = MESH_RULE.format(hosts="api", namespace="default").replace(
        "{directResponse", "{match: [{sourceLabels: {app: web}}], directResponse"
    )
    mesh = mesh_with(rule)

    assert answers(host_of(outbound(mesh, app="web"), "api")) == 299
    assert answers(host_of(outbound(mesh, app="other"), "api")) == "outbound|9080||api.default"


def test_an_outside_name_with_rules_is_a_host_of_its_own() -> None:
    mesh = mesh_with(MESH_RULE.format(hosts="shop.example, '*.shop.example'", namespace="default"))

    table = outbound(mesh)

    assert [one["domains"] for one in table["virtual_hosts"] if answers(one) == 299] == [
        ["shop.example", "shop.example:80"],
        ["*.shop.example", "*.shop.example:80"],
    ]
