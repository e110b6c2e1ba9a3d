"""A Gateway and its routes, with one thing changed in each test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from policyd.errors import InvalidInput
from policyd.mesh.declaration import Declaration
from policyd.mesh.declare import declare
from policyd.mesh.gateway_api.conditions import Status

GROUP = "gateway.networking.k8s.io"
WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80}
  api-v1: {service: api, port: 9080}
  mail-v1: {service: mail, port: 2525, protocol: tcp}
  far-v1: {service: far, port: 9080, namespace: far}
gateways:
  ingress: {listen: [8080, 8081, 8443, 9000]}
  egress: {listen: [7000], labels: {istio: egressgateway}}
"""
HTTP = {"name": "http", "port": 8080, "protocol": "HTTP"}
EVERY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: own}
spec: {controllerName: policyd.dev/gateway-controller, description: those of this mesh}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, creationTimestamp: "2026-01-31T12:00:00Z"}
spec:
  gatewayClassName: own
  addresses: [{type: Hostname, value: ingress.default.svc.cluster.local}]
  listeners:
    - {name: http, port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
    - {name: tls, port: 8443, protocol: TLS, hostname: "*.example", tls: {mode: Passthrough}}
    - {name: tcp, port: 9000, protocol: TCP, allowedRoutes: {kinds: [{kind: TCPRoute}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: edge, sectionName: http}]
  hostnames: [shop.example]
  rules:
    - matches: [{path: {type: Exact, value: /a}, headers: [{name: a, value: b}], method: GET}]
      filters:
        - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}]}}
        - {type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}, percent: 5}}
        - {type: CORS, cors: {allowOrigins: ["https://*.example"], maxAge: 60}}
      backendRefs: [{name: api, port: 9080, weight: 9}, {name: web, port: 80}]
      timeouts: {request: 10s, backendRequest: 2s}
      retry: {codes: [503], attempts: 2, backoff: 50ms}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls}
spec:
  parentRefs: [{name: edge, sectionName: http}]
  hostnames: [calls.example]
  rules: [{matches: [{method: {service: a.B, method: C}}], backendRefs: [{name: far, namespace: far, port: 9080}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: tls}
spec:
  parentRefs: [{name: edge, sectionName: tls}]
  hostnames: [mail.example]
  rules: [{backendRefs: [{name: mail, port: 2525}]}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: tcp}
spec:
  parentRefs: [{name: edge, sectionName: tcp}]
  rules: [{backendRefs: [{name: mail, port: 2525}]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: bank}
spec:
  hosts: [pay.bank.test]
  ports: [{number: 443, name: https, protocol: HTTPS}, {number: 80, name: http, protocol: HTTP}]
  resolution: DNS
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: bank}
spec:
  targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: bank, sectionName: https}]
  validation:
    caCertificateRefs: [{group: "", kind: ConfigMap, name: bank}]
    hostname: pay.bank.test
    subjectAltNames: [{type: Hostname, hostname: pay.bank.test}, {type: URI, uri: "spiffe://bank.test/pay"}]
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: let, namespace: far}
spec:
  from: [{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: default}]
  to: [{group: "", kind: Service, name: far}]
"""
TO_API = {"backendRefs": [{"name": "api", "port": 9080}]}


def resource(kind: str, name: str, spec: Mapping[str, Any], version: str = "v1", **metadata: Any) -> dict[str, Any]:
    """A resource of the Gateway API."""
    return {
        "apiVersion": f"{GROUP}/{version}",
        "kind": kind,
        "metadata": {"name": name, **metadata},
        "spec": dict(spec),
    }


def gateway(*listeners: Mapping[str, Any], name: str = "edge", of: str = "policyd", **more: Any) -> dict[str, Any]:
    """A Gateway with some listeners; none given: one for plain requests."""
    metadata = more.pop("metadata", {})
    spec = {"gatewayClassName": of, "listeners": list(listeners) or [HTTP], **more}
    return resource("Gateway", name, spec, **metadata)


def route(*rules: Mapping[str, Any], name: str = "shop", kind: str = "HTTPRoute", **more: Any) -> dict[str, Any]:
    """A route at the Gateway; without rules it leads everything to `api`."""
    metadata = more.pop("metadata", {})
    spec = {"parentRefs": [{"name": "edge"}], "rules": list(rules) or [TO_API], **more}
    return resource(kind, name, spec, version="v1alpha2" if kind == "TCPRoute" else "v1", **metadata)


def backend_tls(*targets: Mapping[str, Any], name: str = "safe", **validation: Any) -> dict[str, Any]:
    """A policy for some targets, none given: for the Service `api`; by the roots of the machine unless it says more."""
    metadata = validation.pop("metadata", {})
    roots = {} if "caCertificateRefs" in validation else {"wellKnownCACertificates": "System"}
    spec = {
        "targetRefs": list(targets) or [{"group": "", "kind": "Service", "name": "api"}],
        "validation": {"hostname": "api.example", **roots, **validation},
    }
    return resource("BackendTLSPolicy", name, spec, **metadata)


def grant(namespace: str, kind: str, to: str, group: str = "", **to_more: str) -> dict[str, Any]:
    """Let a kind of the default namespace refer to another kind in a namespace."""
    spec = {
        "from": [{"group": GROUP, "kind": kind, "namespace": "default"}],
        "to": [{"group": group, "kind": to, **to_more}],
    }
    return resource("ReferenceGrant", "let", spec, version="v1beta1", namespace=namespace)


def folder(*resources: Mapping[str, Any], workloads: str = WORKLOADS) -> dict[str, str]:
    """The texts of a folder with these resources."""
    return {"workloads.yaml": workloads, "mesh/it.yaml": yaml.safe_dump_all(resources, sort_keys=False)}


def declared(*resources: Mapping[str, Any]) -> Declaration:
    """What a folder with these resources declares."""
    return declare(folder(*resources))


def status(declaration: Declaration, kind: str, name: str, namespace: str = "default") -> Status:
    """What is told of a resource."""
    key = f"Gateway.{GROUP}" if kind == "Gateway" else kind
    return declaration.statuses[key, f"{namespace}/{name}"]


def told(given: Status) -> dict[str, str]:
    """The conditions of a route at its parents: `<type>=<status>` by reason, those that are good left out."""
    return {one.type: one.reason for one in given.every() if not one.is_good}


def problems(*resources: Mapping[str, Any]) -> list[str]:
    """What a folder with these resources is refused for."""
    with pytest.raises(InvalidInput) as error:
        declared(*resources)
    return [str(problem) for problem in error.value.problems]
