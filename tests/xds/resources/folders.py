"""Folders of declared texts, as Meshes and as snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh
from policyd.mesh.placement import assumed
from policyd.spiffe import SpiffeId
from policyd.xds.resources.build import build_snapshots
from policyd.xds.resources.model import Control
from policyd.xds.snapshot import Snapshot

TRUST_DOMAIN = "cluster.local"
CONTROL = Control("127.0.0.1", (12000,), SpiffeId.server(TRUST_DOMAIN))
WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80}
  api-v1: {service: api, port: 9080}
  api-v2: {service: api, port: 9080}
  other-v1: {service: other, port: 9080, namespace: far}
gateways:
  ingress: {listen: [8080, 8081]}
"""


def mesh_of(files: Mapping[str, str]) -> Mesh:
    """The Mesh of a folder's texts, every port assumed free."""
    declaration = declare(files)
    return build(declaration, TRUST_DOMAIN, assumed(declaration))


def mesh_with(resource: str) -> Mesh:
    """A small Mesh and one file of resources."""
    return mesh_of({"workloads.yaml": WORKLOADS, "mesh/it.yaml": resource})


def bookinfo(root: Path) -> Mapping[str, Snapshot]:
    """The sample's snapshots."""
    folder = root / "examples" / "bookinfo"
    return build_snapshots(
        mesh_of({str(f.relative_to(folder)): f.read_text() for f in folder.rglob("*.yaml")}), CONTROL
    )
