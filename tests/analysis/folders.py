"""A small good folder, and what may be added to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

WORKLOADS = """\
workloads:
  web: {service: web, port: 80}
  api-v1: {service: api, port: 8080, labels: {version: v1}}
gateways:
  edge: {listen: [8000]}
"""
GATEWAY = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 8000, name: http, protocol: HTTP}, hosts: [www.example.com]}]
"""
ROUTES = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: www}
spec:
  hosts: [www.example.com]
  gateways: [edge]
  http: [{route: [{destination: {host: web}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api}
spec:
  hosts: [api]
  http: [{route: [{destination: {host: api, subset: v1}}]}]
"""
RULES_OF_API = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api}
spec:
  host: api
  subsets: [{name: v1, labels: {version: v1}}]
"""
POLICIES = (
    '@id("all")\npermit (principal, action, resource == Service::"api.default") when { principal is Workload };\n'
)
GOOD: Mapping[str, str] = {
    "workloads.yaml": WORKLOADS,
    "mesh/gateway.yaml": GATEWAY,
    "mesh/routes.yaml": ROUTES,
    "mesh/rules.yaml": RULES_OF_API,
    "policies/api.cedar": POLICIES,
}


def resource(kind: str, spec: str, name: str = "more", group: str = "networking.istio.io/v1", more: str = "") -> str:
    return f"apiVersion: {group}\nkind: {kind}\nmetadata: {{name: {name}{more}}}\nspec:\n{spec}"


def virtual_service(http: str, hosts: str = "[web]", more: str = "") -> dict[str, str]:
    return {"mesh/more.yaml": resource("VirtualService", f"  hosts: {hosts}\n  http:\n{http}", more=more)}


def write(folder: Path, *changes: Mapping[str, str]) -> Path:
    for files in (GOOD, *changes):
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    return folder


TO_WEB = "{route: [{destination: {host: web}}]}"
