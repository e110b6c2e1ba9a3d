"""A small good folder; each test breaks one thing in it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from policyd.errors import InvalidInput
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh
from policyd.mesh.placement import assumed

WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80, command: [web]}
  api-v1: {service: api, port: 8080, labels: {version: v1}}
  api-v2: {service: api, port: 8080, labels: {version: v2}}
gateways:
  edge: {listen: [8000, 8001]}
"""
GROUPS = """\
groups:
  callers: {workloads: [web, api.default], services: [api], groups: [people]}
  people: {users: [https://login.example.com/alice], operators: ["unix:1000"], hosts: [example.com]}
"""
GATEWAY = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
    - {port: {number: 8000, name: http, protocol: HTTP}, hosts: ["*.example.com"]}
"""
ROUTES = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [www.example.com]
  gateways: [edge]
  http:
    - match: [{uri: {prefix: /}}]
      route: [{destination: {host: web}}]
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: api-canary, labels: {tier: canary}}
spec:
  selector: {app: api, version: v2}
  ports: [{port: 80, targetPort: 8080, name: http-main}]
"""
GOOD: Mapping[str, str] = {
    "workloads.yaml": WORKLOADS,
    "groups.yaml": GROUPS,
    "mesh/gateway.yaml": GATEWAY,
    "mesh/routes.yaml": ROUTES,
    "mesh/service.yaml": SERVICE,
}


def broken(file: str, old: str, new: str) -> dict[str, str]:
    """Return the good folder with `old` replaced in one file, everywhere there."""
    assert old in GOOD[file], old
    return {**GOOD, file: GOOD[file].replace(old, new)}


def meshed(files: Mapping[str, str], federated: frozenset[str] = frozenset()) -> Mesh:
    """Build the mesh of a folder, wherever the ports are."""
    declaration = declare(files)
    return build(declaration, "cluster.local", assumed(declaration), federated=federated)


def problems(files: Mapping[str, str], federated: frozenset[str] = frozenset()) -> list[str]:
    """Return the problems of a folder as they are shown."""
    with pytest.raises(InvalidInput) as error:
        meshed(files, federated)
    return [str(problem) for problem in error.value.problems]
