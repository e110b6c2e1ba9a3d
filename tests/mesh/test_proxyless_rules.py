"""What gRPC cannot do of what is declared: refused, or told, where it is written, and only if somebody calls by it."""

from __future__ import annotations

import pytest

from policyd.errors import InvalidInput
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.placement import assumed
from policyd.mesh.proxyless_rules import REMEDY, told

WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 8080, protocol: grpc, proxyless: true}
  api-v1: {service: api, port: 9080, protocol: grpc}
  page-v1: {service: page, port: 80}
"""
RULE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api}
spec:
  hosts: [api]
  http:
  - %s
"""
TO = "route: [{destination: {host: api}}]"
POLICY = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api}
spec: {host: api, trafficPolicy: {%s}}
"""
OUTSIDE = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: it}
spec: {hosts: [books.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
"""


def found(resource: str, workloads: str = WORKLOADS, more: str = "") -> tuple[list[str], list[str]]:
    """What is refused, and what is told of what stands."""
    declaration = declare({"workloads.yaml": workloads, "mesh/it.yaml": resource, "mesh/more.yaml": more})
    try:
        mesh = build(declaration, "cluster.local", assumed(declaration))
    except InvalidInput as error:
        return [str(one) for one in error.problems], []
    return [], [str(one) for one in told(declaration, mesh)]


@pytest.mark.parametrize(
    ("rule", "line", "why"),
    [
        ("redirect: {uri: /x}", 7, "gRPC redirects no call"),
        ("directResponse: {status: 200}", 7, "gRPC answers no call on its way"),
        (f"{TO}\n    rewrite: {{uri: /x}}", 8, "gRPC rewrites neither the path nor the authority of a call"),
        (f"{TO}\n    mirror: {{host: api}}", 8, "gRPC sends no copies"),
        (f"{TO}\n    mirrors: [{{destination: {{host: api}}}}]", 8, "gRPC sends no copies"),
        (f"{TO}\n    headers: {{request: {{set: {{x-a: b}}}}}}", 8, "gRPC changes no headers on their way"),
        (
            "route: [{destination: {host: api}, headers: {response: {remove: [x-a]}}}]",
            7,
            "gRPC changes no headers on their way",
        ),
        (f"{TO}\n    match: [{{queryParams: {{a: {{exact: b}}}}}}]", 8, "a call of gRPC has no query"),
        (f"{TO}\n    match: [{{scheme: {{exact: http}}}}]", 8, "gRPC does not look at the scheme"),
        (f"{TO}\n    match: [{{authority: {{exact: api}}}}]", 8, "gRPC does not look at the authority"),
        (f"{TO}\n    match: [{{method: {{exact: GET}}}}]", 8, "every call of gRPC is a POST"),
        (f'{TO}\n    match: [{{method: {{regex: "POS."}}}}]', 8, "every call of gRPC is a POST"),
        (
            f"{TO}\n    match: [{{withoutHeaders: {{x-a: {{exact: b}}}}}}]",
            8,
            "gRPC takes a header that is missing for one that has the value",
        ),
        ("route: [{destination: {host: page}}]", 7, "port 80 of `page.default` does not speak gRPC"),
        (
            "route: [{destination: {host: books.example.com}}]",
            7,
            "it leads outside, and nobody would be asked whether it may",
        ),
    ],
)
def test_what_would_lead_a_call_elsewhere_is_refused_where_it_is_written(rule: str, line: int, why: str) -> None:
    problem = f"mesh/it.yaml:{line}: callers without a sidecar would get this otherwise: {why}; {REMEDY}"

    assert found(RULE % rule, more=OUTSIDE) == ([problem], [])


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (
            "loadBalancer: {consistentHash: {useSourceIp: true}}",
            "gRPC tells calls apart by a header alone (`httpHeaderName`)",
        ),
        (
            "loadBalancer: {consistentHash: {httpCookie: {name: a}}}",
            "gRPC tells calls apart by a header alone (`httpHeaderName`)",
        ),
    ],
)
def test_a_policy_that_would_choose_by_something_else_is_refused(policy: str, why: str) -> None:
    problem = f"mesh/it.yaml:4: callers without a sidecar would get this otherwise: {why}; {REMEDY}"

    assert found(POLICY % policy) == ([problem], [])


