"""What no reader of the specification would take is refused, where it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from policyd.mesh.istio.kinds import KINDS, key_of
from tests.mesh.gateway_api.sample import GROUP, HTTP, TO_API, backend_tls, gateway, grant, problems, resource, route

REDIRECT = {"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}
REWRITE = {"type": "URLRewrite", "urlRewrite": {"hostname": "a.example"}}
PREFIX = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}}}
AUTHORITIES = {"group": "", "kind": "ConfigMap", "name": "authorities"}
API = {"group": "", "kind": "Service", "name": "api"}
HEADERS = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["a"]}}


def ruled(**fields: Any) -> dict[str, Any]:
    return route({**TO_API, **fields})


def filtered(*filters: Mapping[str, Any]) -> dict[str, Any]:
    return ruled(filters=list(filters))


def clients(**validation: Any) -> dict[str, Any]:
    return gateway(tls={"frontend": {"default": {"validation": validation}}})


def matched(**match: Any) -> dict[str, Any]:
    return ruled(matches=[match])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (matched(path={"value": "a"}), "mesh/it.yaml:13: `spec.rules[0].matches[0].path`: `a` is no path"),
        (matched(path={"value": "/a//b"}), "`/a//b` is no path"),
        (matched(path={"value": "/a/../b"}), "`/a/../b` is no path"),
        (matched(path={"value": "/a/."}), "`/a/.` is no path"),
        (matched(path={"value": "/a%2fb"}), "`/a%2fb` is no path"),
        (matched(path={"value": "/a?b"}), "`/a?b` is no path"),
        (matched(path={"type": "RegularExpression", "value": "(?=a)"}), "RE2 does not have `(?=`"),
        (matched(path={"type": "Prefix", "value": "/"}), "must be 'Exact', 'PathPrefix' or 'RegularExpression'"),
        (matched(method="get"), "must be 'GET', 'HEAD'"),
        (matched(headers=[{"name": ":method", "value": "GET"}]), "`:method` is no ordinary header"),
        (matched(headers=[{"name": "a", "value": ""}]), "must have at least 1 characters"),
        (filtered(REDIRECT), "`RequestRedirect` answers by itself"),
        (route({"filters": [REDIRECT, REWRITE]}), "`RequestRedirect` and `URLRewrite` exclude each other"),
        (filtered(HEADERS, HEADERS), "the filter `RequestHeaderModifier` is there twice"),
        (filtered({"type": "URLRewrite"}), "a filter `URLRewrite`: `urlRewrite` is missing"),
        (filtered({**HEADERS, "urlRewrite": {}}), "a filter `RequestHeaderModifier`: `urlRewrite` is of another one"),
        (filtered({"type": "ExternalAuth"}), "a filter `ExternalAuth` is not supported: every request is decided"),
        (filtered({"type": "ExtensionRef", "extensionRef": {"name": "x"}}), "no code is loaded into proxies"),
        (filtered({"type": "Own"}), "must be 'RequestHeaderModifier'"),
        (filtered({**HEADERS, "requestHeaderModifier": {"set": [{"name": "A", "value": "1"}], "remove": ["a"]}}),
         "the header `a` is there twice"),
        (filtered({**HEADERS, "requestHeaderModifier": {"remove": ["x-policyd-decision"]}}), "policyd's own header"),
        (filtered({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "api"}, "percent": 101}}),
         "must be at most 100"),
        (filtered({"type": "RequestMirror", "requestMirror": {
            "backendRef": {"name": "api"}, "percent": 1, "fraction": {"numerator": 1}}}), "exclude each other"),
        (filtered({"type": "RequestMirror", "requestMirror": {
            "backendRef": {"name": "api"}, "fraction": {"numerator": 2, "denominator": 1}}}),
         "more than the denominator"),
        (filtered({"type": "CORS", "cors": {"allowOrigins": ["a.example"]}}), "`a.example` is no origin"),
        (filtered({"type": "CORS", "cors": {"allowOrigins": ["*", "https://a.example"]}}), "means all"),
        (filtered({"type": "CORS", "cors": {"allowCredentials": True, "allowHeaders": ["*"]}}), "list the headers"),
        (ruled(timeouts={"request": "1s", "backendRequest": "2s"}), "`backendRequest` is longer than `request`"),
        (ruled(timeouts={"request": "fast"}), "`fast` is no duration"),
        (ruled(retry={"codes": [200]}), "must be at least 400"),
        (ruled(retry={"attempts": -1}), "must be at least 0"),
        (ruled(sessionPersistence={"idleTimeout": "1m"}), "a proxy keeps no session that could be idle"),
        (ruled(sessionPersistence={"absoluteTimeout": "1m"}), "only a cookie that is `Permanent` ends by itself"),
        (ruled(sessionPersistence={"cookieConfig": {"lifetimeType": "Permanent"}}), "needs `absoluteTimeout`; add it"),
        (ruled(sessionPersistence={"absoluteTimeout": "500ms", "cookieConfig": {"lifetimeType": "Permanent"}}),
         "must be at least 1"),
        (ruled(sessionPersistence={"type": "Header", "cookieConfig": {}}), "`cookieConfig` is for cookies"),
        (ruled(sessionPersistence={"sessionName": "a b"}), "`a b`"),
        (ruled(sessionPersistence={}, backendRefs=[{"name": "a", "port": 1}, {"name": "b", "port": 1}]),
         "holds to an instance of one backend, and shares are dealt anew"),
        (ruled(backendRefs=[{"name": "api", "port": 9080, "weight": -1}]), "must be at least 0"),
        (ruled(backendRefs=[{"name": "API", "port": 9080}]), "`API` is no name"),
        (route(hostnames=["*"]), "`*` is no host name"),
        (route(hostnames=["192.0.2.1"]), "`192.0.2.1` is no host name"),
        (route(hostnames=["A.example"]), "`A.example` is no host name"),
        (route(parentRefs=[{"name": "edge"}, {"name": "edge"}]), "`edge` is there twice"),
        (route(useDefaultGateways="All"), "field `useDefaultGateways` of HTTPRoute is not supported"),
        (route(metadata={"creationTimestamp": "yesterday"}), "`yesterday` is no time"),
        (route({"matches": [{"method": "CONNECT"}]}), "`CONNECT` asks for a tunnel, which no HTTPRoute leads on"),
        (route({"matches": [{"method": {"service": "a/b"}}]}, kind="GRPCRoute"), "`a/b` is no name of a gRPC service"),
        (route({"matches": [{"method": {}}]}, kind="GRPCRoute"), "neither `service` nor `method` is given"),
        (route({**TO_API, "filters": [REWRITE]}, kind="GRPCRoute"), "must be 'RequestHeaderModifier'"),
        (route({"backendRefs": []}, kind="TCPRoute"), "must have at least 1 entries"),
        (route(kind="TLSRoute"), "`spec.hostnames` is missing"),
        (resource("UDPRoute", "a", {}), "the kind `UDPRoute` is not supported; nothing here carries UDP"),
        (backend_tls(hostname="*.example"), "`*.example` means many hosts; write one"),
        (backend_tls(caCertificateRefs=[AUTHORITIES], wellKnownCACertificates="System"),
         "give either `caCertificateRefs` or `wellKnownCACertificates`"),
        (backend_tls(caCertificateRefs=[]), "give either `caCertificateRefs` or `wellKnownCACertificates`"),
        (backend_tls(caCertificateRefs=[AUTHORITIES, {**AUTHORITIES, "name": "b"}]), "one is supported; put all"),
        (backend_tls(caCertificateRefs=[{**AUTHORITIES, "name": "../a"}]), "`../a`"),
        (backend_tls(wellKnownCACertificates="Mozilla"), "must be 'System'"),
        (backend_tls(subjectAltNames=[{"type": "URI", "hostname": "a.example"}]), "`URI` needs `uri`, and nothing"),
        (backend_tls(subjectAltNames=[{"type": "Hostname", "hostname": "a.example", "uri": "a://b"}]),
         "`Hostname` needs `hostname`, and nothing else"),
        (backend_tls(subjectAltNames=[{"type": "URI", "uri": "a.example"}]), "`a.example` is no URI"),
        (backend_tls(subjectAltNames=[{"type": "URI", "uri": "a://b"}] * 6), "must have at most 5 entries"),
        (backend_tls(API, {**API, "sectionName": "http"}), "`api` is there twice; keep one, or give each its own"),
        (backend_tls(API, API), "`api` is there twice"),
        (resource("BackendTLSPolicy", "a", {"targetRefs": []}), "must have at least 1 entries"),
        (resource("BackendTLSPolicy", "a", {"options": {"example.com/a": "b"}}),
         "field `options` of BackendTLSPolicy is not supported in `spec`; gateways speak TLS"),
        (resource("GatewayClass", "a", {"controllerName": "policyd"}), "`spec.controllerName`"),
        (resource("GatewayClass", "a", {"controllerName": "a.b/c", "parametersRef": {}}), "those of workloads.yaml"),
        (grant("far", "HTTPRoute", "Service", version="v9"), "unknown field `version`"),
        (gateway({**HTTP, "hostname": "a b"}), "`a b` is no host name"),
        (gateway({**HTTP, "tls": {"mode": "Passthrough"}}), "`HTTP` is plain text"),
        (gateway({**HTTP, "protocol": "HTTPS"}), "`HTTPS` needs `tls`"),
        (gateway({**HTTP, "protocol": "HTTPS", "tls": {"mode": "Passthrough"}}), "what is passed through is not"),
        (gateway({**HTTP, "protocol": "TLS", "tls": {}}), "`certificateRefs` is for `Terminate`, which needs it"),
        (gateway({**HTTP, "protocol": "TCP", "hostname": "a.example"}), "`TCP` has no names to go by"),
        (gateway({**HTTP, "port": 0}), "must be at least 1"),
        (gateway(HTTP, HTTP), "the listener `http` is there twice"),
        (gateway({**HTTP, "allowedRoutes": {"namespaces": {"from": "Selector"}}}), "which needs it"),
        (gateway({**HTTP, "allowedRoutes": {"namespaces": {
            "from": "Selector", "selector": {"matchLabels": {"a": "b"}}}}}),
         "a namespace here has no label `a`"),
        (gateway(infrastructure={}), "field `infrastructure` of Gateway.gateway.networking.k8s.io is not supported"),
        (gateway(tls={"frontend": {}}), "`spec.tls.frontend.default` is missing"),
        (clients(caCertificateRefs=[]), "must have at least 1 entries"),
        (clients(caCertificateRefs=[AUTHORITIES] * 2), "one is supported; put all authorities into its `ca.crt`"),
        (clients(caCertificateRefs=[AUTHORITIES], mode="Any"), "must be 'AllowValidOnly' or 'AllowInsecureFallback'"),
        (gateway(tls={"frontend": {"default": {}, "perPort": [{"port": 1, "tls": {}}] * 2}}), "port 1 is there twice"),
        (gateway(tls={"backend": {"clientCertificateRef": {"name": "../a"}}}), "`../a`"),
    ],
)  # fmt: skip
def test_one_thing_that_is_wrong(given: Mapping[str, Any], message: str) -> None:
    found = problems(given)

    assert [one for one in found if message in one], found


def test_a_prefix_is_replaced_where_one_was_matched() -> None:
    twice = [{"path": {"value": "/a"}}, {"path": {"value": "/b"}}]
    for matches in ([{"path": {"type": "Exact", "value": "/a"}}], twice):
        [found] = problems(ruled(filters=[PREFIX], matches=matches))
        assert "`ReplacePrefixMatch` needs exactly one match, by `PathPrefix`" in found


def test_of_two_kinds_of_one_name_the_group_tells() -> None:
    def key(version: str) -> str | None:
        return key_of({"apiVersion": version, "kind": "Gateway"})

    assert key(f"{GROUP}/v1") == f"Gateway.{GROUP}"
    assert key("networking.istio.io/v1") == "Gateway"
    assert {f"Gateway.{GROUP}", "Gateway"} <= set(KINDS)
    assert key_of({"kind": ["Gateway"]}) is key_of(None) is None