@pytest.mark.parametrize(
    ("resource", "why"),
    [
        (RULE % f"{TO}\n    corsPolicy: {{allowMethods: [GET]}}", "it is for browsers, which do not call so"),
        (RULE % f"{TO}\n    retries: {{attempts: 5}}", "gRPC tries again 4 times at the most"),
        (
            RULE % f"{TO}\n    retries: {{attempts: 1, perTryTimeout: 1s}}",
            "gRPC has one time for all tries, `timeout`",
        ),
        (
            RULE % f"{TO}\n    retries: {{attempts: 1, retryOn: 5xx}}",
            "nothing is tried again; "
            "gRPC knows cancelled, deadline-exceeded, internal, resource-exhausted, unavailable",
        ),
        (
            RULE % f"{TO}\n    retries: {{attempts: 1, retryRemoteLocalities: true}}",
            "gRPC chooses an endpoint anew, wherever it is",
        ),
        (POLICY % "loadBalancer: {simple: RANDOM}", "gRPC takes instances in turn"),
        (POLICY % "loadBalancer: {warmup: {duration: 10s}}", "what is new has its whole share at once"),
        (
            POLICY % "loadBalancer: {consistentHash: {httpHeaderName: a, maglev: {}}}",
            "gRPC has a ring in its place",
        ),
        (
            POLICY % "outlierDetection: {consecutive5xxErrors: 3}",
            "gRPC counts no errors in a row; an instance that cannot be connected to is left out",
        ),
        (
            POLICY % "connectionPool: {tcp: {maxConnections: 3}}",
            "of a pool gRPC keeps `http.http2MaxRequests` alone",
        ),
        (
            POLICY % "connectionPool: {http: {maxRetries: 3, http2MaxRequests: 7}}",
            "of a pool gRPC keeps `http.http2MaxRequests` alone",
        ),
        (POLICY % "retryBudget: {percent: 10}", "gRPC has no budget for retries"),
    ],
)
def test_what_is_only_done_in_another_way_is_told_and_stands(resource: str, why: str) -> None:
    refused, said = found(resource)

    assert refused == []
    assert [one.partition(": callers without a sidecar would get this otherwise: ")[2] for one in said] == [why]


@pytest.mark.parametrize(
    "resource",
    [
        RULE % f"{TO}\n    timeout: 1s\n    fault: {{delay: {{fixedDelay: 1s, percentage: {{value: 5}}}}}}",
        RULE % f"{TO}\n    match: [{{uri: {{prefix: /a}}, headers: {{x-a: {{}}}}, withoutHeaders: {{x-b: {{}}}}}}]",
        RULE % f'{TO}\n    match: [{{method: {{regex: "GET|POST"}}}}]',
        RULE % f"{TO}\n    retries: {{attempts: 0, perTryTimeout: 1s}}",
        POLICY % "loadBalancer: {simple: LEAST_REQUEST}",
        POLICY % "connectionPool: {http: {http2MaxRequests: 7}}",
        RULE.replace("[api]", "[page]") % "redirect: {uri: /x}",  # which gRPC does not call
        RULE.replace("  http:", "  gateways: [default/none]\n  http:") % "redirect: {uri: /x}",
    ],
)
def test_nothing_is_said_of_what_grpc_does_or_nobody_calls_by(resource: str) -> None:
    gateway = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: none}
spec: {selector: {app: edge}, servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}]}
"""
    assert found(resource, WORKLOADS + "gateways:\n  edge: {listen: 8080}\n", gateway) == ([], [])


def test_nothing_is_said_where_every_caller_has_a_sidecar() -> None:
    assert found(RULE % "redirect: {uri: /x}", WORKLOADS.replace(", proxyless: true", "")) == ([], [])


def test_a_service_that_is_kept_from_who_has_no_sidecar_may_have_anything() -> None:
    scope = """\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: it}
spec: {workloadSelector: {labels: {app: web}}, egress: [{hosts: ["./web.default.svc.cluster.local"]}]}
"""
    assert found(RULE % "redirect: {uri: /x}", more=scope) == ([], [])


def test_a_delegate_is_refused_where_its_rule_is_written() -> None:
    root = RULE % "delegate: {name: leaf}"
    leaf = (
        (RULE % f"{TO}\n    mirror: {{host: api}}")
        .replace("{name: api}", "{name: leaf}")
        .replace("  hosts: [api]\n", "")
    )

    assert found(root, more=leaf) == (
        [
            f"mesh/more.yaml:7: callers without a sidecar would get this otherwise: gRPC sends no copies; {REMEDY}",
        ],
        [],
    )


@pytest.mark.parametrize(
    ("kind", "rule", "why"),
    [
        (
            "HTTPRoute",
            "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: api, port: 9080}}}]",
            "gRPC sends no copies",
        ),
        ("HTTPRoute", "sessionPersistence: {}", "its clients are told of no instance to stay with"),
        ("GRPCRoute", "sessionPersistence: {type: Header}", "its clients are told of no instance to stay with"),
    ],
)
def test_a_route_of_the_gateway_api_is_refused_where_it_is_written(kind: str, rule: str, why: str) -> None:
    route = f"""\
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: it}}
spec:
  parentRefs: [{{kind: Service, group: "", name: api}}]
  rules:
  - {rule}
    backendRefs: [{{name: api, port: 9080}}]
"""
    problem = f"mesh/it.yaml:4: callers without a sidecar would get this otherwise: {why}; {REMEDY}"

    assert found(route) == ([problem], [])
